"""Runs a plan on this machine: `python -m distill.deployment.device.runner [plan.json]`.

In the folder of a bundle. Every step is a fresh process, and every result one JSON line on stdout
as soon as it is there, so that what a device had done before it died is not lost. Goes on with
measuring processes until every limit is decided or time is up.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from distill.deployment.device import gate, machine, table
from distill.deployment.device.latency import MAX_LEAD_IN
from distill.deployment.device.step import decode

CONTROL_SUFFIX = "#control"
ROUND_SECONDS = 0.1  # of one contender's calls in a round, about
MAX_CALLS = 10
STEP_SECONDS = 1800.0  # no step takes longer for one contender, its time for measuring aside
UNTIMED_CALLS = 500  # of a contender in a measuring process, at most: warming up, switching
OPEN_LOOP_CALLS = 100  # in a round where calls arrive by chance
OPENVINO = "distill.deployment.device.openvino_model:"

_SIGNALS = {4: "illegal instruction", 6: "abort", 7: "bus error", 9: "killed, perhaps for memory"}
_SIGNALS[11] = "segmentation fault"


class StepError(Exception):
    """A step failed; the message is for people."""


def main(path: str = "plan.json") -> int:
    """Run the plan in `path`, reporting on stdout; return the exit code."""
    plan = json.loads(Path(path).read_text())
    taken: Dict[str, List[np.ndarray]] = {entry["name"]: [] for entry in plan["contenders"]}
    try:
        check_files(Path("manifest.json"))
        emit("machine", dict(machine.describe(), **identity(plan)))
        emit("plan", {"plan": plan})
        run(plan, taken)
    except StepError as error:
        emit("error", {"message": str(error)})
        if os.environ.get("DISTILL_PROGRESS"):
            print(error, file=sys.stderr)
        show(plan, taken)
        return 1
    emit("done", {})
    show(plan, taken)
    return 0


def show(plan: dict, taken: Dict[str, List[np.ndarray]]) -> None:
    """Where a budget travels along, print on stderr how the calls hold its limits."""
    budget = Path("budget.json")
    if budget.is_file() and all(taken.values()):
        print(table.table(taken, json.loads(budget.read_text()), plan), file=sys.stderr)


def emit(step: str, result: Dict[str, Any]) -> None:
    """Print one result; on stderr its name alone, for those who watch a bundle by hand."""
    print(json.dumps(dict(result, step=step)), flush=True)
    if os.environ.get("DISTILL_PROGRESS"):
        print(step, result.get("name", ""), file=sys.stderr, flush=True)


def identity(plan: dict) -> Dict[str, Any]:
    """Say what is measured, so that results which travel alone can be told from others."""
    return {
        "manifest_sha256": sha256(Path("manifest.json")),
        "models": {entry["name"]: sha256(Path(entry["file"])) for entry in plan["contenders"]},
    }


def sha256(path: Path) -> str:
    """Hash a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            found.update(part)
    return found.hexdigest()


def tree_sha256(folder: Path) -> str:
    """Hash all files below a folder and their names, but for what Python keeps in __pycache__."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    found = hashlib.sha256()
    for name, path in sorted(files.items()):
        if path.is_file() and "__pycache__" not in name.split("/"):
            found.update(os.fsencode("%s %s\n" % (sha256(path), name)))
    return found.hexdigest()


def check_files(manifest: Path) -> None:
    """Refuse files that are not those of the manifest, which lies in the folder of a bundle.

    `files` maps names to their sha256, `trees` folders to that of all their files; a folder that is
    kept elsewhere is absolute.

    Raises:
        StepError: a file, or the manifest itself, is missing or another one.
    """
    folder = manifest.parent
    if not manifest.is_file():
        raise StepError(
            "Expected a manifest.json but there is none: half a bundle is not run. Copy the bundle "
            "again."
        )
    try:
        pinned = json.loads(manifest.read_text())
        files, trees = dict(pinned["files"]), dict(pinned["trees"])
    except (ValueError, KeyError, TypeError) as error:
        raise StepError("manifest.json is damaged (%r). Copy the bundle again." % error)
    for name, expected in trees.items():
        if tree_sha256(folder / name) != expected:
            kept = os.path.isabs(name)
            raise StepError(
                "Expected the files in %s to be those that were copied there but found others. %s"
                % (name, "Remove it and measure again." if kept else "Copy the bundle again.")
            )
    for name, expected in files.items():
        path = folder / name
        found = sha256(path) if path.is_file() else "no file"
        if found != expected:
            raise StepError(
                "Expected %s with sha256 %s but found %s. Copy the bundle again."
                % (name, expected, found)
            )


def run(plan: dict, taken: Dict[str, List[np.ndarray]]) -> None:
    """Golden answers, cold starts, then warm calls, whose nanoseconds are appended to `taken`."""
    available = len(os.sched_getaffinity(0))
    if plan["num_threads"] > available:
        raise StepError(
            "Expected %d CPUs for %d threads but this process may use %d. Lower "
            "`target.num_threads`." % (plan["num_threads"], plan["num_threads"], available)
        )
    if plan["runtime"].startswith(OPENVINO) and find_spec("openvino") is None:
        raise StepError(
            "Expected OpenVINO for `runtime=openvino` but %s, which measures, has none. Install it "
            "there (`pip install openvino`), or choose `runtime=onnxruntime`." % sys.executable
        )
    common = {k: plan[k] for k in ("num_threads", "pin", "spin", "runtime", "runtime_options")}
    for entry in plan["contenders"] if plan["golden"] else ():
        answer = step(dict(common, step="golden", **entry))
        emit("golden", dict(answer, name=entry["name"]))
    first_run_ms: Dict[str, float] = {}
    for _ in range(plan["cold_starts"]):
        for entry in plan["contenders"]:
            answer = step(dict(common, step="cold", **entry))
            first_run_ms[entry["name"]] = answer["first_run_ms"]
            emit("cold", dict(answer, name=entry["name"]))
    if not plan["processes"]:
        return
    if not first_run_ms:  # nobody asks for cold starts, but how slow a model is decides on rounds
        for entry in plan["contenders"]:
            answer = step(dict(common, step="cold", **entry))
            first_run_ms[entry["name"]] = answer["first_run_ms"]
    measure(plan, common, max(first_run_ms.values()), taken)


def patience(plan: dict, slowest_ms: float) -> float:
    """Say after how many seconds a measuring process, with all contenders, counts as stuck."""
    calls, longest = UNTIMED_CALLS, slowest_ms / 1000
    rate = plan["scenario"]["rate_per_second"]
    if rate:
        calls, longest = calls + MAX_LEAD_IN + OPEN_LOOP_CALLS, max(longest, 1 / rate)
    contenders = len(plan["contenders"]) + 1
    each = STEP_SECONDS + plan["warm_up_seconds"] + calls * longest
    return plan["max_seconds"] + contenders * each


def measure(
    plan: dict, common: dict, slowest_ms: float, taken: Dict[str, List[np.ndarray]]
) -> None:
    """Start measuring processes until every limit is decided, or time is up."""
    first = plan["contenders"][0]
    contenders = plan["contenders"] + [dict(first, name=first["name"] + CONTROL_SUFFIX)]
    calls = int(min(MAX_CALLS, max(1, 1000 * ROUND_SECONDS / max(slowest_ms, 1e-6))))
    if plan["scenario"]["rate_per_second"]:
        calls = OPEN_LOOP_CALLS
    seconds = patience(plan, slowest_ms)
    emit("limit", {"seconds": seconds})  # for those who wait: no line may come for so long
    start, count, look = time.monotonic(), 0, plan["processes"]
    while True:
        left = plan["max_seconds"] - (time.monotonic() - start)
        share = plan["max_seconds"] / plan["processes"]
        order = contenders[:]  # where a model lies in memory is a matter of order, too
        random.Random(plan["seed"] + count).shuffle(order)
        answer = step(
            dict(
                common,
                step="measure",
                scenario=plan["scenario"],
                contenders=order,
                warm_up_seconds=plan["warm_up_seconds"],
                rounds=plan["rounds"],
                calls=calls,
                max_seconds=max(0.0, min(share, left)),
                seed=plan["seed"] + count,
            ),
            seconds=seconds,
        )
        emit("measure", dict(answer, elapsed_s=time.monotonic() - start))
        for name, samples in taken.items():
            samples.append(decode(answer["samples"][name]))
        count += 1
        late = time.monotonic() - start > plan["max_seconds"]
        if count < plan["processes"] or (count < look and not late):
            continue
        if late or not undecided(plan, taken):
            return
        look *= 2


def undecided(plan: dict, taken: Dict[str, List[np.ndarray]]) -> List[Tuple[str, float]]:
    """Name the (contender, level) whose limit the calls so far do not decide."""
    return [
        (name, limit["level"])
        for name in plan["gated"]
        for limit in plan["limits"]
        if gate.judge(
            taken[name], limit["ns"], limit["level"], plan["confidence"], plan["processes"]
        ).outcome
        == gate.INCONCLUSIVE
    ]


def step(request: dict, seconds: float = STEP_SECONDS) -> Dict[str, Any]:
    """Run one step in a fresh process.

    Raises:
        StepError: it says why it cannot, or dies, or does not end.
    """
    command = [sys.executable, "-s", "-m", "distill.deployment.device.step"]
    name = request.get("name", "the measurement")
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StepError("%s did not end within %d s." % (name, seconds))
    answer, reason = read_answer(done.returncode, done.stdout, done.stderr)
    if answer is None:
        raise StepError("%s: %s" % (name, reason))
    return answer


def read_answer(code: int, stdout: str, stderr: str) -> Tuple[Optional[Dict[str, Any]], str]:
    """Read a step's answer, or say why there is none."""
    lines = stdout.strip().splitlines()
    if code == 0 and lines:
        answer = json.loads(lines[-1])
        return (None, answer["error"]) if "error" in answer else (answer, "")
    # A negative code is a signal's number; a shell or an emulator adds 128 to it.
    signal = -code if code < 0 else code - 128
    if signal in _SIGNALS:
        return None, _SIGNALS[signal]
    return None, (stderr.strip().splitlines() or ["exit code %d" % code])[-1]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
