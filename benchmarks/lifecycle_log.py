"""How long `monitor` takes over ten million predictions, and how much memory.

First of a log in which people labelled a random slice; then of one in which the truth of all of
them came in, where `monitor simulate` lives through a share, too.
"""

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import HERE, check

sys.path.insert(0, str(HERE.parent / "tests"))

from monitored import as_npy, images, make_world
from registry_runs import ARTEFACT

from distill.audit import place_of
from distill.files import sha256
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.queue import set_audit_share
from distill.production.prediction_log.writer import LogWriter, WriterOptions
from distill.runtime import OnnxModel

NUM_ROWS, DAYS, AUDIT = 10_000_000, 90, 0.0005
MEASURED = """
import atexit, sys
from distill.cli import main
status = lambda: next(line.split()[1] for line in open("/proc/self/status") if "VmHWM" in line)
atexit.register(lambda: print(status(), file=sys.stderr))
main(sys.argv[1:])
"""
LIMIT_S, LIMIT_BYTES = 120.0, 2 * 2**30


def rows(work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Fill two logs, then look at each once, in fresh processes."""
    count = 100_000 if quick else NUM_ROWS
    run = work / "run"
    if not (run / "verdict.json").is_file():
        make_world(run)
    audited, whole = work / f"log-{count}.db", work / f"log-{count}-truth.db"
    if not (work / f"{audited.name}.filled").exists():
        _fill(audited, run, count)
        (work / f"{audited.name}.filled").touch()
    if not (work / f"{whole.name}.filled").exists():
        shutil.copy(audited, whole)
        _tell_all(whole)
        (work / f"{whole.name}.filled").touch()
    found, checks = [], []
    for truth, log, action in (
        ("a random slice", audited, "monitor"),
        ("all rows", whole, "monitor"),
        ("all rows", whole, "monitor simulate"),
    ):
        row = _measured(work, run, log, action)
        found.append({"num_predictions": count, "truth": truth, "action": action, **row})
        name = "monitor over the log" if log is audited else f"{action}, with full truth"
        seconds, peak = row["seconds"], row["peak_rss_bytes"]
        checks.append(check(f"{name}, s", seconds, LIMIT_S, at_most=True))
        checks.append(check(f"{name}, bytes", peak, LIMIT_BYTES, at_most=True))
    return found, checks


def _measured(work: Path, run: Path, log: Path, action: str) -> dict:
    command = [sys.executable, "-c", MEASURED, *action.split(), f"run={run}"]
    command += [f"log.url=sqlite:///{log}", f"out={work / 'out'}"]
    start, before = time.perf_counter(), _cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work)
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 3, 4):
        raise RuntimeError(done.stderr)
    document = json.loads(done.stdout.splitlines()[-1])
    own = document.get("found", document)
    return {
        "log_bytes": log.stat().st_size,
        "seconds": seconds,
        "cpu_seconds": _cpu_seconds() - before,
        "peak_rss_bytes": int(done.stderr.splitlines()[-1]) * 1024,
        "num_labels": own["num_labels"],
        "num_labels_read": own.get("num_labels_read", own.get("num_rows")),
    }


def _cpu_seconds() -> float:
    """Of processes that ended: what others do on the machine meanwhile is not in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tell_all(path: Path) -> None:
    """Let the truth of every row turn out, one of ten otherwise; without a slice."""
    with sqlite3.connect(path) as log:
        log.execute("PRAGMA synchronous=OFF")
        log.execute("DELETE FROM distill_audits")
        log.execute(
            "INSERT OR IGNORE INTO distill_feedback (prediction, name, label, source, time) "
            "SELECT id, 'label', CASE WHEN substr(id, 29) < '1a' THEN (label + 1) % 3 ELSE label "
            "END, 'api', time FROM distill_predictions ORDER BY id"
        )
    os.sync()


def _fill(path: Path, run: Path, count: int) -> None:
    """Write rows by SQL alone: the writer would take an hour."""
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    engine = open_log(f"sqlite:///{path}")
    set_audit_share(engine, AUDIT)
    with LogWriter(engine, WriterOptions()):
        pass
    engine.dispose()
    rng, model = np.random.default_rng(0), OnnxModel(run / "export" / ARTEFACT)
    shown = images(rng, 1000)
    logits = model.predict(shown).astype("<f4")
    inputs, artefact = [as_npy(image) for image in shown], sha256(run / "export" / ARTEFACT)
    now = time.time()
    names = "id request time model version artefact_sha256 role input output label confidence"
    names += " latency_ms outcome"
    insert = (
        f"INSERT INTO distill_predictions ({', '.join(names.split())}) "
        f"VALUES ({', '.join('?' * len(names.split()))})"
    )
    feedback = (
        "INSERT INTO distill_feedback (prediction, name, label, source, time) "
        "VALUES (?, 'label', ?, 'human', ?)"
    )
    with sqlite3.connect(path) as log:
        log.execute("PRAGMA synchronous=OFF")
        for start in range(0, count, 100_000):
            size = min(100_000, count - start)
            moments = now - DAYS * 86_400 * (1 - (start + np.arange(size)) / count)
            bits = rng.integers(0, 2**63, size)
            drawn = rng.integers(0, len(shown), size)
            batch, said = [], []
            for moment, random, which in zip(
                moments.tolist(), bits.tolist(), drawn.tolist(), strict=True
            ):
                own = f"{int(moment * 1e6):014x}{random * 2:016x}"
                label = int(logits[which].argmax())
                batch.append(
                    (
                        own, own, moment, "pets", 1, artefact, "champion", inputs[which],
                        logits[which].tobytes(), label, 0.9, 1.0, "ok",
                    )
                )  # fmt: skip
                if place_of(own) < AUDIT:
                    said.append((own, label if random % 10 else (label + 1) % 3, moment))
            log.executemany(insert, batch)
            log.executemany(feedback, said)
            log.commit()
    os.sync()
