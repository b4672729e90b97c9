"""What is too old goes, in small batches, and its room goes back to the disk.

The truth of a prediction goes with it. Knows nothing of what is worth keeping.
"""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from distill.errors import UsageError
from distill.production.prediction_log.connection import talking_to, writing
from distill.production.prediction_log.schema import PREDICTIONS, SKEW
from distill.production.prediction_log.scope import DAY

_PAGES = 2_000  # given back to the disk at once: 8 MB


@dataclass(frozen=True, kw_only=True)
class Purged:
    """How many rows went."""

    num_predictions: int
    num_skews: int


def purge(
    engine: sa.Engine,
    days: float,
    *,
    now: float | None = None,
    batch: int = 500,
    pause_s: float = 0.02,
    is_over: Callable[[], bool] = lambda: False,
) -> Purged:
    """Delete what is older than some days.

    Writers get their turn between batches; each holds them up for milliseconds. A purge that was
    killed or stopped goes on where it was at the next one.

    Args:
        engine: an open log.
        days: what is younger stays.
        now: UTC, in seconds since 1970; None is now.
        batch: rows of one transaction.
        pause_s: between two of them.
        is_over: asked before each of them whether to stop: millions of old rows take minutes.

    Raises:
        UsageError: days or batch are none.
        LogUnavailableError: the database cannot be written now.
    """
    if not (days >= 0 and batch > 0):
        raise UsageError(f"Expected days >= 0 and batch > 0 but got {days} and {batch}.")
    until = (time.time() if now is None else now) - days * DAY
    counts = []
    with talking_to(engine):
        for table in (PREDICTIONS, SKEW):
            old = sa.select(table.c.id).where(table.c.time < until).order_by(table.c.time)
            delete = sa.delete(table).where(table.c.id.in_(old.limit(batch)))
            counts.append(0)
            while not is_over() and (count := _delete(engine, delete)):
                counts[-1] += count
                time.sleep(pause_s)
        if engine.dialect.name == "sqlite":  # PostgreSQL does that by itself
            while not is_over() and _give_back(engine):
                time.sleep(pause_s)
    return Purged(num_predictions=counts[0], num_skews=counts[1])


def _delete(engine: sa.Engine, delete: sa.Delete) -> int:
    with writing(engine) as connection:
        return connection.execute(delete).rowcount


def _give_back(engine: sa.Engine) -> bool:
    """Give some free pages back to the disk; false once there are none."""
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        (free,) = raw.execute("PRAGMA freelist_count").fetchone()
        # A page goes with every step, and `execute` takes one step only.
        raw.executescript(f"PRAGMA incremental_vacuum({_PAGES})")
        (left,) = raw.execute("PRAGMA freelist_count").fetchone()
    return 0 < left < free
