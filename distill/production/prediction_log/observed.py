"""What one model was asked and answered in a stretch of time, in samples that fit in memory.

The log may be long: rows are counted by an index, then a share of them is read that follows from
ids alone, which are random where it counts. Knows nothing of what is concluded.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
_MAX_GAP_S = 366 * 86_400.0  # between two answers; more of it is a clock that was wrong


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


def served(
    engine: sa.Engine, scope: Scope, *, artefact_sha256: str | None = None, wanted: int = 2000
) -> list[Served]:
    """Tell which models answered, by a sample of the rows, the latest first.

    What a clock has put more than a year before all that follows does not count as a first answer.

    Args:
        engine: an open log.
        scope: what of it.
        artefact_sha256: of one model alone, of which all rows are read; None is all models.
        wanted: rows that are looked at, about.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    narrow = (
        _share(engine, scope, wanted)
        if artefact_sha256 is None
        else [_P.artefact_sha256 == artefact_sha256]
    )
    query = (
        sa.select(_P.model, _P.version, _P.artefact_sha256, _P.time)
        .where(*scope.of(), *narrow, _P.role.in_(GIVEN))
        .order_by(_P.time)
    )
    times: dict[tuple[str, int | None, str], list[float]] = defaultdict(list)
    with talking_to(engine), engine.connect() as connection:
        for model, version, artefact, moment in connection.execute(query):
            times[model, version, artefact].append(moment)
    found = [
        Served(model=m, version=v, artefact_sha256=s, since=_first(own), until=own[-1])
        for (m, v, s), own in times.items()
    ]
    return sorted(found, key=lambda one: one.until, reverse=True)


def first_answer(engine: sa.Engine, until: float, artefact_sha256: str) -> float | None:
    """Tell when a model answered first, UTC in seconds since 1970; None where it has not till then.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    scope = Scope(until=until)
    own = [one for one in served(engine, scope) if one.artefact_sha256 == artefact_sha256]
    if not own:  # too few of many rows to be among those looked at
        own = served(engine, scope, artefact_sha256=artefact_sha256)
    return min((one.since for one in own), default=None)


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


def _first(times: Sequence[float]) -> float:
    """Give the first of ascending times after the last gap that is too long to be one."""
    gaps = [at for at, (a, b) in enumerate(pairwise(times), 1) if b - a > _MAX_GAP_S]
    return times[gaps[-1]] if gaps else times[0]
