"""Is every request answered, and every answer kept, whatever dies?

`challenger`: half of the units are the challenger's, which is killed, frozen, held for a moment,
slow, and answers NaN to a tenth of all images, while 100,000 requests come in. `service`: the
service itself is killed in the middle, again and again, and what it had answered is looked for in
the log.
"""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from common import check
from serving_load import Connection, request_of
from serving_speed import load
from serving_subjects import Running, body, make_model, ours, read, until_ready

COUNT, NUM_KILLS = 100_000, 10
DEADLINE_MS, CHALLENGER_MS, BUDGET_MS, FLUSH_MS = 1000, 50, 150, 50
WINDOW_MS = FLUSH_MS + 200  # and one commit, on a machine that is busy


def rows(work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Break the challenger, then the service, without `log.sync` and with it."""
    challenger = _challenger(work, 2000 if quick else COUNT)
    kills = [_service(work, 2 if quick else NUM_KILLS, sync=sync) for sync in (False, True)]
    wanted = challenger["num_requests"]
    checks = [
        check("failed answers", challenger["num_failed"], 0, at_most=True),
        check("slowest answer, ms", challenger["max_ms"], DEADLINE_MS, at_most=True),
        check("p99 with a challenger that dies, ms", challenger["p99_ms"], BUDGET_MS, at_most=True),
        check("answers in the log", challenger["num_logged"], wanted),
        check(
            "service killed: oldest answer that is lost, ms",
            kills[0]["oldest_lost_ms"],
            WINDOW_MS,
            at_most=True,
        ),
        check("service killed, in sync: answers lost", kills[1]["num_lost"], 0, at_most=True),
    ]
    return [challenger, *kills], checks


def _challenger(work: Path, count: int) -> dict:
    model = make_model(work / "champion.onnx")
    challenger = make_model(work / "breaks.onnx", seed=1, width=128, breaks=True)
    log, bodies = fresh_log(work, "faults"), []
    for at, corner in enumerate([*[None] * 9, 13]):
        bodies.append(work / f"body{at}.json")
        bodies[-1].write_bytes(body(at, corner))
    settings = (
        f"challenger={challenger}",
        "rollout=ab",
        "rollout.max_consecutive_failures=1000000000",  # nothing sends it away: that is the point
        "trial.tick_seconds=1000000",
        f"trial.deadline_ms={CHALLENGER_MS}",
        "trial.limits.hang_seconds=1",
        f"deadline_ms={DEADLINE_MS}",
    )
    more = [part for path in bodies[1:] for part in ("--body", str(path))]
    with ours(model, *settings, log=f"sqlite:///{log}") as where:
        until_ready(where)
        with faults(where) as done:
            found = load(where, bodies[0], count, None, "--header", "X-Unit: {unit}", *more)
        assert where.status is not None
        status = read(where.status)
        time.sleep(1)
    with closing(sqlite3.connect(log)) as database:
        logged = database.execute(
            "SELECT COUNT(DISTINCT request) FROM distill_predictions "
            "WHERE role IN ('champion', 'challenger', 'fallback') AND outcome = 'ok'"
        ).fetchone()[0]
    return {
        "subject": "challenger",
        "num_requests": count,
        "num_failed": count - found["statuses"].get("200", 0),
        "num_logged": logged,
        "faults": done,
        "roles": status["roles"],
        "num_starts": status["experiment"]["num_starts"],
        "last_error": status["experiment"]["last_error"],
        **found,
    }


@contextmanager
def faults(where: Running) -> Iterator[dict[str, int]]:
    """Do harm to the challenger all along."""
    rng, ended = random.Random(0), threading.Event()
    done = {"killed": 0, "frozen": 0, "held": 0}

    def harm() -> None:
        while not ended.wait(rng.uniform(0.5, 2.0)):
            pid = _challenger_of(where.process.pid)
            if pid is None:
                continue
            kind = rng.choice(list(done))
            try:
                os.kill(pid, signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
                if kind == "held":
                    time.sleep(rng.uniform(0.02, 0.3))
                    os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue
            done[kind] += 1

    thread = threading.Thread(target=harm)
    thread.start()
    try:
        yield done
    finally:
        ended.set()
        thread.join()


def _challenger_of(parent: int) -> int | None:
    for pid in children_of(parent):
        try:
            if b"challenger_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        except OSError:
            continue
    return None


def children_of(parent: int) -> list[int]:
    """Name the processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


def _service(work: Path, num_kills: int, *, sync: bool) -> dict:
    """Kill the service under load; find in the log what it had answered."""
    model, log = make_model(work / "champion.onnx"), fresh_log(work, "kills")
    rng, lost, answered = random.Random(1), [], 0
    settings = (f"log.sync={str(sync).lower()}", f"log.flush_ms={FLUSH_MS}")
    for _ in range(num_kills):
        with ours(model, *settings, log=f"sqlite:///{log}") as where:
            given = answers_until_it_dies(where.url, where.process, after_s=rng.uniform(0.5, 2.0))
        died = max(given.values(), default=0.0)
        with closing(sqlite3.connect(log)) as database:
            kept = {row[0] for row in database.execute("SELECT id FROM distill_predictions")}
        answered += len(given)
        lost += [(died - moment) * 1000 for name, moment in given.items() if name not in kept]
    return {
        "subject": "service, in sync" if sync else "service",
        "num_kills": num_kills,
        "num_answered": answered,
        "num_lost": len(lost),
        "oldest_lost_ms": max(lost, default=0.0),
    }


def answers_until_it_dies(
    url: str, process: subprocess.Popen, *, after_s: float
) -> dict[str, float]:
    """Kill a service after a while, and ask it until then.

    Returns:
        Ids of the predictions to the moments at which their answers came.
    """
    killer = threading.Timer(after_s, process.kill)
    killer.start()
    given: dict[str, float] = {}
    while process.poll() is None:  # it may not listen yet
        given |= asyncio.run(_until_silent(url))
        time.sleep(0.02)
    killer.join()
    return given


async def _until_silent(url: str) -> dict[str, float]:
    request, given = request_of(url, body()), {}
    host, port = url.split("/")[2].split(":")

    async def work() -> None:
        connection = Connection(host, int(port))
        while True:
            status, said = await connection.ask(request, 10.0)
            if status != 200:
                return
            given[json.loads(said)["parameters"]["prediction_id"]] = time.monotonic()

    await asyncio.gather(*(work() for _ in range(8)))
    return given


def fresh_log(work: Path, name: str) -> Path:
    """Name a database that is not there yet."""
    for path in work.glob(f"{name}.db*"):
        path.unlink()
    return work / f"{name}.db"
