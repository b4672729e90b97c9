"""How one model's answers are since a moment: of each unit the first one, and of all the last few.

A unit counts by its first answer alone, so that two stretches of different length can be compared.
Knows nothing of what is decided from it.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from distill.production.prediction_log.connection import talking_to
from distill.production.prediction_log.schema import PREDICTIONS
from distill.production.prediction_log.scope import Scope, count_of
from distill.production.prediction_log.units import unit_of

_P = PREDICTIONS.c
_GIVEN = ("champion", "challenger")
_LATEST = 1_000  # rows in which failures in a row are looked for


@dataclass(frozen=True, kw_only=True)
class FirstAnswers:
    """Units, and how many of them met with what in their first answer.

    Attributes:
        units: all of them.
        errors: whom the model failed.
        timeouts: whom it left without an answer in time.
        slow: who waited longer than a limit.
        skew: who sent a value that the model's training has not seen.
    """

    units: int = 0
    errors: int = 0
    timeouts: int = 0
    slow: int = 0
    skew: int = 0


def first_answers(engine: sa.Engine, scope: Scope, *, slow_ms: float) -> FirstAnswers:
    """Count the first answers, given or failed, that units had from a model.

    Args:
        engine: an open log.
        scope: which rows; what was not given for want of room, or by a shadow, is no answer, nor is
            that of a champion in the place of a challenger, for which its unit has waited.
        slow_ms: above which an answer is slow.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    first = sa.func.row_number().over(partition_by=unit_of(PREDICTIONS), order_by=(_P.time, _P.id))
    columns = (_P.outcome, _P.latency_ms, _P.odd)
    rows = sa.select(*columns, first.label("place")).where(*_answers(scope)).subquery().c
    query = sa.select(
        sa.func.count(),
        count_of(rows.outcome == "error"),
        count_of(rows.outcome == "timeout"),
        count_of(rows.latency_ms > slow_ms),
        count_of(rows.odd.in_(("own", "both"))),
    ).where(rows.place == 1)
    with talking_to(engine), engine.connect() as connection:
        units, errors, timeouts, slow, skew = connection.execute(query).one()
    return FirstAnswers(units=units, errors=errors, timeouts=timeouts, slow=slow, skew=skew)


def failures_in_a_row(engine: sa.Engine, scope: Scope) -> int:
    """Count the requests that a model has failed, or left waiting, since the last that it answered.

    Rows of one request count once.

    Args:
        engine: an open log.
        scope: which rows, as of `first_answers`.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    query = (
        sa.select(unit_of(PREDICTIONS), _P.latency_ms, _P.outcome)
        .where(*_answers(scope))
        .order_by(_P.time.desc(), _P.id.desc())
        .limit(_LATEST)
    )
    with talking_to(engine), engine.connect() as connection:
        latest = connection.execute(query).all()
    failed: set[tuple[str, float]] = set()  # rows of one request have one latency
    for unit, latency_ms, outcome in latest:
        if outcome == "ok":
            break
        failed.add((unit, latency_ms))
    return len(failed)


def _answers(scope: Scope) -> list[Any]:
    return [_P.role.in_(_GIVEN), _P.outcome != "rejected", *scope.of()]
