"""What one model was asked and answered in a stretch of time, in samples that fit in memory.

The log may be long: rows are counted by an index, then a share of them is read that follows from
ids alone, which are random where it counts. Knows nothing of what is concluded.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from distill.production.prediction_log.connection import talking_to
from distill.production.prediction_log.records import LABEL, Prediction
from distill.production.prediction_log.rows import record_of
from distill.production.prediction_log.schema import FEEDBACK, PREDICTIONS
from distill.production.prediction_log.scope import Scope

_P = PREDICTIONS.c
_TIME_DIGITS, _DRAWN_DIGITS = 14, 8  # of an id: microseconds, then random bits of which we use 32
_GIVEN = ("champion", "challenger", "fallback")  # in which roles an answer went to whoever asked


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A prediction whose truth is known.

    Attributes:
        id: of the prediction.
        time: of it, UTC in seconds since 1970.
        predicted: class.
        truth: class.
        source: who said so.
        input: as logged; None where nobody kept it.
        output: the first output's row, float32.
    """

    id: str
    time: float
    predicted: int
    truth: int
    source: str
    input: bytes | None
    output: bytes


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
        .where(*scope.of(), *_share(engine, scope, wanted), _P.role.in_(_GIVEN))
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
            _P.role.in_(_GIVEN),
        )
        .order_by(_P.time, _P.id)
        .limit(2 * wanted)
    )
    with talking_to(engine), engine.connect() as connection:
        return [record_of(Prediction, row) for row in connection.execute(query).mappings()]


def labelled(
    engine: sa.Engine, scope: Scope, artefact_sha256: str, *, page: int = 5000
) -> Iterator[Labelled]:
    """Read answers of a model whose true class is known, by their ids.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    said = FEEDBACK.c
    wanted = (_P.artefact_sha256 == artefact_sha256) & _P.role.in_(_GIVEN)
    query = (
        sa.select(_P.id, _P.time, _P.label, said.label, said.source, _P.input, _P.output)
        .select_from(FEEDBACK.join(PREDICTIONS, scope.said(FEEDBACK, LABEL)))
        .where(*scope.of(), wanted, said.label.is_not(None), _P.label.is_not(None))
        .order_by(said.prediction)
        .limit(page)
    )
    last = ""
    while True:
        with talking_to(engine), engine.connect() as connection:
            rows = connection.execute(query.where(said.prediction > last)).all()
        for row in rows:
            yield Labelled(
                id=row[0],
                time=row[1],
                predicted=row[2],
                truth=row[3],
                source=row[4],
                input=row[5],
                output=row[6],
            )
        if len(rows) < page:
            return
        last = rows[-1][0]


def _share(engine: sa.Engine, scope: Scope, wanted: int) -> list[sa.ColumnElement[bool]]:
    """Narrow to a share of the rows, by random bits of their ids."""
    total = count(engine, Scope(since=scope.since, until=scope.until))
    if total <= wanted:
        return []
    bound = f"{int(wanted / total * 16**_DRAWN_DIGITS):0{_DRAWN_DIGITS}x}"
    return [sa.func.substr(_P.id, _TIME_DIGITS + 1, _DRAWN_DIGITS) < bound]
