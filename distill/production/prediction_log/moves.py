"""The moves of experiments: where each has been, only ever added to, by whichever process is first.

Knows JSON; knows nothing of what a state or its evidence means.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from distill.production.prediction_log.connection import talking_to, writing
from distill.production.prediction_log.schema import MOVES, insert_new


@dataclass(frozen=True, kw_only=True)
class Move:
    """One step of an experiment.

    Attributes:
        experiment: its name.
        number: from 1.
        time: UTC, in seconds since 1970.
        state: from then on, as JSON.
        evidence: for it, as JSON.
    """

    experiment: str
    number: int
    time: float
    state: str
    evidence: str


def add_move(engine: sa.Engine, move: Move) -> bool:
    """Keep a move; False where another process has made one of that number before.

    Raises:
        LogUnavailableError: the database cannot be written now.
    """
    row = (move.experiment, move.number, move.time, move.state, move.evidence)
    with talking_to(engine), writing(engine) as connection:
        added = connection.exec_driver_sql(insert_new(MOVES, engine.dialect), row)
        return bool(added.rowcount)


def moves_of(engine: sa.Engine, experiment: str, *, after: int = 0) -> list[Move]:
    """Read the moves of an experiment, in order.

    Args:
        engine: an open log.
        experiment: its name.
        after: the number of the last that is known.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    of = MOVES.c
    query = sa.select(MOVES).where(of.experiment == experiment, of.number > after)
    with talking_to(engine), engine.connect() as connection:
        found = connection.execute(query.order_by(of.number)).mappings().all()
    return [Move(**row) for row in found]


def experiments(engine: sa.Engine) -> list[str]:
    """Names of all experiments, the latest first.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    of = MOVES.c
    query = sa.select(of.experiment).group_by(of.experiment)
    with talking_to(engine), engine.connect() as connection:
        return list(connection.execute(query.order_by(sa.func.max(of.time).desc())).scalars())
