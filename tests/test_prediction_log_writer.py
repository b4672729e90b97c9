"""The log's writer: it never holds up an answer, and says what it lost."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from prediction_logs import count, ids, prediction
from sshd import until

from distill.errors import UsageError
from distill.production.prediction_log import connection as door
from distill.production.prediction_log.records import Skew
from distill.production.prediction_log.writer import WriterOptions

AGES = 1e9  # a flush that never comes by itself


class Locked:
    """Another program that holds the log, until it lets go."""

    def __init__(self, engine: sa.Engine) -> None:
        self._connection = engine.connect()
        self._connection.execution_options(distill_writes=True)
        if engine.dialect.name == "postgresql":
            self._connection.exec_driver_sql("LOCK TABLE distill_predictions")
        else:
            self._connection.exec_driver_sql("SELECT 1")

    def release(self) -> None:
        self._connection.rollback()
        self._connection.close()


@pytest.fixture
def locked(engine):
    lock = Locked(engine)
    yield lock
    lock.release()


def test_what_was_put_is_there_after_a_while_without_a_call(engine, writing):
    writer = writing()
    records = [prediction() for _ in range(20)]
    for record in records:
        assert writer.put(record) is None
    until(lambda: writer.health.num_pending == 0)
    assert ids(engine) == {record.id for record in records}
    assert writer.health.num_written == 20
    assert writer.health.problem is None


def test_a_full_batch_does_not_wait_for_the_flush(engine, writing):
    writer = writing(flush_ms=AGES, batch=10)
    for _ in range(9):
        writer.put(prediction())
    assert count(engine) == 0
    writer.put(prediction())
    until(lambda: count(engine) == 10)


def test_closing_writes_what_is_left_in_the_order_of_coming(engine, writing):
    writer = writing(flush_ms=AGES, batch=7, capacity=10_000)
    for i in range(100):
        writer.put(prediction(latency_ms=float(i)))
    assert writer.close()
    with engine.connect() as connection:
        query = sa.text("SELECT latency_ms FROM distill_predictions")
        assert sorted(connection.execute(query).scalars()) == list(range(100))


def test_a_closed_writer_loses_and_counts(engine, writing):
    writer = writing()
    assert writer.close()
    writer.put(prediction())
    assert writer.lost == 1
    assert count(engine) == 0
    assert not writer.close()


def test_a_full_queue_drops_and_counts(engine, writing, locked):
    writer = writing(capacity=10)
    records = [prediction() for _ in range(25)]
    for record in records:
        writer.put(record)
    health = writer.health
    assert (health.num_pending, health.num_lost, writer.lost) == (10, 15, 15)
    locked.release()
    until(lambda: writer.health.num_pending == 0)
    assert ids(engine) == {record.id for record in records[:10]}  # the first ones
    assert not writer.close()


def test_a_queue_is_full_of_bytes_too(engine, writing, locked):
    writer = writing(capacity_bytes=1_000_000)
    for _ in range(5):
        writer.put(prediction(input=b"x" * 300_000))
    assert writer.health.num_pending == 3
    writer.put(prediction())  # a small one has room
    assert writer.health.num_pending == 4
    assert writer.lost == 2
    locked.release()
    until(lambda: count(engine) == 4 and writer.health.num_pending == 0)
    writer.put(prediction(input=b"x" * 900_000))  # there is room again
    until(lambda: count(engine) == 5)


def test_a_log_that_another_program_holds_is_told_and_written_later(engine, writing, locked, patch):
    patch(engine)
    writer = writing()
    writer.put(prediction())
    until(lambda: writer.health.problem)
    assert "lock" in writer.health.problem
    assert writer.health.oldest_pending_ms > 0
    locked.release()
    until(lambda: writer.health.problem is None)
    assert count(engine) == 1
    assert writer.lost == 0


@pytest.fixture
def patch(monkeypatch) -> Callable[[sa.Engine], None]:
    """Have writers wait shortly for others, so that they fail."""
    statement = {"sqlite": "PRAGMA busy_timeout=50", "postgresql": "SET LOCAL lock_timeout=50"}

    def shortly(engine: sa.Engine) -> None:
        def begun(connection: sa.Connection) -> None:
            connection.exec_driver_sql(statement[engine.dialect.name])

        sa.event.listen(engine, "begin", begun, insert=engine.dialect.name == "sqlite")

    return shortly


def test_closing_ends_though_the_log_cannot_be_written(engine, writing, locked, patch):
    patch(engine)
    writer = writing(sync=True)
    done = [writer.put(prediction()) for _ in range(3)]
    assert not writer.close(0.2)
    assert [future.result(60) for future in done] == [False] * 3
    assert writer.lost == 3
    locked.release()
    assert count(engine) == 0


def test_a_record_that_no_log_can_hold_takes_no_other_with_it(engine, writing):
    writer = writing(sync=True, batch=100)
    bad = [
        prediction(latency_ms=float("nan")),
        prediction(label=2**70),
        prediction(label="seven"),
        prediction(role=None),
        prediction(output=3.5),
        prediction(model=7),
    ]
    good = [prediction() for _ in range(6)]
    done = [writer.put(record) for pair in zip(bad, good, strict=True) for record in pair]
    assert [future.result(60) for future in done] == [False, True] * 6
    assert writer.health.num_refused == 6
    assert writer.lost == 6
    assert ids(engine) == {record.id for record in good}


def test_rows_that_the_database_refuses_are_found_among_others(engine, writing):
    rule = {  # that only the database knows
        "postgresql": "ALTER TABLE distill_predictions ADD CHECK (unit <> 'bad')",
        "sqlite": "CREATE TRIGGER own BEFORE INSERT ON distill_predictions WHEN NEW.unit = 'bad' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END",
    }
    with door.writing(engine) as connection:
        connection.exec_driver_sql(rule[engine.dialect.name])
    writer = writing(flush_ms=AGES, batch=64)
    records = [prediction(unit="bad" if i in (0, 13, 14, 63) else "good") for i in range(64)]
    for record in records:
        writer.put(record)
    until(lambda: writer.health.num_pending == 0)
    assert ids(engine) == {record.id for record in records if record.unit == "good"}
    assert writer.health.num_refused == 4


def test_a_unit_that_no_index_can_hold_takes_no_other_with_it(engine, writing, rng):
    writer = writing(sync=True, batch=8)
    long = "".join(map(chr, rng.integers(33, 127, 20_000)))
    records = [prediction(experiment="e", unit=unit) for unit in ("ann", long, "bob")]
    kept = [writer.put(record).result(60) for record in records]
    assert kept == [True, engine.dialect.name == "sqlite", True]


def test_the_same_record_twice_is_one_row(engine, writing):
    writer = writing()
    record, skew = prediction(), Skew(model="m", kind="missing", column="age", count=1)
    for _ in range(3):
        writer.put(record)
        writer.put(skew)
    assert writer.close()
    assert count(engine) == 1


def test_sync_tells_when_the_row_is_there(engine, writing, opened):
    writer = writing(opened(sync=True), sync=True)
    for i in range(10):
        assert writer.put(prediction()).result(60) is True
        assert count(engine) == i + 1


def test_sync_commits_together_what_came_during_a_commit(engine, writing, locked):
    commits = []
    sa.event.listen(engine, "commit", lambda connection: commits.append(1))
    writer = writing(sync=True)
    done = [writer.put(prediction()) for _ in range(200)]
    locked.release()
    assert all(future.result(60) for future in done)
    assert 1 <= len(commits) <= 3


def test_a_request_that_gives_up_does_not_cancel_its_row(engine, writing, locked):
    writer = writing(sync=True)

    async def impatient():
        await asyncio.wait_for(asyncio.wrap_future(writer.put(prediction())), 0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    locked.release()
    until(lambda: count(engine) == 1)
    assert writer.put(prediction()).result(60)  # the thread lives


def test_sync_tells_at_once_that_there_is_no_room(writing, locked):
    writer = writing(sync=True, capacity=1)
    writer.put(prediction())
    assert writer.put(prediction()).result(0) is False


def test_puts_from_many_threads_are_all_there(engine, writing):
    writer = writing(capacity=100_000)
    threads = [
        threading.Thread(target=lambda: [writer.put(prediction()) for _ in range(250)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.close(60)
    assert count(engine) == 2000


@pytest.mark.parametrize("name", ["flush_ms", "batch", "capacity", "capacity_bytes"])
def test_options_that_would_write_nothing_are_refused(name):
    with pytest.raises(UsageError, match=f"`{name}` > 0 but got 0"):
        WriterOptions(**{name: 0})


def test_records_need_no_database():
    code = (
        "import sys, distill.production.prediction_log.records\nprint('sqlalchemy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
