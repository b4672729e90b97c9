"""What is in the log: one prediction, or all of them in the order of time.

Whatever may be long is read in pages, each in a short transaction of its own: memory stays constant
and writers never wait. Knows nothing of experiments.
"""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa

from distill.production.prediction_log.connection import talking_to
from distill.production.prediction_log.records import Feedback, Prediction, is_id, time_of
from distill.production.prediction_log.rows import record_of
from distill.production.prediction_log.schema import FEEDBACK, PREDICTIONS, SKEW
from distill.production.prediction_log.scope import Scope

GRACE_MS = 1_000.0  # how long a prediction may be on its way to the log
_P = PREDICTIONS.c
_POLL_S = 0.02

_Found = TypeVar("_Found")
_IDS_AT_ONCE = 500  # sqlite takes 999 parameters in its older versions


@dataclass(frozen=True, kw_only=True)
class Logged:
    """A prediction, and what turned out."""

    prediction: Prediction
    feedback: tuple[Feedback, ...]


@dataclass(frozen=True, kw_only=True)
class SkewCount:
    """How many rows did not fit, by what was wrong with them."""

    model: str
    version: int | None
    kind: str
    column: str
    count: int


def find(engine: sa.Engine, prediction: str) -> Logged | None:
    """Find a prediction by its id; None if there is none.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    if not is_id(prediction):
        return None
    with talking_to(engine), engine.connect() as connection:
        found = _with_feedback(connection, sa.select(PREDICTIONS).where(_P.id == prediction), None)
    return found[0] if found else None


def wait_for(
    look: Callable[[], _Found | None],
    prediction: str,
    *,
    grace_ms: float = GRACE_MS,
    sleep: Callable[[float], None] = time.sleep,
) -> _Found | None:
    """Look for a prediction, and again while it may be on its way to the log.

    It may come from this process or another one, as long as it is younger than the grace; an older
    one that is not there is not waited for. Blocks for as long, so a server calls it in a thread.

    Args:
        look: gives what is there of it; None where nothing is.
        prediction: its id.
        grace_ms: more than the writers' `flush_ms` and a commit.
        sleep: between looks.
    """
    grace_s = grace_ms / 1000
    young = abs(time.time() - time_of(prediction)) < grace_s  # clocks of two machines differ
    deadline = time.monotonic() + grace_s
    while (found := look()) is None:
        if not young or time.monotonic() > deadline:
            return None
        sleep(_POLL_S)
    return found


def stream(
    engine: sa.Engine, scope: Scope | None = None, *, page: int = 1_000, inputs: bool = True
) -> Iterator[Logged]:
    """Read predictions with what turned out, in the order of time.

    Args:
        engine: an open log.
        scope: what of it; None is all.
        page: rows read at once.
        inputs: whether to read inputs, which are most of the bytes.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    scope = scope or Scope()
    wanted = dataclasses.replace(scope, experiment=None).of()
    if scope.experiment is not None:
        # Hidden from an experiment's indices, from which every page would sort all of the rest.
        wanted.append(sa.func.coalesce(_P.experiment, "") == scope.experiment)
    query = sa.select(PREDICTIONS).where(*wanted).order_by(_P.time, _P.id).limit(page)
    if not inputs:
        query = query.with_only_columns(
            *(sa.null().label("input") if c is _P.input else c for c in PREDICTIONS.columns)
        )
    start: tuple[float, str] | None = None
    while True:
        # A row comparison alone is not enough for PostgreSQL to start in the middle of an index.
        rest = [] if start is None else [sa.tuple_(_P.time, _P.id) > start, _P.time >= start[0]]
        with talking_to(engine), engine.connect() as connection:
            found = _with_feedback(connection, query.where(*rest), scope.until)
        yield from found
        if len(found) < page:
            return
        last = found[-1].prediction
        start = (last.time, last.id)


def inputs_of(engine: sa.Engine, predictions: Sequence[str]) -> dict[str, bytes]:
    """Read the inputs of predictions by id; those that were not kept, or are gone, are left out.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    found: dict[str, bytes] = {}
    with talking_to(engine), engine.connect() as connection:
        for ids in _chunks(predictions):
            query = sa.select(_P.id, _P.input).where(_P.id.in_(ids), _P.input.is_not(None))
            found.update((row.id, row.input) for row in connection.execute(query))
    return found


def skews(engine: sa.Engine, scope: Scope | None = None) -> list[SkewCount]:
    """Add up inputs that did not fit, the most first.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    scope, of = scope or Scope(), SKEW.c
    group = (of.model, of.version, of.kind, of.column)
    total = sa.func.sum(of["count"])
    query = (
        sa.select(*group, total)
        .where(*scope.of(SKEW))
        .group_by(*group)
        .order_by(total.desc(), of.model, of.version.nulls_first(), of.kind, of.column)
    )
    with talking_to(engine), engine.connect() as connection:
        found = connection.execute(query).all()
    return [
        SkewCount(model=model, version=version, kind=kind, column=column, count=int(count))
        for model, version, kind, column, count in found
    ]


def _with_feedback(
    connection: sa.Connection, query: sa.Select, until: float | None
) -> list[Logged]:
    rows = connection.execute(query).mappings().all()
    said = defaultdict(list)
    for ids in _chunks([row["id"] for row in rows]):
        of_these = sa.select(FEEDBACK).where(FEEDBACK.c.prediction.in_(ids))
        for row in connection.execute(of_these.order_by(FEEDBACK.c.name)).mappings():
            if until is None or row["time"] < until:
                said[row["prediction"]].append(record_of(Feedback, row))
    return [
        Logged(prediction=record_of(Prediction, row), feedback=tuple(said[row["id"]]))
        for row in rows
    ]


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + _IDS_AT_ONCE] for at in range(0, len(ids), _IDS_AT_ONCE))
