"""The timer: how long ONNX models take, one call at a time, contenders interleaved.

Travels to devices beside `runtime.py` and is the same code everywhere: standard library, numpy,
onnxruntime, Python 3.9 syntax. Run as `python latency.py request.json`, in a folder of its own, as
a fresh process; leaves `result.json` and, when it measures, raw nanoseconds in `samples.npz`.
Knows nothing of budgets.
"""

import gc
import json
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

try:
    from distill.runtime import OnnxModel
except ImportError:  # on a device, both files lie side by side
    from runtime import OnnxModel  # type: ignore[no-redef]

CALLS_PER_ROUND = 10
UNTIMED_AFTER_SWITCH = 3  # the other contenders' data is in the caches
BLOCK_ROUNDS = 5  # latencies are correlated over about 50 calls
CONTROL_SUFFIX = "#control"


def main(request_path: str) -> None:
    """Do what a request says and leave the result beside it."""
    folder = Path(request_path).parent
    request = json.loads(Path(request_path).read_text())
    cpus = pin(request["num_threads"]) if request["pin"] else None
    inputs = np.load(folder / "inputs.npy", allow_pickle=False)
    result: Dict[str, Any] = {"cpus": cpus}
    if request["mode"] == "cold":
        result.update(cold_start(request, inputs))
    else:
        samples, report = measure(request, inputs)
        result.update(report)
        np.savez(folder / "samples.npz", allow_pickle=False, **samples)
    result["peak_rss_bytes"] = peak_rss_bytes()
    (folder / "result.json").write_text(json.dumps(result))


def pin(num_threads: int) -> List[int]:
    """Keep this process on as many CPUs as it has threads, the last ones it may use."""
    cpus = sorted(os.sched_getaffinity(0))[-num_threads:]
    os.sched_setaffinity(0, cpus)
    return cpus


def cold_start(request: dict, inputs: np.ndarray) -> Dict[str, float]:
    """Time a model from its file to its first answer, in a process that has run no other."""
    start = time.perf_counter_ns()
    model = load(request, request["artefacts"][0])
    loaded = time.perf_counter_ns()
    model(inputs[:1])
    done = time.perf_counter_ns()
    return {
        "session_ms": (loaded - start) / 1e6,
        "first_run_ms": (done - loaded) / 1e6,
        "cold_start_ms": (done - start) / 1e6,
    }


def measure(request: dict, inputs: np.ndarray) -> Tuple[Dict[str, np.ndarray], dict]:
    """Time warm single calls of all contenders, in shuffled rounds.

    The first contender runs twice, the second time as its own control (A/A): what the two differ
    by is this run's noise floor.

    Returns:
        Nanoseconds per contender, [rounds, calls] int64, in the order of time; and a report.
    """
    files = request["artefacts"]
    models = {Path(file).name: load(request, file) for file in files}
    models[Path(files[0]).name + CONTROL_SUFFIX] = load(request, files[0])
    rotation = [np.ascontiguousarray(inputs[i : i + 1]) for i in range(len(inputs))]
    warm_up_calls = {name: warm_up(model, rotation) for name, model in models.items()}
    rng = random.Random(request["seed"])
    names = list(models)
    max_rounds = request["max_rounds"]
    samples = {name: np.zeros((max_rounds, CALLS_PER_ROUND), np.int64) for name in names}
    usage, steal = resource.getrusage(resource.RUSAGE_SELF), steal_ticks()
    cpu_start, wall_start = time.process_time(), time.perf_counter()
    gc.disable()
    rounds = 0
    turn = 0
    while rounds < max_rounds:
        rng.shuffle(names)
        for name in names:
            turn += 1
            time_calls(models[name], rotation, turn * CALLS_PER_ROUND, samples[name][rounds])
        rounds += 1
        if rounds >= request["min_rounds"]:
            if time.perf_counter() - wall_start > request["max_seconds"]:
                break
    gc.enable()
    wall = time.perf_counter() - wall_start
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {name: taken[:rounds] for name, taken in samples.items()}, {
        "rounds": rounds,
        "calls_per_round": CALLS_PER_ROUND,
        "warm_up_calls": warm_up_calls,
        "num_inputs": len(rotation),
        "wall_s": wall,
        "cpu_share": (time.process_time() - cpu_start) / wall,
        "involuntary_switches": after.ru_nivcsw - usage.ru_nivcsw,
        "steal_ticks": steal_ticks() - steal,
        "load_average": os.getloadavg()[0],
    }


def load(request: dict, path: str) -> OnnxModel:
    """Open a session as the request says."""
    return OnnxModel(path, num_threads=request["num_threads"], spin=request["spin"])


def time_calls(model: OnnxModel, rotation: list, first: int, out: np.ndarray) -> None:
    """Time calls on ever other inputs into `out`; nothing else happens between the clock reads."""
    clock, count = time.perf_counter_ns, len(rotation)
    for i in range(UNTIMED_AFTER_SWITCH):
        model(rotation[(first + i) % count])
    for i in range(len(out)):
        sample = rotation[(first + i) % count]
        start = clock()
        model(sample)
        out[i] = clock() - start


def warm_up(model: OnnxModel, rotation: list, max_seconds: float = 10.0) -> int:
    """Call until the median of 20 calls no longer falls by more than 2 %; return the calls made."""
    taken = np.zeros(20, np.int64)
    best, calls = float("inf"), 0
    deadline = time.perf_counter() + max_seconds
    stable = 0
    while stable < 3 and time.perf_counter() < deadline:
        time_calls(model, rotation, calls, taken)
        calls += len(taken) + UNTIMED_AFTER_SWITCH
        median = float(np.median(taken))
        stable = stable + 1 if median > 0.98 * best else 0
        best = min(best, median)
    return calls


def percentiles(
    samples: np.ndarray, levels: List[float], confidence: float, seed: int = 0
) -> List[Tuple[float, float, float]]:
    """Estimate percentiles of correlated latencies.

    Circular block bootstrap over whole rounds (Politis & Romano, "A circular block-resampling
    procedure for stationary data", 1992): resampling single calls would pretend that they are
    independent and halve the interval's width.

    Args:
        samples: nanoseconds, [rounds, calls], in the order of time.
        levels: e.g. [50, 95, 99].
        confidence: of the interval.
        seed: of the resampling.

    Returns:
        (estimate, low, high) in nanoseconds per level.
    """
    rounds = len(samples)
    block = min(BLOCK_ROUNDS, rounds)
    rng = np.random.default_rng(seed)
    num_blocks = -(-rounds // block)
    draws = []
    for _ in range(500):
        starts = rng.integers(0, rounds, num_blocks)
        picked = (starts[:, None] + np.arange(block)).ravel()[:rounds] % rounds
        draws.append(np.percentile(samples[picked], levels))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
    return list(zip(np.percentile(samples, levels), low, high))


def median_ratio(
    samples: np.ndarray, reference: np.ndarray, confidence: float, seed: int = 0
) -> Tuple[float, float, float]:
    """Estimate how many times slower than a reference, paired by round, block bootstrap."""
    ratios = np.median(samples, axis=1) / np.median(reference, axis=1)
    return percentiles(ratios[:, None], [50.0], confidence, seed)[0]


def peak_rss_bytes() -> int:
    """Most memory this program has held; getrusage would count its parent before exec as well."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def steal_ticks() -> int:
    """Count time that the hypervisor gave to others, in clock ticks over all CPUs."""
    try:
        return int(Path("/proc/stat").read_text().split()[8])
    except (OSError, ValueError, IndexError):
        return 0


if __name__ == "__main__":
    main(sys.argv[1])
