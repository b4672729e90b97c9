"""What units met with in an experiment, each counted once: what exact counts are made of.

A unit that is not named stands for its request alone. Knows nothing of what is decided from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from distill.production.prediction_log.connection import talking_to
from distill.production.prediction_log.records import Role
from distill.production.prediction_log.schema import FEEDBACK, PREDICTIONS
from distill.production.prediction_log.scope import Scope, count_of

_P = PREDICTIONS.c


@dataclass(frozen=True, kw_only=True)
class UnitCounts:
    """Units of one arm, and how many of them met with what at least once.

    Attributes:
        units: all of them.
        errors: whom the model failed.
        timeouts: whom it left without an answer in time.
        slow: who waited longer than a limit.
    """

    units: int = 0
    errors: int = 0
    timeouts: int = 0
    slow: int = 0


@dataclass(frozen=True, kw_only=True)
class UnitSkew:
    """Units that a challenger was asked by, and whose training has not seen what they sent.

    Attributes:
        units: all of them.
        challenger_only: that sent values new to the challenger's training alone.
        champion_only: to the champion's alone; a unit that did both is in neither.
    """

    units: int = 0
    challenger_only: int = 0
    champion_only: int = 0


@dataclass(frozen=True, kw_only=True)
class UnitSums:
    """Sums over the units of one arm, of each unit's sum of a numeric outcome.

    Attributes:
        units: all of them; one of whom nothing is said counts as 0.
        total: of the outcome.
        total_of_squares: of each unit's own sum.
    """

    units: int = 0
    total: float = 0.0
    total_of_squares: float = 0.0


def unit_counts(
    engine: sa.Engine, scope: Scope, roles: Sequence[Role], *, slow_ms: float
) -> UnitCounts:
    """Count the units of an arm.

    Args:
        engine: an open log.
        scope: which rows.
        roles: that make the arm.
        slow_ms: above which an answer is slow.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    units = (
        sa.select(
            _met(_P.outcome == "error").label("errors"),
            _met(_P.outcome == "timeout").label("timeouts"),
            _met(_P.latency_ms > slow_ms).label("slow"),
        )
        .where(_P.role.in_(roles), *scope.of())
        .group_by(unit_of(PREDICTIONS))
        .subquery()
    )
    sums = (sa.func.coalesce(sa.func.sum(units.c[n]), 0) for n in ("errors", "timeouts", "slow"))
    query = sa.select(sa.func.count(), *sums).select_from(units)
    with talking_to(engine), engine.connect() as connection:
        counts = [int(value) for value in connection.execute(query).one()]
    return UnitCounts(units=counts[0], errors=counts[1], timeouts=counts[2], slow=counts[3])


def unit_skew(engine: sa.Engine, scope: Scope, role: Role) -> UnitSkew:
    """Count the units whose inputs are new to one of two trainings and not to the other.

    Args:
        engine: an open log.
        scope: which rows.
        role: in which the challenger was asked.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    units = (
        sa.select(
            _met(_P.odd == "own").label("challenger"),
            _met(_P.odd == "champion").label("champion"),
        )
        .where(_P.role == role, *scope.of())
        .group_by(unit_of(PREDICTIONS))
        .subquery()
        .c
    )
    query = sa.select(
        sa.func.count(),
        count_of(units.challenger > units.champion),
        count_of(units.champion > units.challenger),
    ).select_from(units.challenger.table)
    with talking_to(engine), engine.connect() as connection:
        count, challenger_only, champion_only = connection.execute(query).one()
    return UnitSkew(units=count, challenger_only=challenger_only, champion_only=champion_only)


def unit_sums(engine: sa.Engine, scope: Scope, roles: Sequence[Role], *, outcome: str) -> UnitSums:
    """Add up a numeric outcome over the units of an arm.

    Args:
        engine: an open log.
        scope: which rows.
        roles: that make the arm.
        outcome: its name.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    number = FEEDBACK.alias("number")
    units = (
        sa.select(sa.func.coalesce(sa.func.sum(number.c.value), 0.0).label("own"))
        .select_from(PREDICTIONS.outerjoin(number, scope.said(number, outcome)))
        .where(_P.role.in_(roles), *scope.of())
        .group_by(unit_of(PREDICTIONS))
        .subquery()
    )
    own = units.c.own
    query = sa.select(
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(own), 0.0),
        sa.func.coalesce(sa.func.sum(own * own), 0.0),
    ).select_from(units)
    with talking_to(engine), engine.connect() as connection:
        count, total, squares = connection.execute(query).one()
    return UnitSums(units=count, total=float(total), total_of_squares=float(squares))


def _met(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """Tell of a group of rows whether something holds for one of them at least."""
    return sa.func.max(sa.case((condition, 1), else_=0))


def unit_of(table: sa.FromClause) -> sa.ColumnElement[str]:
    """Who is assigned, of a row."""
    return sa.func.coalesce(table.c.unit, table.c.request)
