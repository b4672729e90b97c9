"""Opening and reading the prediction log, in sqlite and in PostgreSQL."""

import dataclasses
import os
import sqlite3
import stat
import time

import numpy as np
import pytest
import sqlalchemy as sa
from prediction_logs import child, count, prediction, write
from sshd import free_port

from distill.errors import UserError
from distill.production.prediction_log.connection import (
    LogUnavailableError,
    open_log,
    salt_of,
    writing,
)
from distill.production.prediction_log.feedback import add_feedback
from distill.production.prediction_log.reader import find, skews, stream
from distill.production.prediction_log.records import Feedback, Skew, is_id, new_id, time_of
from distill.production.prediction_log.schema import META
from distill.production.prediction_log.scope import Scope

FULL = prediction(
    request="r1",
    experiment="e",
    stage="5",
    unit="ünit ∞",
    input=b"\x00\xffinput",
    input_sha256="b" * 64,
    output=np.float32([0.5, -1.5]).tobytes(),
    label=7,
    confidence=0.1,
    latency_ms=0.1 + 0.2,
    outcome="timeout",
    detail="too late",
    time=1_790_000_000.123456,
)
BARE = prediction(version=None)


@pytest.mark.parametrize("record", [FULL, BARE], ids=["full", "bare"])
def test_what_went_in_comes_out(engine, record):
    write(engine, record)
    logged = find(engine, record.id)
    assert logged.prediction == record
    assert logged.feedback == ()


def test_numpy_scalars_are_numbers_in_the_log(engine):
    record = prediction(
        label=np.int64(3),
        confidence=np.float32(0.25),
        latency_ms=np.float64(2),
        version=np.int32(1),
        output=np.float32([1]).data,
    )
    write(engine, record)
    found = find(engine, record.id).prediction
    assert (found.label, found.confidence, found.latency_ms, found.version) == (3, 0.25, 2.0, 1)
    assert found.output == np.float32([1]).tobytes()


def test_texts_that_no_database_takes_are_mended_and_kept(engine):
    record = prediction(unit="a\0b", detail="half \ud800 of one")
    write(engine, record)
    found = find(engine, record.id).prediction
    assert (found.unit, found.detail) == ("a\ufffdb", "half ? of one")


def test_a_confidence_that_is_no_number_is_unknown(engine):
    record = prediction(confidence=float("nan"))
    write(engine, record)
    assert find(engine, record.id).prediction.confidence is None


def test_ids_are_unique_and_sort_by_time():
    made = [new_id() for _ in range(10_000)]
    assert len(set(made)) == len(made)
    assert [i[:14] for i in made] == sorted(i[:14] for i in made)
    assert all(map(is_id, made))
    assert time_of(new_id(1_790_000_000.25)) == 1_790_000_000.25
    assert new_id(1.0) < new_id(2.0) < new_id(1e9) < new_id(4e9)


@pytest.mark.parametrize(
    "text", ["", "x", "0" * 29, "0" * 31, "G" * 30, "0" * 29 + "\n", "\0" * 30]
)
def test_what_is_no_id_is_not_found(engine, text):
    assert not is_id(text)
    assert find(engine, text) is None


def test_pages_give_every_row_once_in_the_order_of_time(engine, rng):
    times = np.sort(rng.integers(0, 20, 200)).astype(float)  # many at the same moment
    records = [prediction(time=float(t), input=b"x") for t in times]
    write(engine, *(records[i] for i in rng.permutation(200)))
    found = [logged.prediction for logged in stream(engine, page=7)]
    assert [p.time for p in found] == list(times)
    assert {p.id for p in found} == {p.id for p in records}
    assert len(found) == 200
    assert [p.id for p in found] == [x.prediction.id for x in stream(engine)]
    bare = [logged.prediction for logged in stream(engine, page=7, inputs=False)]
    assert bare == [dataclasses.replace(p, input=None) for p in found]


def test_a_page_knows_what_turned_out(engine):
    records = [prediction(time=float(i)) for i in range(5)]
    write(engine, *records)
    say(engine, records[1], label=4, time=10.0)
    say(engine, records[1], name="click", value=0.5, time=20.0)
    say(engine, records[4], name="click", value=1.0, time=20.0)
    said = [[(f.name, f.label, f.value) for f in x.feedback] for x in stream(engine, page=2)]
    assert said == [[], [("click", None, 0.5), ("label", 4, None)], [], [], [("click", None, 1.0)]]
    known = [len(x.feedback) for x in stream(engine, Scope(until=15.0))]
    assert known == [0, 1, 0, 0, 0]


def say(engine, record, **facts):
    return add_feedback(engine, Feedback(prediction=record.id, **facts))


def test_a_scope_narrows_what_is_read(engine):
    records = [
        prediction(time=1.0, experiment="a", stage="1"),
        prediction(time=2.0, experiment="a", stage="5", role="shadow"),
        prediction(time=3.0, experiment="b", stage="5", model="other"),
        prediction(time=4.0),
    ]
    write(engine, *records)
    wanted = {
        Scope(experiment="a"): [1, 2],
        Scope(experiment="a", stage="5"): [2],
        Scope(stage="5"): [2, 3],
        Scope(since=2.0, until=4.0): [2, 3],
        Scope(model="other"): [3],
        Scope(role="champion"): [1, 3, 4],
        Scope(): [1, 2, 3, 4],
    }
    for scope, times in wanted.items():
        assert [x.prediction.time for x in stream(engine, scope)] == times


def test_inputs_that_do_not_fit_are_added_up_by_what_was_wrong(engine):
    missing = {"model": "m", "kind": "missing", "column": "age"}
    write(
        engine,
        Skew(**missing, count=2, time=1.0),
        Skew(**missing, count=3, time=2.0),
        Skew(**missing, count=5, time=9.0),
        Skew(model="m", version=2, kind="dtype", column="input", count=7, time=2.0),
    )
    found = [(s.version, s.kind, s.column, s.count) for s in skews(engine, Scope(until=9.0))]
    assert found == [(2, "dtype", "input", 7), (None, "missing", "age", 5)]
    assert sum(s.count for s in skews(engine)) == 17
    assert skews(engine, Scope(model="none")) == []


def test_several_processes_that_open_a_new_log_at_once_make_one(log_url, opened):
    environment = {**os.environ, "START_AT": str(time.time() + 4)}
    code = """
with LogWriter(engine) as writer:
    writer.put(prediction())
print(writer.lost)
"""
    children = [child(code, log_url, env=environment) for _ in range(6)]
    assert [process.communicate()[0] for process in children] == ["0\n"] * 6
    assert count(opened()) == 6


def test_a_log_is_the_same_file_from_another_folder(tmp_path, monkeypatch, opened):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir(exist_ok=True)
    engine = opened("sqlite:///logs/log.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    engine.dispose()
    write(engine, prediction())
    assert count(opened(f"sqlite:///{tmp_path}/logs/log.db")) == 1


def test_a_new_log_is_for_its_owner_alone_and_one_that_is_there_stays_as_it_is(tmp_path, opened):
    path = tmp_path / "log.db"
    with writing(opened(f"sqlite:///{path}")) as connection:
        connection.execute(sa.insert(META).values(name="x", value="y"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("log.db*")}
    assert modes == dict.fromkeys(["log.db", "log.db-wal", "log.db-shm"], 0o600)
    path.chmod(0o640)
    opened(f"sqlite:///{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_open_log_keeps_its_rows_and_its_salt(opened):
    first = opened()
    write(first, BARE)
    second = opened()
    assert count(second) == 1
    assert salt_of(first) == salt_of(second)
    assert len(salt_of(first)) == 32


def test_a_log_stands_beside_tables_of_others(opened):
    engine = opened()
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE predictions (mine INTEGER)")
        connection.exec_driver_sql("CREATE TABLE meta (mine INTEGER)")
    write(opened(), BARE)
    assert count(engine) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("outputs/log.db", "Expected a database URL but got 'outputs/log.db'. Write `sqlite:"),
        ("", "Expected a database URL"),
        ("postgresql://me:hidden@host:port/x", "Expected a database URL"),
        ("sqlite://", "Expected a file for the log"),
        ("sqlite:///:memory:", "Expected a file for the log"),
        ("sqlite:///file:x?mode=memory&uri=true", "Expected a file for the log"),
        ("sqlite:///x.db?timeout=0", "without options"),
        ("mysql://me:hidden@host/x", "Expected a log in sqlite or PostgreSQL but got `mysql`"),
        ("postgresql+asyncpg://me:hidden@host/x", "but got `postgresql+asyncpg`"),
    ],
)
def test_a_url_that_names_no_log_is_refused(url, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        open_log(url)
    assert message in str(error.value)
    assert "hidden" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"no database, but long enough for a header" * 20, b"x"])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "log.db"
    path.write_bytes(content)
    with pytest.raises(LogUnavailableError, match="not a database"):
        open_log(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_truncated_log_is_refused_or_fails_in_one_message(tmp_path):
    path = tmp_path / "log.db"
    engine = open_log(f"sqlite:///{path}")
    write(engine, *(prediction() for _ in range(500)))
    engine.dispose()
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(LogUnavailableError, match=r"malformed|not a database|disk I/O"):
        for _ in stream(open_log(f"sqlite:///{path}")):
            pass


def test_a_folder_in_the_files_place_is_refused(tmp_path):
    with pytest.raises(LogUnavailableError, match="unable to open database file"):
        open_log(f"sqlite:///{tmp_path}")


def test_a_folder_that_is_not_there_is_refused_and_not_made(tmp_path):
    with pytest.raises(LogUnavailableError, match=r"Expected a folder .*/logs .* there is none"):
        open_log(f"sqlite:///{tmp_path}/logs/log.db")
    assert not (tmp_path / "logs").exists()


def test_a_newer_log_is_refused(log_url, engine):
    with writing(engine) as connection:
        connection.execute(sa.update(META).where(META.c.name == "schema_version").values(value="9"))
    with pytest.raises(LogUnavailableError, match=r"version 2 at .* found version 9"):
        open_log(log_url)


def test_half_a_log_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "log.db") as connection:
        connection.execute("CREATE TABLE distill_predictions (mine INTEGER)")
    connection.close()
    with pytest.raises(LogUnavailableError, match="no such table: distill_meta"):
        open_log(f"sqlite:///{tmp_path}/log.db")


@pytest.mark.postgres
def test_an_unreachable_server_is_one_message_without_the_password():
    pytest.importorskip("psycopg")
    url = f"postgresql://me:hidden@127.0.0.1:{free_port()}/log?application_name=hidden"
    with pytest.raises(LogUnavailableError) as error:
        open_log(url)
    assert "refused" in str(error.value)
    assert "hidden" not in str(error.value)
    assert "postgresql://me:***@127.0.0.1" in str(error.value)


@pytest.mark.postgres
def test_a_database_that_the_server_lacks_is_one_message(postgres_url):
    with pytest.raises(LogUnavailableError, match='database "nolog" does not exist'):
        open_log(postgres_url.rpartition("/")[0] + "/nolog")
