"""Champion and shadow on the same rows: what a paired test needs, which takes far fewer labels.

Knows nothing of the test. A row that the shadow did not answer counts as wrong for it.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from distill.production.prediction_log.connection import talking_to
from distill.production.prediction_log.records import LABEL
from distill.production.prediction_log.schema import FEEDBACK, PREDICTIONS
from distill.production.prediction_log.scope import Scope, count_of

_NO_CLASS = -1  # what stands for an answer that was not given; no class has this number


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
