"""`/predict` and `/feedback`: for people and programs that know pictures and columns, not tensors.

Knows bodies and forms; what answers mean is for `answers` to say.
"""

import time
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from distill.contract import Contract
from distill.errors import UserError, nearest
from distill.production.prediction_log.feedback import (
    UnknownPredictionError,
)
from distill.production.prediction_log.records import LABEL, Feedback, Prediction, is_id
from distill.production.serving.answers import said
from distill.production.serving.documents import aside, read_document, text_field
from distill.production.serving.editions import Edition
from distill.production.serving.guard import body_of
from distill.production.serving.infer import unit_of
from distill.production.serving.log import refusal_of
from distill.production.serving.pictures import Picture, read_picture
from distill.production.serving.pool import Pool
from distill.production.serving.protocol import Tensor
from distill.production.serving.refusals import Kind, RefusedError, malformed
from distill.production.serving.rows import read_rows
from distill.production.serving.service import Asker, Service
from distill.production.serving.truths import truths

MAX_DECODING = 64  # pictures that wait or are decoded
MAX_READING = 64  # of the log


class People:
    """The two routes of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._decoders = Pool("decoding", num_threads=2, max_waiting=MAX_DECODING)
        self._readers = Pool("the log", num_threads=4, max_waiting=MAX_READING)

    def close(self) -> None:
        """End the threads."""
        self._decoders.close()
        self._readers.close()

    async def predict(self, request: Request) -> dict[str, Any]:
        """Answer a picture, a row, or several rows.

        Raises:
            RefusedError: they are none that the model takes.
        """
        started = time.perf_counter()
        edition = self._service.catalogue.current
        contract = edition.contract
        if contract is None:
            raise RefusedError(
                Kind.UNKNOWN,
                "Expected a model with a contract for /predict but this one is a bare ONNX file. "
                f"Ask /v2/models/{edition.model}/infer.",
                status=404,
            )
        headers = dict(request.scope["headers"])
        is_json = b"json" in headers.get(b"content-type", b"")
        if contract.table is not None or is_json:
            inputs, unit, several = await aside(_rows, body_of(request.scope), contract)
            checked, adapted = edition.signature.check(inputs), {}
        else:
            picture, unit = await self._picture(contract, request)
            several, adapted = False, picture.adapted
            assert contract.input is not None
            pixels = Tensor(datatype="UINT8", values=picture.pixels)
            checked = edition.signature.check({contract.input.name: pixels})
            self._service.telemetry.adapted(picture.adapted)
        asker = Asker(endpoint="predict", unit=unit or unit_of(headers), started=started)
        ids, answer = await self._service.ask(edition, checked, asker)
        answers = said(contract, answer.outputs[contract.output])
        rows = [{"prediction_id": own} | row for own, row in zip(ids, answers, strict=True)]
        who: dict[str, Any] = {"model": answer.model, "version": answer.version}
        if adapted:
            who["adapted"] = adapted
        return who | {"predictions": rows} if several else rows[0] | who

    async def _picture(self, contract: Contract, request: Request) -> tuple[Picture, str | None]:
        assert contract.input is not None
        data, unit = await _uploaded(request)
        return await self._decoders.run(read_picture, data, contract.input), unit

    async def feedback(self, request: Request) -> dict[str, Any]:
        """Keep what turned out about a prediction.

        Raises:
            RefusedError: there is no such prediction, the label is none of its classes, or another
                was given before.
        """
        document = await aside(read_document, body_of(request.scope))
        known = ("prediction_id", "label", "outcome", "source")
        unknown = [name for name in document if name not in known]
        if unknown:
            raise malformed(f"Unknown field `{unknown[0][:60]}`. {nearest(unknown[0][:60], known)}")
        prediction_id = text_field(document, "prediction_id")
        if prediction_id is None:
            raise malformed("Expected `prediction_id`, as the answer gave it.")
        found, news = await self._readers.run(self._keep, prediction_id, document)
        for one in news:
            self._service.telemetry.told(found.role, _told(found, one))
        return {
            "prediction_id": prediction_id,
            "kept": len(news),
            "known_before": not news,
        }

    def _keep(
        self, prediction_id: str, document: dict[str, Any]
    ) -> tuple[Prediction, list[Feedback]]:
        """Hold what is said against the prediction, and keep what is news. Blocks."""
        log = self._service.recorder.log
        try:
            found = log.find(prediction_id) if is_id(prediction_id) else None
            if found is None:
                raise UnknownPredictionError(
                    f"Expected the id of a prediction but {prediction_id[:60]!r} is none that is "
                    "kept."
                )
            said = truths(document, found, self._edition_of(found))
            return found, [one for one in said if log.feedback(one)]
        except UserError as error:
            raise refusal_of(error) from error

    def _edition_of(self, prediction: Prediction) -> Edition:
        catalogue = self._service.catalogue
        same = (e for e in catalogue.warm if e.artefact_sha256 == prediction.artefact_sha256)
        return next(same, catalogue.current)


def _rows(body: bytes, contract: Contract) -> tuple[dict[str, Tensor], str | None, bool]:
    if contract.table is None:
        raise malformed(
            "Expected a picture, as the body or as `file` of a form: this model takes no columns."
        )
    document = read_document(body)
    unknown = [name for name in document if name not in ("row", "rows", "unit")]
    if unknown or ("row" in document) == ("rows" in document):
        raise malformed(
            'Expected {"row": {column: value, ...}} or {"rows": [...]}, and `unit` where you '
            f"like, but got {', '.join(map(repr, list(document)[:5])) or 'nothing'}."
        )
    several = "rows" in document
    given = document["rows"] if several else document["row"]
    if several != (type(given) is list):
        raise malformed("Expected `row` to be an object, and `rows` a list of objects.")
    rows = read_rows(given, contract.table.columns, contract.table.spellings)
    return rows, text_field(document, "unit"), several


def _told(prediction: Prediction, feedback: Feedback) -> str:
    """Name what turned out: right or wrong of a class, other of all else."""
    if feedback.name != LABEL or prediction.label is None:
        return "other"
    return "right" if feedback.label == prediction.label else "wrong"


async def _uploaded(request: Request) -> tuple[bytes, str | None]:
    """Take the picture from a form, or the body as it is."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return body_of(request.scope), None
    try:
        async with request.form(max_files=1, max_fields=4) as form:
            files = [part for part in form.values() if isinstance(part, UploadFile)]
            if len(files) != 1:
                raise malformed("Expected one file in the form: `-F file=@picture.png`.")
            return await files[0].read(), text_field(dict(form), "unit")
    except HTTPException as error:
        raise malformed(f"Expected a form with one file but {error.detail}.") from error
    except (KeyError, ValueError) as error:  # a form without a boundary, or in no charset
        raise malformed("Expected a form with one file but it is none.") from error
