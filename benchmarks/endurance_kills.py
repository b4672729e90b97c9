"""SIGKILL at random moments, and the same command again until it ends.

A run folder is started, killed after a random part of the time that a whole run takes, and looked
at: every file has to be readable, or not there. Then the same command goes on. What a stage had
finished must not be touched again, and what comes out in the end must be that of a run that nobody
disturbed. Processes are forks of one that has imported everything and started nothing.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import torch
from common import check
from registry_kills import Forked, kills, warm_up
from serving_faults import answers_until_it_dies, fresh_log
from serving_subjects import free_port, make_model

from distill.cli import main

NUM_KILLS = {"pipeline": 25, "soft_labels": 75, "promote": 150, "serve": 15}
WANTED, QUICK = 200, dict.fromkeys(NUM_KILLS, 3)  # of promotions some have ended before the kill
BRIEF = (
    "trainer.max_epochs=3", "teacher_training.trainer.max_epochs=3",
    "preflight_effort.processes=1", "preflight_effort.rounds=2",
    "effort=quick", "effort.cold_starts=1", "effort.processes=1", "effort.rounds=2",
)  # fmt: skip
FINISHED = (0, 3, 4)  # exit codes: whatever the verdict, it has come to one
WINDOW_MS = 250  # log.flush_ms, a commit, and a machine that is busy


def rows(work: Path, seed: int, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Kill all four kinds of work."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # processes that are forked wait for no thread of others
    import_all()
    warm_up()
    counts, rng = QUICK if quick else NUM_KILLS, random.Random(seed)
    teacher = work / "pipeline" / "whole" / "train" / "teacher" / "best.pt"
    done = [
        chain(work / "pipeline", ["pipeline", *BRIEF], counts["pipeline"], rng),
        chain(
            work / "soft_labels",
            ["soft_labels", f"teacher.checkpoint={teacher}", "soft_labels.num_views=100"],
            counts["soft_labels"],
            rng,
        ),
        _promotions(work / "promote", counts["promote"], seed),
        _services(work / "serve", counts["serve"], rng),
    ]
    checks = [
        check("kills", sum(row["num_kills"] for row in done), 9 if quick else WANTED),
        *(check(f"{row['subject']}: wrong", len(row["wrong"]), 0, at_most=True) for row in done),
    ]
    return done, checks


def import_all() -> None:
    """Import what takes seconds, and start nothing: threads do not survive a fork."""
    import lightning  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import onnxruntime  # noqa: F401
    import sklearn.ensemble  # noqa: F401
    import torchvision  # noqa: F401


def command(arguments: Sequence[str], folder: Path, said: Path) -> Forked:
    """Start `distill` in a fork, in a folder; what it says goes to a file."""

    def run() -> int:
        os.chdir(folder)
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        torch.set_num_threads(1)
        try:
            main(list(arguments))
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return Forked(run)


def chain(work: Path, arguments: list[str], count: int, rng: random.Random) -> dict:
    """Kill a command again and again; whenever it has come to its end, begin a new run."""
    work.mkdir(parents=True)
    started = time.monotonic()
    whole = command([*arguments, "run_dir=whole"], work, work / "whole.log").answer()
    seconds = time.monotonic() - started
    if whole is None or whole.get("ok") not in FINISHED:
        raise RuntimeError(f"{arguments} does not run: {whole}")
    wanted = outcome(work / "whole")
    wrong: list[dict] = []
    num_kills = num_runs = num_begun = 0
    while num_kills < count:
        num_runs += 1
        run, done = f"run{num_runs}", dict[str, tuple]()
        said = work / f"{run}.log"
        while True:  # until it ends by itself
            process = command([*arguments, f"run_dir={run}"], work, said)
            if num_kills < count:
                time.sleep(rng.uniform(0, seconds / 2))
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            answer = process.answer()
            num_begun += 1
            problems = unreadable(work / run)
            problems += [f"{name} was done again" for name in touched(done, work / run)]
            done |= stages(work / run)
            if answer is not None:
                if answer.get("ok") not in FINISHED:
                    problems.append(f"ended with {answer}")
                elif found := differences(wanted, outcome(work / run)):
                    problems.append(f"another outcome: {found}")
                elif left := [str(path) for path in (work / run).rglob(".tmp-*")]:
                    problems.append(f"left behind: {left}")
            else:
                num_kills += 1
            if problems:
                wrong.append({"kill": num_kills, "run": run, "problems": problems[:5]})
            if answer is not None or len(wrong) > 5:
                break
        if len(wrong) > 5:
            break
        shutil.rmtree(work / run, ignore_errors=True)
    return {
        "subject": arguments[0],
        "num_kills": num_kills,
        "num_runs_that_ended": num_runs,
        "num_starts": num_begun,
        "seconds_of_a_whole_run": seconds,
        "wrong": wrong,
    }


def unreadable(run_dir: Path) -> list[str]:
    """Name the files of a run folder that are cut off; temporary ones may be."""
    readers: dict[str, Callable[[Path], object]] = {
        ".json": lambda path: json.loads(path.read_text()),
        ".npz": lambda path: [np.load(path)[name] for name in np.load(path).files],
        ".npy": lambda path: np.load(path, mmap_mode="r"),
        ".onnx": lambda path: onnx.checker.check_model(onnx.load(path)),
        ".pt": lambda path: torch.load(path, weights_only=True),
        ".html": lambda path: path.read_text().index("</html>"),
    }
    found = []
    for path in run_dir.rglob("*"):
        if not path.is_file() or any(part.startswith(".") for part in path.parts):
            continue
        try:
            readers.get(path.suffix, Path.read_bytes)(path)
        except Exception as error:
            found.append(f"{path.relative_to(run_dir)}: {type(error).__name__}: {error}"[:200])
    return found


def stages(run_dir: Path) -> dict[str, tuple]:
    """Read the manifests of the stages that have ended: when written, and what they say."""
    folder = run_dir / "manifests"
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*.json")
    }


def touched(before: dict[str, tuple], run_dir: Path) -> list[str]:
    """Name the stages that had ended and were written again."""
    now = stages(run_dir)
    return [name for name, was in before.items() if now.get(name) != was]


def outcome(run_dir: Path) -> dict[str, np.ndarray]:
    """Gather what a run comes to, without times: weights, answers, soft labels."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(run_dir.rglob("best.pt")):
        state = torch.load(path, weights_only=True)["state_dict"]
        found |= {f"{path.parent.name}: {name}": value.numpy() for name, value in state.items()}
    for path in sorted((run_dir / "predictions").glob("*.npz")):
        with np.load(path) as arrays:
            found |= {f"{path.name}: {name}": arrays[name] for name in arrays.files}
    store = run_dir / "soft_labels"
    for path in sorted(store.glob("*")) if (store / "manifest.json").exists() else ():
        if path.is_file():
            found[f"soft_labels: {path.name}"] = np.frombuffer(path.read_bytes(), np.uint8)
    return found


def differences(wanted: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> list[str]:
    """Name what is missing, too much, or has another value, down to the last bit."""
    names, none = wanted.keys() | found.keys(), np.empty(0)
    alike = {n: np.array_equal(wanted.get(n, none), found.get(n, none)) for n in names}
    return sorted(name for name in names if not alike[name])[:5]


def _promotions(work: Path, count: int, seed: int) -> dict:
    work.mkdir(parents=True)
    found = kills(work, count, seed)
    return {"subject": "promote", "num_kills": found["kills"], **found}


def _services(work: Path, count: int, rng: random.Random) -> dict:
    """Kill a service while it starts and while it answers, and look at the log that it left."""
    work.mkdir(parents=True)
    model, log = make_model(work / "champion.onnx"), fresh_log(work, "kills")
    answered, lost, wrong, num_silent = 0, [], [], 0
    for kill in range(count):
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "distill", "serve", f"artefact={model}", "name=subject",
             f"port={port}", f"log.url=sqlite:///{log}", "log.flush_ms=50"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}/v2/models/subject/infer"
        given = answers_until_it_dies(url, process, after_s=rng.uniform(0.0, 8.0))
        died = max(given.values(), default=0.0)
        num_silent += not given  # killed before it answered anything
        answered += len(given)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if not log.exists():
            continue
        with closing(sqlite3.connect(log)) as database:
            sound = database.execute("PRAGMA integrity_check").fetchone()[0]
            tables = database.execute("SELECT name FROM sqlite_master").fetchall()
            has_rows = ("distill_predictions",) in tables
            rows = database.execute("SELECT id FROM distill_predictions") if has_rows else ()
            kept = {name for (name,) in rows}
        gone = [1000 * (died - moment) for name, moment in given.items() if name not in kept]
        lost += gone
        if sound != "ok" or max(gone, default=0.0) > WINDOW_MS:
            wrong.append({"kill": kill, "log": sound, "oldest_lost_ms": max(gone, default=0.0)})
    return {
        "subject": "serve",
        "num_kills": count,
        "num_killed_before_the_first_answer": num_silent,
        "num_answered": answered,
        "num_lost": len(lost),
        "oldest_lost_ms": max(lost, default=0.0),
        "wrong": wrong,
    }
