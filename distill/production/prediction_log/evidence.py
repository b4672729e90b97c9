"""What an experiment's rows amount to: counts by stage and role, sums by unit.

The database adds up; what comes back is as small as the decision needs. Knows nothing of what is
decided from it. A request that was not answered has no right answer: where the truth of it is
known, it counts as wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from distill.production.prediction_log.connection import talking_to
from distill.production.prediction_log.records import LABEL, Role
from distill.production.prediction_log.schema import FEEDBACK, PREDICTIONS
from distill.production.prediction_log.scope import Scope, count_of

_P = PREDICTIONS.c
_ROLES = 4

Total = Literal[
    "requests", "errors", "timeouts", "labelled", "correct", "outcomes", "sum", "sum_squares"
]


@dataclass(frozen=True, kw_only=True)
class ArmCounts:
    """What happened in one stage to the requests that were answered in one role.

    Attributes:
        stage: a step of the ramp.
        role: who answered.
        requests: all of them.
        units: how many different ones asked.
        errors: of the requests, those that failed.
        timeouts: those that took too long to be answered.
        rejected: those whose input was refused.
        labelled: those whose true class is known.
        correct: of the labelled, those that were answered rightly.
        over: by limit, how many took longer than so many milliseconds, or timed out.
    """

    stage: str | None
    role: Role
    requests: int
    units: int
    errors: int
    timeouts: int
    rejected: int
    labelled: int
    correct: int
    over: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class UnitTotals:
    """What one unit met in one role.

    Attributes:
        unit: who.
        role: who answered.
        requests: all of them.
        errors: those that failed.
        timeouts: those that took too long.
        labelled: those whose true class is known.
        correct: of the labelled, those that were answered rightly.
        outcomes: those of which the numeric outcome is known.
        sum: of the outcome.
        sum_squares: of the outcome.
    """

    unit: str
    role: Role
    requests: int
    errors: int
    timeouts: int
    labelled: int
    correct: int
    outcomes: int
    sum: float
    sum_squares: float


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over the units of one role, of what makes a ratio such as correct over labelled.

    With them a ratio of means has its variance over units by the delta method, however many
    requests a unit made.

    Attributes:
        role: who answered.
        units: how many.
        numerator: sum of the units' numerators.
        denominator: sum of the units' denominators.
        numerator_squares: sum of squares.
        denominator_squares: sum of squares.
        products: sum of numerator times denominator.
    """

    role: Role
    units: int
    numerator: float
    denominator: float
    numerator_squares: float
    denominator_squares: float
    products: float


def arm_counts(
    engine: sa.Engine, scope: Scope, *, limits_ms: Sequence[float] = ()
) -> list[ArmCounts]:
    """Count what happened, by stage and role.

    Args:
        engine: an open log.
        scope: which rows.
        limits_ms: of latency.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    label = FEEDBACK.alias("truth")
    slow = [
        count_of((_P.latency_ms > limit) | (_P.outcome == "timeout")).label(f"over_{i}")
        for i, limit in enumerate(limits_ms)
    ]
    query = (
        sa.select(
            _P.stage,
            _P.role,
            sa.func.count().label("requests"),
            sa.func.count(_P.unit.distinct()).label("units"),
            count_of(_P.outcome == "error").label("errors"),
            count_of(_P.outcome == "timeout").label("timeouts"),
            count_of(_P.outcome == "rejected").label("rejected"),
            sa.func.count(label.c.label).label("labelled"),
            count_of(label.c.label == _P.label).label("correct"),
            *slow,
        )
        .select_from(PREDICTIONS.outerjoin(label, scope.said(label, LABEL)))
        .where(*scope.of())
        .group_by(_P.stage, _P.role)
        .order_by(_P.stage.is_not(None), _P.stage, _P.role)
    )
    with talking_to(engine), engine.connect() as connection:
        rows = connection.execute(query).all()
    names = [column.name for column in query.selected_columns][: -len(slow) or None]
    return [
        ArmCounts(**dict(zip(names, row, strict=False)), over=tuple(row[len(names) :]))
        for row in rows
    ]


def unit_totals(
    engine: sa.Engine, scope: Scope, *, outcome: str | None = None, page: int = 2_000
) -> Iterator[UnitTotals]:
    """Read what each unit met in each role, in the order of units, in pages.

    A unit's figures are of one moment; give `until` to have all of them of one.

    Args:
        engine: an open log.
        scope: which rows; those without a unit are left out.
        outcome: name of a numeric one; what nobody said counts for nothing.
        page: rows read at once.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    assert page > _ROLES
    query = _by_unit(scope, outcome).order_by(_P.unit, _P.role).limit(page)
    after: list[sa.ColumnElement[bool]] = []
    while True:
        with talking_to(engine), engine.connect() as connection:
            rows = connection.execute(query.where(*after)).mappings().all()
        whole = [UnitTotals(**row) for row in rows]
        if len(rows) == page:  # the last unit's roles may go on behind the end of the page
            whole = [totals for totals in whole if totals.unit != whole[-1].unit]
        yield from whole
        if len(rows) < page:
            return
        after = [_P.unit > whole[-1].unit]


def unit_moments(
    engine: sa.Engine,
    scope: Scope,
    *,
    numerator: Total,
    denominator: Total = "requests",
    outcome: str | None = None,
) -> list[Moments]:
    """Add up over units, by role, what makes a ratio.

    Args:
        engine: an open log.
        scope: which rows; those without a unit are left out.
        numerator: such as `correct`, or `sum` of an outcome.
        denominator: such as `labelled`, or `requests`.
        outcome: name of a numeric one, for `outcomes`, `sum` and `sum_squares`.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    units = _by_unit(scope, outcome).subquery()
    x, n = (sa.cast(units.c[name], sa.Double) for name in (numerator, denominator))
    query = (
        sa.select(
            units.c.role,
            sa.func.count().label("units"),
            sa.func.sum(x).label("numerator"),
            sa.func.sum(n).label("denominator"),
            sa.func.sum(x * x).label("numerator_squares"),
            sa.func.sum(n * n).label("denominator_squares"),
            sa.func.sum(x * n).label("products"),
        )
        .group_by(units.c.role)
        .order_by(units.c.role)
    )
    with talking_to(engine), engine.connect() as connection:
        return [Moments(**row) for row in connection.execute(query).mappings()]


def _by_unit(scope: Scope, outcome: str | None) -> sa.Select:
    label, number = FEEDBACK.alias("truth"), FEEDBACK.alias("outcome")
    value = number.c.value
    joined = PREDICTIONS.outerjoin(label, scope.said(label, LABEL)).outerjoin(
        number, scope.said(number, outcome or "")
    )
    return (
        sa.select(
            _P.unit,
            _P.role,
            sa.func.count().label("requests"),
            count_of(_P.outcome == "error").label("errors"),
            count_of(_P.outcome == "timeout").label("timeouts"),
            sa.func.count(label.c.label).label("labelled"),
            count_of(label.c.label == _P.label).label("correct"),
            sa.func.count(value).label("outcomes"),
            sa.func.coalesce(sa.func.sum(value), 0.0).label("sum"),
            sa.func.coalesce(sa.func.sum(value * value), 0.0).label("sum_squares"),
        )
        .select_from(joined)
        .where(_P.unit.is_not(None), *scope.of())
        .group_by(_P.unit, _P.role)
    )
