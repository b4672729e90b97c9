"""What tests of the prediction log share: records, and processes that write some."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.records import Prediction, new_id
from distill.production.prediction_log.schema import PREDICTIONS, QUEUE
from distill.production.prediction_log.writer import LogWriter, WriterOptions

WRITING = """
import os, signal, sys, time
from prediction_logs import prediction
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.writer import LogWriter, WriterOptions
time.sleep(max(0.0, float(os.environ.get("START_AT", "0")) - time.time()))
engine = open_log(sys.argv[1], sync="sync" in sys.argv)
"""  # how a child begins


def prediction(**facts) -> Prediction:
    """Make one that answered, unless it is said otherwise."""
    usual = {
        "request": new_id(),
        "model": "digits",
        "version": 3,
        "artefact_sha256": "a" * 64,
        "role": "champion",
        "latency_ms": 1.5,
    }
    return Prediction(**usual | facts)


def write(engine: sa.Engine, *records) -> None:
    """Bring records into the log."""
    with LogWriter(engine, WriterOptions(capacity=1_000_000)) as writer:
        for record in records:
            writer.put(record)
    assert writer.lost == 0


def count(engine: sa.Engine) -> int:
    """How many predictions there are."""
    with engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count(PREDICTIONS.c.id))).scalar_one()


def ids(engine: sa.Engine) -> set[str]:
    """Which predictions there are."""
    with engine.connect() as connection:
        return set(connection.execute(sa.select(PREDICTIONS.c.id)).scalars())


def queued(engine: sa.Engine) -> set[str]:
    """Which predictions are in the queue, settled ones too."""
    with engine.connect() as connection:
        return set(connection.execute(sa.select(QUEUE.c.prediction)).scalars())


def ids_at(url: str) -> set[str]:
    """Which predictions there are, in a log that nobody here has open."""
    engine = open_log(url)
    try:
        return ids(engine)
    finally:
        engine.dispose()


def child(code: str, *arguments: str, **options) -> subprocess.Popen:
    """Start a process that runs some lines after `WRITING`."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITING + code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
        **options,
    )


def killed_after(
    process: subprocess.Popen, num_lines: int, sent: int = signal.SIGKILL
) -> list[str]:
    """Send a signal to a process that has printed so many lines; give all it printed whole."""
    with process:
        lines = [process.stdout.readline() for _ in range(num_lines)]
        process.send_signal(sent)
        lines += process.stdout.readlines()
    return [line.rstrip("\n") for line in lines if line.endswith("\n")]


@pytest.fixture
def writing(engine):
    """Make writers that are closed in the end."""
    writers = []

    def make(own: sa.Engine | None = None, **options) -> LogWriter:
        writers.append(LogWriter(own or engine, WriterOptions(**options)))
        return writers[-1]

    yield make
    for writer in writers:
        writer.close()
