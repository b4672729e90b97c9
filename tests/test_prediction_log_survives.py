"""What was put in the log outlives kills, full disks, files that go and servers that freeze."""

import os
import signal
import sqlite3
import subprocess

import pytest
from prediction_logs import child, count, ids, killed_after, prediction
from sshd import until

from distill.production.prediction_log.writer import LogWriter, WriterOptions

# Processes that end in one way or another.

WRITER = """
writer = LogWriter(engine, WriterOptions(sync="sync" in sys.argv, flush_ms=float(sys.argv[2])))
"""
ENDLESS = """
while True:
    record = prediction()
    done = writer.put(record)
    if done is None or done.result():
        print(record.id, flush=True)
"""


def test_what_sync_acknowledged_outlives_a_kill(log_url, engine):
    process = child(WRITER + ENDLESS, log_url, "50", "sync")
    acknowledged = killed_after(process, 300)
    assert len(acknowledged) >= 300
    assert set(acknowledged) <= ids(engine)


def test_without_sync_a_kill_loses_no_more_than_came_since_the_last_commit(log_url, engine):
    code = """
import threading
stop = threading.Event()
def tell():
    while True:
        print(writer.health.num_written, flush=True)
        time.sleep(0.005)
threading.Thread(target=tell, daemon=True).start()
while True:
    writer.put(prediction())
    time.sleep(0.0005)
"""
    written = [int(line) for line in killed_after(child(WRITER + code, log_url, "50"), 200)]
    assert count(engine) >= written[-1] > 0


def test_a_process_that_ends_in_order_leaves_nothing_behind(log_url, engine):
    code = "for _ in range(100): writer.put(prediction())"
    process = child(WRITER + code, log_url, "1e9")
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert count(engine) == 100


def test_a_terminated_process_that_exits_in_its_handler_leaves_nothing_behind(log_url, engine):
    code = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
while True:
    record = prediction()
    writer.put(record)
    print(record.id, flush=True)
"""
    process = child(WRITER + code, log_url, "50")
    printed = killed_after(process, 200, signal.SIGTERM)
    assert process.returncode == 3
    assert set(printed) <= ids(engine)


def test_signals_that_raise_anywhere_in_put_do_not_stop_the_thread(log_url):
    code = """
import random
writer = LogWriter(engine, WriterOptions(capacity=1_000_000))
def interrupt(*_):
    raise InterruptedError
signal.signal(signal.SIGALRM, interrupt)
for _ in range(200):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 1e-3))
        while True:
            writer.put(prediction())
    except InterruptedError:
        pass
print(writer.close(60), writer.lost)
"""
    assert child(code, log_url).communicate(timeout=120)[0] == "True 0\n"


def test_two_processes_write_at_once_and_lose_nothing(log_url, engine):
    code = """
for _ in range(3000):
    writer.put(prediction())
    time.sleep(0.0002)
print(writer.close(60), writer.lost)
"""
    children = [child(WRITER + code, log_url, "5") for _ in range(2)]
    assert [process.communicate(timeout=300)[0] for process in children] == ["True 0\n"] * 2
    assert count(engine) == 6000


# What only a file can suffer.


@pytest.fixture
def file_log(tmp_path, opened):
    return opened(f"sqlite:///{tmp_path}/log.db")


@pytest.mark.slow
def test_a_full_disk_is_told_and_rows_are_written_once_there_is_room(tmp_path):
    code = """
import resource
def limit(soft): resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
def until(happened):
    for _ in range(6000):
        if happened(): return
        time.sleep(0.01)
    raise SystemExit("it did not happen")
limit(400_000)
for _ in range(200):
    writer.put(prediction(input=bytes(5_000)))
until(lambda: writer.health.problem)
print(writer.health.problem)
limit(resource.RLIM_INFINITY)
until(lambda: writer.health.num_pending == 0)
print(writer.health.problem, writer.lost)
"""
    process = child(WRITER + code, f"sqlite:///{tmp_path}/log.db", "5", stderr=subprocess.PIPE)
    printed, told = process.communicate(timeout=300)
    full, after = printed.splitlines()
    assert "disk" in full
    assert after == "None 0"
    assert "The prediction log cannot be written" in told
    with sqlite3.connect(tmp_path / "log.db") as connection:
        assert connection.execute("SELECT count(*) FROM distill_predictions").fetchone() == (200,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_file_that_is_gone_is_told_and_rows_wait_for_it(file_log, writing, tmp_path):
    writer = writing(file_log)
    writer.put(prediction())
    until(lambda: writer.health.num_written == 1)
    file_log.dispose()  # all of it is in the file
    os.rename(tmp_path / "log.db", tmp_path / "elsewhere.db")
    writer.put(prediction())
    until(lambda: writer.health.problem)
    assert writer.health.problem.endswith("log.db was moved or deleted")
    assert not (tmp_path / "log.db").exists()
    os.rename(tmp_path / "elsewhere.db", tmp_path / "log.db")
    until(lambda: writer.health.num_pending == 0)
    assert count(file_log) == 2


def test_another_log_in_the_files_place_is_written_on(file_log, writing, tmp_path, opened):
    other = opened(f"sqlite:///{tmp_path}/other.db")
    other.dispose()
    writer = writing(file_log)
    file_log.dispose()
    os.replace(tmp_path / "other.db", tmp_path / "log.db")
    writer.put(prediction())
    until(lambda: writer.health.num_pending == 0)
    assert count(opened(f"sqlite:///{tmp_path}/log.db")) == 1


# What only a server can suffer.


@pytest.mark.postgres
def test_a_server_that_cuts_its_connections_is_reached_again(postgres_server, postgres_url, opened):
    engine = opened(postgres_url)
    with LogWriter(engine) as writer:
        for _ in range(20):
            writer.put(prediction())
            until(lambda: writer.health.num_pending == 0)
            postgres_server.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
    assert writer.lost == 0
    assert count(engine) == 20


@pytest.mark.postgres
def test_a_frozen_server_holds_up_no_answer(postgres_server, postgres_url, opened):
    engine = opened(postgres_url)
    with LogWriter(engine, WriterOptions(capacity=5)) as writer:
        writer.put(prediction())
        until(lambda: writer.health.num_pending == 0)
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(postgres_server.process.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        pids = [postgres_server.process.pid, *map(int, children.stdout.split())]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(8):
                writer.put(prediction())
            assert writer.lost == 3
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        until(lambda: writer.health.num_pending == 0)
    assert count(engine) == 6
