"""Answers to records of the prediction log, one for each row. Knows nothing of HTTP."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from distill.production.logged_inputs import row_bytes
from distill.production.prediction_log.records import Odd, Outcome, Prediction, Skew, new_id
from distill.production.serving.answers import decided
from distill.production.serving.exchange import Answer, InferenceRequest
from distill.production.serving.log import Log
from distill.production.serving.refusals import Kind, Oddity, RefusedError

MANY_ROWS = 64  # are recorded in a thread: the event loop has others to serve

OUTCOMES: dict[Kind, Outcome] = {
    Kind.TIMEOUT: "timeout",
    Kind.OVERLOAD: "rejected",
}  # of all others: error


def new_ids(num_rows: int) -> tuple[str, ...]:
    """Make an id for each row."""
    return tuple(new_id() for _ in range(num_rows))


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """Writes what was answered. Oddities are added up, and written by `flush`.

    Attributes:
        log: where it goes.
    """

    log: Log
    _oddities: Counter[tuple[str, int | None, str, str]] = field(default_factory=Counter)

    async def record(
        self,
        request: InferenceRequest,
        answer: Answer,
        latency_ms: float,
        *,
        ids: Sequence[str] | None = None,
        failure: tuple[Outcome, str] | None = None,
    ) -> list[Future[Any]]:
        """Record an answer as `put` does; one of many rows in a thread."""
        if request.num_rows > MANY_ROWS:
            return await asyncio.to_thread(
                self.put, request, answer, latency_ms, ids=ids, failure=failure
            )
        return self.put(request, answer, latency_ms, ids=ids, failure=failure)

    def put(
        self,
        request: InferenceRequest,
        answer: Answer,
        latency_ms: float,
        *,
        ids: Sequence[str] | None = None,
        failure: tuple[Outcome, str] | None = None,
    ) -> list[Future[Any]]:
        """Record an answer, also one that nobody is given, or that a model gave none.

        Args:
            request: that was answered.
            answer: and by whom; of a failure without outputs.
            latency_ms: from the whole request to the answer.
            ids: of the predictions; None makes new ones, joined by the request's.
            failure: how it ended instead, and what went wrong.

        Returns:
            What to wait for until it is safe; nothing where the log is not in sync.
        """
        has_rows, said = _said(request, answer)
        outcome, detail = failure or ("ok", None)
        unit = request.unit or (request.ids[0] if request.num_rows > 1 else None)
        waits = []
        for row, asked in enumerate(request.ids):
            output, label, confidence = said[row]
            taken = self.log.put(
                Prediction(
                    id=asked if ids is not None else new_id(),
                    request=asked,
                    model=answer.model,
                    version=answer.version,
                    artefact_sha256=answer.artefact_sha256,
                    role=answer.role,
                    experiment=answer.experiment,
                    stage=answer.stage,
                    unit=unit,
                    input=row_bytes(request.feeds, row, has_rows=has_rows),
                    output=output,
                    label=label,
                    confidence=confidence,
                    odd=_oddity(request, answer, row),
                    outcome=outcome,
                    detail=detail,
                    latency_ms=latency_ms,
                )
            )
            if taken is not None:
                waits.append(taken)
        return waits

    async def failed(
        self, request: InferenceRequest, refusal: RefusedError, latency_ms: float
    ) -> None:
        """Record that a checked request got no answer."""
        edition, (experiment, stage) = request.edition, refusal.part_of
        by = Answer(
            outputs={},
            experiment=experiment,
            stage=stage,
            model=edition.model,
            version=edition.version,
            artefact_sha256=edition.artefact_sha256,
        )
        failure = OUTCOMES.get(refusal.kind, "error"), refusal.message
        await self.record(request, by, latency_ms, ids=request.ids, failure=failure)

    def odd(self, model: str, version: int | None, oddities: Sequence[Oddity]) -> None:
        """Count what was odd in an input."""
        for one in oddities:
            self._oddities[model, version, one.kind, one.column] += one.count

    def flush(self) -> None:
        """Write down what was odd since the last time."""
        counted = dict(self._oddities)
        self._oddities.clear()
        for (model, version, kind, column), count in counted.items():
            self.log.put(Skew(model=model, version=version, kind=kind, column=column, count=count))


def _oddity(request: InferenceRequest, answer: Answer, row: int) -> Odd | None:
    """Say whose training has not seen a value of a row."""
    champion = row in request.odd_rows
    if answer.odd_rows is None:  # the champion's own answer
        return "own" if champion else None
    own = row in answer.odd_rows
    return ("both" if champion else "own") if own else ("champion" if champion else None)


def _said(
    request: InferenceRequest, answer: Answer
) -> tuple[bool, list[tuple[bytes, int | None, float | None]]]:
    """Tell whether rows are answered one by one; and of each its output, class and confidence."""
    if not answer.outputs:
        return request.num_rows > 1, [(b"", None, None)] * request.num_rows
    contract, first = request.edition.contract, next(iter(answer.outputs.values()))
    main = answer.outputs.get(contract.output, first) if contract else first
    has_rows = len(main) == request.num_rows if main.ndim else False
    verdict = decided(contract, main) or [(None, None)] * request.num_rows
    said = []
    for row in range(request.num_rows):
        vector = main[row] if has_rows else main
        output = b"" if vector.dtype.kind == "O" else vector.astype("<f4").tobytes()
        said.append((output, *verdict[row]))
    return has_rows, said
