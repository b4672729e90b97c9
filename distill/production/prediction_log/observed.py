"""What one model was asked and answered in a stretch of time, in samples that fit in memory.

The log may be long: rows are counted by an index, then a share of them is read that follows from
ids alone, which are random where it counts. Knows nothing of what is concluded.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from distill.production.prediction_log.connection import talking_to
from distill.production.prediction_log.records import Prediction
from distill.production.prediction_log.rows import record_of
from distill.production.prediction_log.schema import PREDICTIONS
from distill.production.prediction_log.scope import Scope

GIVEN = ("champion", "challenger", "fallback")  # in which roles an answer went to whoever asked
TIME_DIGITS = 14  # of an id: microseconds, then random bits

_P = PREDICTIONS.c
_DRAWN_DIGITS = 8  # of the random bits: 32 are used


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that the log knows.

    Attributes:
        model: its name.
        version: None of a plain path.
        artefact_sha256: of its file.
        since, until: its first and last answer among those looked at.
    """

    model: str
    version: int | None
    artefact_sha256: str
    since: float
    until: float


def count(engine: sa.Engine, scope: Scope) -> int:
    """Count rows of a stretch of time, of all models, by an index.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    query = sa.select(sa.func.count()).select_from(PREDICTIONS).where(*scope.of())
    with talking_to(engine), engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


def span(engine: sa.Engine) -> tuple[float, float] | None:
    """First and last moment of the log; None where it is empty.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    with talking_to(engine), engine.connect() as connection:
        first = connection.execute(sa.select(sa.func.min(_P.time))).scalar_one()
        last = connection.execute(sa.select(sa.func.max(_P.time))).scalar_one()
    return None if first is None else (first, last)


def served(engine: sa.Engine, scope: Scope, *, wanted: int = 2000) -> list[Served]:
    """Tell which models answered, by a sample of the rows, the latest first.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    key = (_P.model, _P.version, _P.artefact_sha256)
    query = (
        sa.select(*key, sa.func.min(_P.time), sa.func.max(_P.time))
        .where(*scope.of(), *_share(engine, scope, wanted), _P.role.in_(GIVEN))
        .group_by(*key)
        .order_by(sa.func.max(_P.time).desc())
    )
    with talking_to(engine), engine.connect() as connection:
        found = connection.execute(query).all()
    return [
        Served(model=m, version=v, artefact_sha256=s, since=first, until=last)
        for m, v, s, first, last in found
    ]


def sample(
    engine: sa.Engine, scope: Scope, artefact_sha256: str, *, wanted: int
) -> list[Prediction]:
    """Draw answers of a model that went to whoever asked, in the order of time.

    Of each row the chance to be drawn is the same; about `wanted` are, at most twice as many.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    query = (
        sa.select(PREDICTIONS)
        .where(
            *scope.of(),
            *_share(engine, scope, wanted),
            _P.artefact_sha256 == artefact_sha256,
            _P.role.in_(GIVEN),
        )
        .order_by(_P.time, _P.id)
        .limit(2 * wanted)
    )
    with talking_to(engine), engine.connect() as connection:
        return [record_of(Prediction, row) for row in connection.execute(query).mappings()]


def drawn_by(prediction: sa.ColumnElement[str], share: float) -> list[sa.ColumnElement[bool]]:
    """Narrow to a share of the predictions, by random bits of their ids."""
    if share >= 1:
        return []
    bound = f"{int(share * 16**_DRAWN_DIGITS):0{_DRAWN_DIGITS}x}"
    return [sa.func.substr(prediction, TIME_DIGITS + 1, _DRAWN_DIGITS) < bound]


def _share(engine: sa.Engine, scope: Scope, wanted: int) -> list[sa.ColumnElement[bool]]:
    """Narrow to a share of the rows."""
    total = count(engine, Scope(since=scope.since, until=scope.until))
    return drawn_by(_P.id, wanted / max(total, 1))
