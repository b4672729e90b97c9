"""The writer: takes records in microseconds and brings them to the database in a thread of its own.

Whatever the database does, no answer waits for it or fails by it. Batches are committed every
`flush_ms`, so a killed process loses what came in since, and in the commit under way; `sync` tells
when a record is on disk. Knows nothing of who asks, and reads nothing back.
"""

import atexit
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc

from distill.errors import UsageError
from distill.production.prediction_log.connection import (
    LogUnavailableError,
    file_of,
    prepare,
    reason,
    salt_of,
    writing,
)
from distill.production.prediction_log.privacy import Privacy
from distill.production.prediction_log.records import Prediction, Record
from distill.production.prediction_log.rows import Row, row_of, size_of, table_of
from distill.production.prediction_log.schema import PREDICTIONS, SKEW, insert_new

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 5.0  # between tries, doubled each time
_BEYOND_A_LIMIT = "54"  # the class of PostgreSQL's codes for what is too large to be kept


def _are_at_fault(error: Exception) -> bool:
    """Tell whether the rows are at fault; of all else the database is."""
    code = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    is_fault = isinstance(error, exc.DataError | exc.IntegrityError)
    return is_fault or code.startswith(_BEYOND_A_LIMIT)


@dataclass(frozen=True, kw_only=True)
class WriterOptions:
    """How much may be lost, and how much memory may be used not to lose it.

    Attributes:
        flush_ms: the longest that a record waits for others to be committed with.
        batch: the most rows of one commit; so many waiting are not waited on any longer.
        capacity: the most records in memory; the next one is dropped and counted.
        capacity_bytes: likewise, of what they hold.
        sync: `put` tells when the record is on disk, and nothing waits for `flush_ms`: what comes
            in during one commit goes with the next. Open the log with `sync`, too.
        privacy: what may be kept.
    """

    flush_ms: float = 50.0
    batch: int = 500
    capacity: int = 20_000
    capacity_bytes: int = 64 * 2**20
    sync: bool = False
    privacy: Privacy = field(default_factory=Privacy)

    def __post_init__(self) -> None:
        """Refuse what would write nothing."""
        for name in ("flush_ms", "batch", "capacity", "capacity_bytes"):
            if not getattr(self, name) > 0:
                raise UsageError(f"Expected `{name}` > 0 but got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class Health:
    """How the writer fares.

    Attributes:
        problem: what the database complains about now; None while it takes what it is given.
        num_pending: records in memory.
        num_written: rows on their way to the reader.
        num_lost: records that were dropped because there was no room, or no time at the end.
        num_refused: records that no database would take; each is a mistake of whoever made it.
        oldest_pending_ms: how long the first of them has been waiting.
    """

    problem: str | None
    num_pending: int
    num_written: int
    num_lost: int
    num_refused: int
    oldest_pending_ms: float


_Fate = Literal["written", "lost", "refused"]


class _Item(NamedTuple):
    record: Record
    done: Future[bool] | None
    num_bytes: int
    since: float


class LogWriter:
    """A bounded queue and the thread that empties it.

    Several processes may each have one for the same log. A closed writer loses what it is given.
    It closes itself when the process ends in order, also by `sys.exit` in a signal's handler.

    Args:
        engine: an open log, best one of its own: readers cannot keep its connections then.
        options: see there.

    Raises:
        LogUnavailableError: the log cannot be read.
    """

    def __init__(self, engine: sa.Engine, options: WriterOptions | None = None) -> None:
        self._engine, self._options = engine, options or WriterOptions()
        self._file, self._salt = file_of(engine), salt_of(engine)
        self._inserts = {t: insert_new(t, engine.dialect) for t in (PREDICTIONS, SKEW)}
        self._lock = threading.RLock()  # guards all that follows; see `put`
        self._changed = threading.Condition(self._lock)
        self._queue: deque[_Item] = deque()
        self._taken: Sequence[_Item] = ()  # by the thread, and not yet written
        self._num_in_hand = self._pending_bytes = 0
        self._fates: Counter[_Fate] = Counter()
        self._problem: str | None = None
        self._deadline: float | None = None  # set by `close`
        self._thread = threading.Thread(target=self._work, name="prediction log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def put(self, record: Record) -> Future[bool] | None:
        """Take a record; returns at once, and never raises.

        Returns:
            With `sync`, what comes true once the record is on disk, or false if it was lost; it
            cannot be cancelled. Otherwise None.
        """
        done = _running() if self._options.sync else None
        item = _Item(record, done, size_of(record), time.monotonic())
        with self._lock:  # not the condition: a signal that raises in its `__enter__` keeps it shut
            if not self._has_room(item):
                self._fates["lost"] += 1
                _tell(item, "lost")
                return done
            self._pending_bytes += item.num_bytes
            self._queue.append(item)
            if len(self._queue) in (1, self._options.batch):  # else the thread is at it already
                self._changed.notify()
        return done

    @property
    def health(self) -> Health:
        """How the writer fares now."""
        with self._lock:
            first = self._taken or self._queue
            waiting = time.monotonic() - first[0].since if first else 0.0
            return Health(
                problem=self._problem,
                num_pending=self._num_pending,
                num_written=self._fates["written"],
                num_lost=self._fates["lost"],
                num_refused=self._fates["refused"],
                oldest_pending_ms=waiting * 1000,
            )

    @property
    def lost(self) -> int:
        """How many records did not and will not reach the log."""
        with self._lock:
            return self._fates["lost"] + self._fates["refused"]

    def close(self, timeout_s: float = 10.0) -> bool:
        """Write what is left, and stop; what the database does not take in time is lost.

        Not for a signal's handler, which may have interrupted `put`: leave that by `sys.exit`.

        Returns:
            Whether all was written.
        """
        atexit.unregister(self.close)
        with self._lock:
            if self._deadline is None:
                self._deadline = time.monotonic() + timeout_s
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._lock:
            return not self._num_pending and not self._fates["lost"] + self._fates["refused"]

    def __enter__(self) -> "LogWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _has_room(self, item: _Item) -> bool:
        return (
            self._deadline is None
            and self._num_pending < self._options.capacity
            and self._pending_bytes + item.num_bytes <= self._options.capacity_bytes
        )

    @property
    def _num_pending(self) -> int:
        return len(self._queue) + self._num_in_hand

    def _work(self) -> None:
        while taken := self._take():
            if self._expired:
                self._finish(taken, "lost")
                continue
            prepared = [(item, row) for item in taken if (row := self._prepared(item)) is not None]
            self._write(prepared)

    def _take(self) -> Sequence[_Item]:
        """Wait for a batch; nothing once all is done."""
        options = self._options
        with self._lock:
            while not self._queue and self._deadline is None:
                self._changed.wait()
            while not options.sync and self._deadline is None and len(self._queue) < options.batch:
                left = self._queue[0].since + options.flush_ms / 1000 - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            count = min(len(self._queue), options.batch)
            self._taken = [self._queue.popleft() for _ in range(count)]
            self._num_in_hand = count
            return self._taken

    def _prepared(self, item: _Item) -> Row | None:
        record = item.record
        try:
            if isinstance(record, Prediction):
                record = self._options.privacy.applied(record, self._salt)
            return row_of(record)
        except Exception as error:  # whatever is wrong with one record, others go on
            self._refuse(item, error)
            return None

    def _write(self, rows: list[tuple[_Item, Row]]) -> None:
        """Commit rows, however long that takes; of rows that are at fault, all but those."""
        pause = _FIRST_PAUSE_S
        while rows:
            try:
                self._commit([(item.record, row) for item, row in rows])
            except Exception as error:  # the thread must outlive whatever a driver raises
                if _are_at_fault(error):
                    if len(rows) == 1:
                        return self._refuse(rows[0][0], error)
                    self._write(rows[: len(rows) // 2])
                    return self._write(rows[len(rows) // 2 :])
                self._note(reason(error))
                if not self._may_retry(pause):
                    return self._finish([item for item, _ in rows], "lost")
                pause = min(2 * pause, _LAST_PAUSE_S)
            else:
                self._note(None)
                return self._finish([item for item, _ in rows], "written")
        return None

    def _commit(self, rows: Sequence[tuple[Record, Row]]) -> None:
        self._see_file()
        with writing(self._engine) as connection:
            for table, insert in self._inserts.items():
                own = [row for record, row in rows if table_of(record) is table]
                if own:
                    connection.exec_driver_sql(insert, own)

    def _see_file(self) -> None:
        """Refuse to write into a file that was moved or deleted, which sqlite would not notice."""
        found = file_of(self._engine)
        if found == self._file:
            return
        self._engine.dispose()
        if found is None:
            raise LogUnavailableError(f"{self._engine.url.database} was moved or deleted")
        prepare(self._engine)  # another one was put there
        self._file, self._salt = found, salt_of(self._engine)

    def _may_retry(self, pause_s: float) -> bool:
        """Wait a while; false once `close` wants no more of it."""
        with self._lock:
            closing = self._changed.wait_for(lambda: self._deadline is not None, pause_s)
        if closing:
            time.sleep(_FIRST_PAUSE_S)
        return not self._expired

    @property
    def _expired(self) -> bool:
        with self._lock:
            return self._deadline is not None and time.monotonic() >= self._deadline

    def _note(self, problem: str | None) -> None:
        with self._lock:
            before, self._problem = self._problem, problem
        if problem and not before:
            log.warning("The prediction log cannot be written: %s. Rows are kept.", problem)
        if before and not problem:
            log.warning("The prediction log can be written again.")

    def _refuse(self, item: _Item, error: Exception) -> None:
        log.error("A record that no log can hold was dropped: %s", reason(error))
        self._finish([item], "refused")

    def _finish(self, items: Sequence[_Item], fate: _Fate) -> None:
        with self._lock:
            self._num_in_hand -= len(items)
            self._pending_bytes -= sum(item.num_bytes for item in items)
            self._taken = ()
            self._fates[fate] += len(items)
        for item in items:
            _tell(item, fate)


def _running() -> Future[bool]:
    done: Future[bool] = Future()
    done.set_running_or_notify_cancel()  # a request that gives up must not cancel a row
    return done


def _tell(item: _Item, fate: _Fate) -> None:
    if item.done is not None:
        item.done.set_result(fate == "written")
