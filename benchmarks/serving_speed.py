"""Requests a second and their latency, of services that are loaded in turns.

Every contender is a process of its own, one thread for the model, all up at once and loaded one
after another in rounds; the client is a process, too, and shares the machine with them.
"""

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from common import HERE, check, spread
from serving_subjects import Running, body, make_model, other, ours, until_ready

from distill.runtime import OnnxModel

ROUNDS, COUNT, CONNECTIONS = 9, 4000, 8
OURS, MINIMAL = "distill", "FastAPI"
LITSERVE = {"LitServe": (), "LitServe, batching": ("batched",)}  # neither is best in all
SHADOW, EVERY = "with a shadow", "with a shadow that is asked all"
MAX_ADDED_MS, MIN_TIMES, MAX_SHADOW = 1.5, 1.3, 1.10


def rows(work: Path, litserve: str | None, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Load all in turns as fast as they answer, then ours at half of what it can."""
    model, asked = make_model(work / "champion.onnx"), _body(work)
    rounds, count = (2, 300) if quick else (ROUNDS, COUNT)
    with ExitStack() as stack:
        contenders = {
            OURS: stack.enter_context(ours(model, log=_log(work, "speed"))),
            MINIMAL: stack.enter_context(other("serving_minimal.py", sys.executable, model)),
        }
        if litserve is not None:
            for name, more in LITSERVE.items():
                contenders[name] = stack.enter_context(
                    other("serving_litserve.py", litserve, model, *more)
                )
        found = _in_turns(contenders, asked, rounds, count, None)
        row = _compared(found)
        half = row[f"{OURS}, a second"]["median"] / 2
        paced = _in_turns({OURS: contenders[OURS]}, asked, rounds, count // 2, half)[OURS]
    bare = _bare_ms(model)
    added = spread([one["p50_ms"] - bare for one in paced])
    row |= {"subject": "speed", "bare onnxruntime, p50 ms": bare, "rate, half": half}
    row["added at half of capacity, p50 ms"] = added
    checks = [check("added at p50, ms", added["median"], MAX_ADDED_MS, at_most=True)]
    if litserve is not None:
        for name in LITSERVE:
            times, p99 = row[f"over {name}"]["median"], row[f"p99 over {name}"]["median"]
            checks.append(check(f"throughput over {name}'s", times, MIN_TIMES))
            checks.append(check(f"p99 over {name}'s", p99, 1.0, at_most=True))
    return [row], checks


def shadow_rows(work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Load the service without a shadow, with one as it comes, and with one that is asked all."""
    model, asked = make_model(work / "champion.onnx"), _body(work)
    challenger = make_model(work / "challenger.onnx", seed=1)
    rounds, count = (2, 300) if quick else (ROUNDS, COUNT)
    settings = (f"challenger={challenger}", "rollout=shadow", "trial.limits.niceness=10")
    every = (*settings, "trial.limits.max_shadows_per_second=null")
    with (
        ours(model, log=_log(work, "alone")) as alone,
        ours(model, *settings, log=_log(work, "shadow")) as shadowed,
        ours(model, *every, log=_log(work, "every")) as mirrored,
    ):
        until_ready(shadowed)
        until_ready(mirrored)
        contenders = {"alone": alone, SHADOW: shadowed, EVERY: mirrored}
        capacity = _in_turns({"alone": alone}, asked, 1, count, None)["alone"][0]["per_second"]
        found = _in_turns(contenders, asked, rounds, count // 2, capacity / 3)
    row = {
        "subject": "shadow",
        "rate": capacity / 3,
        **{
            f"{name}, {level}": spread([one[level] for one in taken])
            for name, taken in found.items()
            for level in ("p50_ms", "p99_ms")
        },
        "num_requests": (rounds + 1) * (count // 2),
    }
    for name, file in ((SHADOW, "shadow"), (EVERY, "every")):
        pairs = zip(found[name], found["alone"], strict=True)
        row[f"p99 {name} over alone"] = spread([a["p99_ms"] / b["p99_ms"] for a, b in pairs])
        row[f"{name}, num_shadows"] = _num_shadows(work / f"{file}.db")
    measured = row[f"p99 {SHADOW} over alone"]["median"]
    return [row], [check("p99 with a shadow over without", measured, MAX_SHADOW, at_most=True)]


def _num_shadows(log: Path) -> int:
    time.sleep(1)  # written behind the answers' backs
    with closing(sqlite3.connect(log)) as database:
        query = "SELECT COUNT(*) FROM distill_predictions WHERE role = 'shadow'"
        return database.execute(query).fetchone()[0]


def load(where: Running, asked: Path, count: int, rate: float | None, *more: str) -> dict:
    """Load a service from a process of its own."""
    command = [sys.executable, str(HERE / "serving_load.py"), where.url, "--body", str(asked)]
    command += ["--count", str(count), "--connections", str(CONNECTIONS), *more]
    command += [] if rate is None else ["--rate", str(rate)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _in_turns(
    contenders: dict[str, Running], asked: Path, rounds: int, count: int, rate: float | None
) -> dict[str, list[dict]]:
    taken: dict[str, list[dict]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, where in contenders.items():
            found = load(where, asked, count, rate)
            if set(found["statuses"]) != {"200"}:
                raise RuntimeError(f"{name} answered {found['statuses']}")
            if turn:  # the first warms up
                taken[name].append(found)
    return taken


def _compared(found: dict[str, list[dict]]) -> dict:
    row: dict = {}
    for name, taken in found.items():
        row[f"{name}, a second"] = spread([one["per_second"] for one in taken])
        row[f"{name}, p99 ms"] = spread([one["p99_ms"] for one in taken])
    for name in found:
        if name != OURS:
            pairs = list(zip(found[OURS], found[name], strict=True))
            row[f"over {name}"] = spread([a["per_second"] / b["per_second"] for a, b in pairs])
            row[f"p99 over {name}"] = spread([a["p99_ms"] / b["p99_ms"] for a, b in pairs])
    return row


def _bare_ms(path: Path) -> float:
    model, image = OnnxModel(path, spin=False), np.zeros((1, 8, 8, 1), np.uint8)
    taken = []
    for _ in range(3000):
        start = time.perf_counter()
        model(image)
        taken.append((time.perf_counter() - start) * 1000)
    return float(np.median(taken))


def _body(work: Path) -> Path:
    path = work / "body.json"
    path.write_bytes(body())
    return path


def _log(work: Path, name: str) -> str:
    for path in work.glob(f"{name}.db*"):
        path.unlink()
    return f"sqlite:///{work / name}.db"
