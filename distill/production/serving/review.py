"""`/review`: a page on which people label what is in the queue, one item at a time.

What model and teacher say is shown once a person has answered, never before: who is told an answer
finds it right. The page asks by POST alone, which the guard takes from this service's own pages
only: items hold what other people sent. Knows the queue; knows nothing of how items came into it.
"""

import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from distill.contract import Contract
from distill.errors import UserError, nearest
from distill.files import to_json
from distill.pages import render
from distill.people.annotating import data_uri, keys_of
from distill.production.feedback.model import classes_sha256
from distill.production.feedback.opinions import agreement
from distill.production.feedback.shown import as_picture, as_row
from distill.production.prediction_log.annotations import (
    UnknownItemError,
    answer,
    answers,
    named,
    progress,
    take_back,
)
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.queue import Reviewed, find_item, hand_out
from distill.production.prediction_log.records import Annotation
from distill.production.serving.documents import aside, read_document, text_field, write_document
from distill.production.serving.guard import body_of
from distill.production.serving.log import refusal_of
from distill.production.serving.pool import Pool
from distill.production.serving.refusals import Kind, RefusedError, bad_input, malformed
from distill.production.serving.service import Service
from distill.tasks import TaskKind

MAX_WAITING = 32
LAST = 1_000  # items over which agreement is told
MAX_LEAD_S = 86_400.0
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; frame-ancestors 'none'"
)


def review(engine: Engine | None, service: Service, why_not: str = "") -> Callable[[FastAPI], None]:
    """Make what adds the page and what it asks.

    Args:
        engine: the log; None turns it off.
        service: whose classes people choose from.
        why_not: it is turned off.
    """
    desk = None if engine is None else Desk(engine, service)

    def add(application: FastAPI) -> None:
        page = render("review.html", {"model": service.catalogue.current.model})

        @application.get("/review", include_in_schema=False)
        async def shown() -> Response:
            _open(desk, why_not)
            return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

        @application.post("/review/{step}", include_in_schema=False)
        async def step(step: str, request: Request) -> Response:
            own = _open(desk, why_not)
            found = await own.do(step, await aside(read_document, body_of(request.scope)))
            return Response(
                write_document(found),
                media_type="application/json",
                headers={"Cache-Control": "no-store"},
            )

    return add


def _open(desk: "Desk | None", why_not: str) -> "Desk":
    if desk is None:
        raise RefusedError(Kind.FORBIDDEN, f"There is no /review here: {why_not}", status=403)
    return desk


class Desk:
    """What people ask for while they label.

    Args:
        engine: the log.
        service: whose classes people choose from.
    """

    def __init__(self, engine: Engine, service: Service) -> None:
        self._engine, self._service = engine, service
        self._threads = Pool("the queue", num_threads=2, max_waiting=MAX_WAITING)
        self._steps: dict[str, Callable[[dict[str, Any], Contract], dict[str, Any]]] = {
            "waiting": self._waiting,
            "next": self._next,
            "answer": self._answer,
            "undo": self._undo,
        }

    async def do(self, step: str, document: dict[str, Any]) -> dict[str, Any]:
        """Take a step.

        Raises:
            RefusedError: there is no such step, or what it is given is wrong.
        """
        if step not in self._steps:
            raise RefusedError(Kind.UNKNOWN, "There is no such page.", status=404)
        contract = self._service.catalogue.current.contract
        if contract is None or contract.asks.kind is not TaskKind.CLASSIFICATION:
            raise RefusedError(
                Kind.UNKNOWN,
                "Expected a model that tells classes apart, with a contract that names them, but "
                "the one that is served does not. Send what turned out to /feedback.",
                status=404,
            )
        return await self._threads.run(self._taken, step, document, contract)

    def _taken(self, step: str, document: dict[str, Any], contract: Contract) -> dict[str, Any]:
        try:
            return self._steps[step](document, contract)
        except UserError as error:
            raise refusal_of(error) from error

    def _waiting(self, document: dict[str, Any], contract: Contract) -> dict[str, Any]:
        return {"waiting": progress(self._engine, _key(contract), "").open_for}

    def _next(self, document: dict[str, Any], contract: Contract) -> dict[str, Any]:
        who = _annotator(document)
        found = hand_out(self._engine, who, _key(contract))
        return {
            "item": None if found is None else _shown(found, contract),
            **self._where(who, contract),
        }

    def _answer(self, document: dict[str, Any], contract: Contract) -> dict[str, Any]:
        who, prediction = _annotator(document), _prediction(document)
        classes = contract.asks.outputs
        label = _label(document, classes)
        item = self._item(prediction, contract)
        own = Annotation(
            prediction=prediction,
            annotator=who,
            label=label,
            lead_time_s=_lead_time(document),
            time=time.time(),
        )
        done = answer(self._engine, own)
        teacher = item.item.teacher_label
        return {
            "is_new": done.is_new,
            "said": None if label is None else classes[label],
            "model": _opinion(classes, item.prediction.label, item.prediction.confidence),
            "teacher": _opinion(classes, teacher, item.item.teacher_confidence),
            "is_settled": done.item.label is not None,
            "is_contested": done.item.num_extra > 0 and done.item.label is None,
            **self._where(who, contract),
        }

    def _undo(self, document: dict[str, Any], contract: Contract) -> dict[str, Any]:
        who, prediction = _annotator(document), _prediction(document)
        item = self._item(prediction, contract)
        taken = take_back(self._engine, prediction, who)
        return {"taken_back": taken, "item": _shown(item, contract), **self._where(who, contract)}

    def _item(self, prediction: str, contract: Contract) -> Reviewed:
        found = find_item(self._engine, prediction)
        if found is None or found.item.classes_sha256 != _key(contract):
            raise UnknownItemError(
                "Expected an item of the queue with the classes of the model that is served but "
                "there is none, or no longer. Go on with the next one."
            )
        return found

    def _where(self, who: str, contract: Contract) -> dict[str, Any]:
        key, classes = _key(contract), contract.asks.outputs
        people = agreement(answers(self._engine, key, last=LAST), len(classes))
        return {
            "classes": list(classes),
            "keys": keys_of(classes),
            "progress": to_json(progress(self._engine, key, who)),
            "pairs": to_json(people.pairs[:3]),
        }


def _key(contract: Contract) -> str:
    return classes_sha256(contract.asks.outputs)


def _shown(row: Reviewed, contract: Contract) -> dict[str, Any]:
    data = row.prediction.input
    shown: dict[str, Any] = {"prediction_id": row.prediction.id}
    try:
        if data is None:
            return shown | {"problem": "Its input was not kept. Skip it."}
        if contract.table is not None:
            return shown | {"row": as_row(data, contract.table.columns)}
        return shown | {"picture": data_uri(as_picture(data))}
    except UserError as error:
        return shown | {"problem": f"{error} Skip it."}


def _opinion(
    classes: tuple[str, ...], label: int | None, confidence: float | None
) -> dict[str, Any] | None:
    if label is None or not 0 <= label < len(classes):
        return None
    return {"label": classes[label], "confidence": confidence}


def _annotator(document: dict[str, Any]) -> str:
    return named(text_field(document, "annotator") or "")


def _prediction(document: dict[str, Any]) -> str:
    found = text_field(document, "prediction_id")
    if found is None:
        raise malformed("Expected `prediction_id`, as the item has it.")
    return found


def _label(document: dict[str, Any], classes: tuple[str, ...]) -> int | None:
    if "label" not in document:
        raise malformed("Expected `label`: a class, or null to skip the item.")
    name = document["label"]
    if name is None:
        return None
    if type(name) is not str or name not in classes:
        shown = name[:60] if type(name) is str else type(name).__name__
        raise bad_input(
            f"Expected `label` to be one of the classes but got {shown!r}. "
            f"{nearest(shown, classes)}"
        )
    return classes.index(name)


def _lead_time(document: dict[str, Any]) -> float | None:
    """How long it took, as the page has measured it; nonsense is unknown."""
    seconds = document.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return float(seconds) if 0 <= seconds <= MAX_LEAD_S else None
