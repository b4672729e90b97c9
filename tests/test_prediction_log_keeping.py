"""What of the log is kept, for how long, and what never reaches it."""

import hashlib
import hmac
import sqlite3
import threading

import pytest
import sqlalchemy as sa
from prediction_logs import count, ids, prediction, write

from distill.errors import UsageError
from distill.production.prediction_log import connection as door
from distill.production.prediction_log.connection import salt_of
from distill.production.prediction_log.feedback import add_feedback
from distill.production.prediction_log.privacy import Privacy
from distill.production.prediction_log.reader import find, skews
from distill.production.prediction_log.records import Feedback, Skew
from distill.production.prediction_log.retention import Purged, purge
from distill.production.prediction_log.schema import FEEDBACK
from distill.production.prediction_log.writer import LogWriter, WriterOptions

DAY = 86_400
NOW = 1_790_000_000.0


def test_what_is_older_goes_with_its_feedback_and_the_rest_stays(engine):
    old = [prediction(time=NOW - 30 * DAY - i) for i in range(1, 26)]
    young = [prediction(time=NOW - 30 * DAY + i) for i in range(5)]
    old_skew, young_skew = (
        Skew(model="m", kind="range", column="x", count=1, time=NOW - days * DAY)
        for days in (40, 20)
    )
    write(engine, *old, *young, old_skew, young_skew)
    for record in (old[0], old[1], young[0]):
        add_feedback(engine, Feedback(prediction=record.id, label=1, time=NOW))
    assert purge(engine, 30, now=NOW, batch=7, pause_s=0) == Purged(num_predictions=25, num_skews=1)
    assert ids(engine) == {record.id for record in young}
    with engine.connect() as connection:
        said = connection.execute(sa.select(FEEDBACK.c.prediction)).scalars().all()
    assert said == [young[0].id]
    assert sum(s.count for s in skews(engine)) == 1
    assert purge(engine, 30, now=NOW) == Purged(num_predictions=0, num_skews=0)


@pytest.mark.parametrize(("days", "batch"), [(-1, 1), (float("nan"), 1), (1, 0)])
def test_what_says_nothing_of_age_deletes_nothing(engine, days, batch):
    write(engine, prediction(time=0.0))
    with pytest.raises(UsageError, match="days >= 0"):
        purge(engine, days, batch=batch)
    assert count(engine) == 1


def test_writers_get_their_turn_after_every_few_rows(engine, monkeypatch):
    write(engine, *(prediction(time=1.0) for _ in range(300)))
    left = [300]

    def sleep(seconds):
        write(engine, prediction())  # nothing is held while purge pauses
        left.append(count(engine))

    monkeypatch.setattr("distill.production.prediction_log.retention.time.sleep", sleep)
    purge(engine, 1, batch=10)
    assert left[:31] == [300 - 9 * i for i in range(31)]


@pytest.mark.parametrize("num_batches", [0, 1, 3])
def test_a_purge_stops_between_batches_and_the_next_one_goes_on(engine, num_batches):
    write(engine, *(prediction(time=1.0) for _ in range(50)))
    answers = iter([False] * num_batches + [True] * 3)
    done = purge(engine, 1, batch=10, pause_s=0, is_over=lambda: next(answers))
    assert done.num_predictions == 10 * num_batches
    assert count(engine) == 50 - 10 * num_batches
    assert purge(engine, 1, batch=10, pause_s=0).num_predictions == 50 - 10 * num_batches


def test_the_room_goes_back_to_the_disk(tmp_path, opened):
    engine = opened(f"sqlite:///{tmp_path}/log.db")
    write(engine, *(prediction(time=1.0, input=bytes(20_000)) for _ in range(1_000)))

    def size_bytes():
        with engine.connect() as connection:
            connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return (tmp_path / "log.db").stat().st_size

    assert size_bytes() > 20_000_000
    purge(engine, 1, pause_s=0)
    assert size_bytes() < 200_000
    with sqlite3.connect(tmp_path / "log.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_purge_beside_a_reader_and_a_writer_ends(engine):
    write(engine, *(prediction(time=1.0) for _ in range(200)))
    with engine.connect() as connection:  # an old view of the log
        rows = connection.execution_options(yield_per=10).execute(sa.text("SELECT 1"))
        thread = threading.Thread(target=purge, args=(engine, 1), kwargs={"pause_s": 0})
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        rows.close()
    assert count(engine) == 0


SECRET, UNIT = b"the row of somebody", "somebody@example.org"


def logged(engine, **privacy):
    record = prediction(input=SECRET, input_sha256="f" * 64, unit=UNIT)
    other = prediction(input=SECRET, unit=UNIT)
    with LogWriter(engine, WriterOptions(privacy=Privacy(**privacy))) as writer:
        writer.put(record)
        writer.put(other)
    return [find(engine, one.id).prediction for one in (record, other)]


def salted(engine, value):
    return hmac.new(salt_of(engine), value, hashlib.sha256).hexdigest()


def test_by_default_all_is_kept(engine):
    first, second = logged(engine)
    assert (first.input, first.input_sha256, first.unit) == (SECRET, "f" * 64, UNIT)
    assert (second.input, second.input_sha256) == (SECRET, None)


def test_hashed_inputs_tell_equal_ones_and_nothing_else(engine):
    for found in logged(engine, inputs="hash"):
        assert found.input is None
        assert found.input_sha256 == salted(engine, SECRET)
        assert found.input_sha256 != hashlib.sha256(SECRET).hexdigest()
        assert found.unit == UNIT


def test_dropped_inputs_leave_nothing(engine):
    for found in logged(engine, inputs="drop"):
        assert (found.input, found.input_sha256) == (None, None)


def test_hashed_units_are_the_same_unit_for_every_process(engine, opened):
    found = logged(engine, units="hash") + logged(opened(), units="hash")
    assert {p.unit for p in found} == {salted(engine, UNIT.encode())}
    assert {p.input for p in found} == {SECRET}


def test_what_may_not_be_kept_is_nowhere_in_the_files(tmp_path, opened):
    engine = opened(f"sqlite:///{tmp_path}/log.db")
    logged(engine, inputs="hash", units="hash")
    files = b"".join(path.read_bytes() for path in tmp_path.glob("log.db*"))
    assert b"distill_predictions" in files
    assert SECRET not in files
    assert UNIT.encode() not in files


@pytest.mark.parametrize("wrong", [{"inputs": "dorp"}, {"units": "drop"}, {"inputs": None}])
def test_a_mistyped_choice_is_refused(wrong):
    with pytest.raises(UsageError, match="to be one of keep, hash"):
        Privacy(**wrong)


def test_two_logs_hash_differently(engine, tmp_path, opened):
    other = opened(f"sqlite:///{tmp_path}/other.db")
    assert salted(engine, SECRET) != salted(other, SECRET)


def test_what_was_deleted_is_nowhere_in_the_file(tmp_path, opened):
    engine = opened(f"sqlite:///{tmp_path}/log.db")
    write(engine, *(prediction(time=1.0, unit=UNIT, input=SECRET) for _ in range(50)))
    purge(engine, 1, pause_s=0)
    with door.writing(engine):
        pass
    engine.dispose()
    assert UNIT.encode() not in (tmp_path / "log.db").read_bytes()
