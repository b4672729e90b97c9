"""Champion and shadow on the same rows: what a paired test needs, which takes far fewer labels.

Knows nothing of the test. A row that the shadow did not answer counts as wrong for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from distill.production.prediction_log.connection import talking_to
from distill.production.prediction_log.records import LABEL
from distill.production.prediction_log.schema import FEEDBACK, PREDICTIONS
from distill.production.prediction_log.scope import Scope, count_of

_NO_CLASS = -1  # what stands for an answer that was not given; no class has this number


@dataclass(frozen=True, kw_only=True)
class PairCounts:
    """How champion and shadow did on the same rows whose true class is known.

    Attributes:
        both_right: of both.
        champion_only: discordant: the champion was right, the shadow wrong or silent.
        shadow_only: discordant, the other way round.
        both_wrong: of both.
        unlabelled: pairs whose truth is not known.
    """

    both_right: int
    champion_only: int
    shadow_only: int
    both_wrong: int
    unlabelled: int


@dataclass(frozen=True, kw_only=True)
class Discordant:
    """A row on which champion and shadow differed, one of them rightly.

    Attributes:
        request: of both answers.
        unit: who asked.
        time: UTC, in seconds since 1970, at which the truth came in.
        champion_right: else the shadow was.
    """

    request: str
    unit: str | None
    time: float
    champion_right: bool


def pair_counts(engine: sa.Engine, scope: Scope) -> PairCounts:
    """Count how champion and shadow did on the same rows.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    pairs = _Pairs(scope, _shadows(scope).subquery())
    champion, shadow = pairs.champion_right, pairs.shadow_right
    query = sa.select(
        count_of(champion & shadow).label("both_right"),
        count_of(champion & ~shadow).label("champion_only"),
        count_of(~champion & shadow).label("shadow_only"),
        count_of(~champion & ~shadow).label("both_wrong"),
        count_of(pairs.truth.c.label.is_(None)).label("unlabelled"),
    ).select_from(pairs.joined)
    with talking_to(engine), engine.connect() as connection:
        return PairCounts(**connection.execute(query).mappings().one())


@dataclass(frozen=True, kw_only=True)
class UnitPairs:
    """The first row of each unit that champion and shadow both met and whose truth is known.

    Attributes:
        count: of units.
        champion_only: of them, on whose row the champion alone was right.
        shadow_only: the shadow alone.
    """

    count: int
    champion_only: int
    shadow_only: int


def unit_pairs(engine: sa.Engine, scope: Scope) -> UnitPairs:
    """Count how champion and shadow did on one row of each unit, the first whose truth came in.

    A unit that is not named stands for its request alone.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    pairs = _Pairs(scope, _shadows(scope).subquery())
    truth, own = pairs.truth.c, pairs.champion.c
    first = sa.func.row_number().over(
        partition_by=sa.func.coalesce(own.unit, own.request), order_by=(truth.time, own.request)
    )
    labelled = (
        sa.select(
            sa.case((pairs.champion_right, 1), else_=0).label("champion"),
            sa.case((pairs.shadow_right, 1), else_=0).label("shadow"),
            first.label("place"),
        )
        .select_from(pairs.joined)
        .where(truth.label.is_not(None))
        .subquery()
    )
    of = labelled.c
    query = sa.select(
        sa.func.count(),
        count_of((of.champion == 1) & (of.shadow == 0)),
        count_of((of.champion == 0) & (of.shadow == 1)),
    ).where(of.place == 1)
    with talking_to(engine), engine.connect() as connection:
        count, champion_only, shadow_only = connection.execute(query).one()
    return UnitPairs(count=count, champion_only=champion_only, shadow_only=shadow_only)


def discordant(engine: sa.Engine, scope: Scope, *, page: int = 2_000) -> Iterator[Discordant]:
    """Read the rows on which one of champion and shadow was right, in the order of requests.

    Args:
        engine: an open log.
        scope: which rows.
        page: pairs looked at together.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    request = PREDICTIONS.c.request
    after: list[sa.ColumnElement[bool]] = []
    while True:
        # A page is cut before it is joined, or sqlite looks for each partner in all of the rest.
        shadows = _shadows(scope).where(*after).order_by(request).limit(page).subquery()
        pairs = _Pairs(scope, shadows)
        right = sa.cast(sa.case((pairs.champion_right, 1), else_=0), sa.Integer)
        query = (
            sa.select(shadows.c.request, pairs.champion.c.unit, pairs.truth.c.time, right)
            .select_from(pairs.joined)
            .where(pairs.champion_right != pairs.shadow_right)
            .order_by(shadows.c.request)
        )
        size = sa.select(sa.func.count(), sa.func.max(shadows.c.request)).select_from(shadows)
        with talking_to(engine), engine.connect() as connection:
            count, last = connection.execute(size).one()
            rows = connection.execute(query).all()
        for found, unit, time, champion_right in rows:
            yield Discordant(
                request=found, unit=unit, time=time, champion_right=bool(champion_right)
            )
        if count < page:
            return
        after = [request > last]


def _shadows(scope: Scope) -> sa.Select:
    of = PREDICTIONS.c
    columns = (of.experiment, of.request, of.label)
    return sa.select(*columns).where(of.role == "shadow", *scope.of())


class _Pairs:
    """Answers of champion and shadow to the same row, with its truth where it is known."""

    def __init__(self, scope: Scope, shadow: sa.Subquery) -> None:
        self.champion, self.truth = PREDICTIONS.alias("champion"), FEEDBACK.alias("truth")
        # Where the truth is known, both are yes or no; where it is not, both are unknown.
        self.champion_right, self.shadow_right = (
            (self.truth.c.label == sa.func.coalesce(answer.c.label, _NO_CLASS))
            for answer in (self.champion, shadow)
        )
        own = self.champion.c
        self.joined = shadow.join(
            self.champion,
            (own.experiment == shadow.c.experiment)
            & (own.request == shadow.c.request)
            & (own.role == "champion"),
        ).outerjoin(self.truth, scope.said(self.truth, LABEL, own.id))
