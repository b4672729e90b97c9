"""The Open Inference Protocol's routes, as plain ASGI: nothing stands between bytes and model.

`infer` is where speed matters: no framework parses, validates or serialises on its way.
"""

import time
from typing import Any

from distill import __version__
from distill.production.serving.documents import MAX_SHORT_TEXT, aside, write_document
from distill.production.serving.editions import Edition
from distill.production.serving.guard import Receive, Scope, Send, body_of, send_refusal
from distill.production.serving.protocol import (
    BINARY_TYPE,
    HEADER_LENGTH,
    JSON_TYPE,
    Asked,
    read_request,
    wanted_outputs,
    write_response,
)
from distill.production.serving.refusals import RefusedError, malformed
from distill.production.serving.service import Asker, Service, defect
from distill.production.serving.signature import Checked

UNIT = b"x-unit"


class Infer:
    """`POST /v2/models/{name}[/versions/{version}]/infer`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        try:
            status, headers, body = 200, *await self._answer(scope, started)
        except RefusedError as refusal:
            await self._refuse(refusal, send)
            return
        except Exception as error:
            await self._refuse(defect(error), send)
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _refuse(self, refusal: RefusedError, send: Send) -> None:
        self._service.refused("infer", refusal)
        await send_refusal(refusal, send)

    async def _answer(self, scope: Scope, started: float) -> tuple[list[Any], bytes]:
        asked_for = scope["path_params"]
        version = asked_for.get("version")
        edition = self._service.catalogue.find(asked_for["name"], version)
        headers = dict(scope["headers"])
        header_length = headers.get(HEADER_LENGTH)
        asked, wanted, checked = await aside(_read, body_of(scope), edition, header_length)
        asker = Asker(
            endpoint="infer",
            unit=asked.unit or unit_of(headers),
            is_pinned=version is not None,
            started=started,
        )
        ids, answer = await self._service.ask(edition, checked, asker)
        key = "prediction_id" if len(ids) == 1 else "prediction_ids"
        head: dict[str, Any] = {"model_name": answer.model, "parameters": {key: ",".join(ids)}}
        if answer.version is not None:
            head["model_version"] = str(answer.version)
        if asked.id is not None:
            head["id"] = asked.id
        found = write_response(head, answer.outputs, wanted, edition.signature.output_by_name)
        return _headers(len(found.body), found.header_length), found.body


def _read(
    body: bytes, edition: Edition, header_length: bytes | None
) -> tuple[Asked, dict[str, bool], Checked]:
    asked = read_request(body, header_length)
    wanted = wanted_outputs(asked, edition.signature.outputs)
    return asked, wanted, edition.signature.check(asked.inputs)


def _headers(length: int, header_length: int | None) -> list[tuple[bytes, bytes]]:
    if header_length is None:
        return [(b"content-type", JSON_TYPE), (b"content-length", b"%d" % length)]
    return [
        (b"content-type", BINARY_TYPE),
        (HEADER_LENGTH, b"%d" % header_length),
        (b"content-length", b"%d" % length),
    ]


def unit_of(headers: dict[bytes, bytes]) -> str | None:
    """Read who is asking from `X-Unit`.

    Raises:
        RefusedError: it is too long.
    """
    unit = headers.get(UNIT)
    if unit is None or not unit:
        return None
    if len(unit) > MAX_SHORT_TEXT:
        raise malformed(
            f"Expected `X-Unit` of at most {MAX_SHORT_TEXT} bytes but got {len(unit):,}."
        )
    return unit.decode("utf-8", "replace")


class Metadata:
    """The protocol's `GET` routes; each method is given the path's parameters."""

    def __init__(self, service: Service) -> None:
        self._catalogue, self._log = service.catalogue, service.recorder.log

    def server(self, **path: str) -> tuple[int, Any]:
        """`/v2`."""
        extensions = ["binary_tensor_data"]
        return 200, {"name": "distill", "version": __version__, "extensions": extensions}

    def live(self, **path: str) -> tuple[int, Any]:
        """`/v2/health/live`."""
        return 200, {"live": True}

    def ready(self, **path: str) -> tuple[int, Any]:
        """`/v2/health/ready`: there is always an edition that answers."""
        return 200, {"ready": True}

    def health(self, **path: str) -> tuple[int, Any]:
        """`/v2/health`: which model answers, and why a newer one does not."""
        current = self._catalogue.current
        return 200, {
            "live": True,
            "ready": True,
            "model": current.model,
            "version": current.version,
            "artefact_sha256": current.artefact_sha256,
            "warm_versions": [e.version for e in self._catalogue.warm if e.version is not None],
            "problem": self._catalogue.problem,
            "log_problem": self._log.problem(),
        }

    def model(self, name: str, version: str | None = None) -> tuple[int, Any]:
        """`/v2/models/{name}[/versions/{version}]`."""
        edition = self._catalogue.find(name, version)
        warm = self._catalogue.warm
        return 200, {
            "name": edition.model,
            "versions": [e.label for e in warm if e.label],
            "platform": "onnxruntime_onnx",
            "inputs": [spec.metadata for spec in edition.signature.inputs],
            "outputs": [spec.metadata for spec in edition.signature.outputs],
        }

    def model_ready(self, name: str, version: str | None = None) -> tuple[int, Any]:
        """`/v2/models/{name}[/versions/{version}]/ready`."""
        edition = self._catalogue.find(name, version)
        return 200, {"name": edition.model, "ready": True}


class Read:
    """A `GET` route: answers what a method of `Metadata` says."""

    def __init__(self, service: Service, says: Any) -> None:
        self._service, self._says = service, says

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            status, document = self._says(**scope["path_params"])
        except RefusedError as refusal:
            self._service.refused("metadata", refusal)
            await send_refusal(refusal, send)
            return
        body = write_document(document)
        headers = _headers(len(body), None)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
