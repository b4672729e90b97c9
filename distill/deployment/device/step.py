"""One step of a measurement, in a process of its own: `python -m distill.deployment.device.step`.

Reads a JSON request from stdin, in the folder that holds the models and inputs, and prints one
JSON line. A step is a fresh process because memory layout, caches and peak memory are a process's.
"""

import base64
import json
import sys
import time
from importlib import import_module
from typing import Any, Dict

import numpy as np

from distill.deployment.device import machine
from distill.deployment.device.latency import Rotation, Scenario, lead_in, time_rounds, warm_up


def main() -> None:
    """Do the step that the request names and print its result."""
    request = json.load(sys.stdin)
    step = {"golden": golden, "cold": cold_start, "measure": measure}[request["step"]]
    try:
        answer = step(request)
    except Exception as error:
        if getattr(error, "exit_code", None) is None:
            raise
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)


def golden(request: dict) -> Dict[str, Any]:
    """Answer the golden inputs, and compare with what this artefact answered where it was made.

    If the request names another artefact as `reference`, also with what that one answered there:
    `error_vs_reference` is null where their outputs differ in shape.
    """
    with np.load("golden.npz", allow_pickle=False) as arrays:
        inputs = arrays["input"]
        expected = arrays["output/" + request["name"]]
        reference = arrays["output/" + request.get("reference", request["name"])]
    found = load(request, request).predict(inputs)
    answer = dict(compare(found, expected), finite=bool(np.isfinite(found).all()))
    if "reference" in request:
        alike = reference.shape == found.shape
        answer["error_vs_reference"] = compare(found, reference)["output_std"] if alike else None
    return answer


def compare(found: np.ndarray, expected: np.ndarray) -> Dict[str, Any]:
    """Measure how far answers [N, ...] are from the expected ones.

    Returns:
        `max_abs`; `output_std`, the root mean square of the difference in units of the expected
        answers' standard deviation; `top1_agreement`, the share of samples with the same largest
        output; `num_samples`.
    """
    rows = len(expected)
    ours, theirs = found.reshape(rows, -1), expected.reshape(rows, -1)
    difference = ours.astype(np.float64) - theirs
    spread = float(np.std(expected)) or 1.0
    return {
        "num_samples": rows,
        "max_abs": float(np.abs(difference).max()),
        "output_std": float(np.sqrt(np.mean(difference**2))) / spread,
        "top1_agreement": float(np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1))),
    }


def cold_start(request: dict) -> Dict[str, Any]:
    """Time a model from its file to its first answer, in a process that has run no other."""
    cpus = machine.pin(request["num_threads"]) if request["pin"] else None
    inputs = np.load("inputs.npy", mmap_mode="r", allow_pickle=False)  # the rest stays on disk
    batch = np.array(inputs[np.arange(request["batch_size"]) % len(inputs)])
    runtime = imported(request)  # before the clock: a server imports it once for all models
    start = time.perf_counter_ns()
    model = load(request, request, runtime)
    loaded = time.perf_counter_ns()
    model(batch)
    done = time.perf_counter_ns()
    return {
        "cpus": cpus,
        "session_ms": (loaded - start) / 1e6,
        "first_run_ms": (done - loaded) / 1e6,
        "cold_start_ms": (done - start) / 1e6,
        "peak_rss_bytes": machine.peak_rss_bytes(),
    }


def measure(request: dict) -> Dict[str, Any]:
    """Time warm calls of all contenders, loaded in the order of the request, interleaved."""
    cpus = machine.pin(request["num_threads"]) if request["pin"] else None
    inputs = np.load("inputs.npy", allow_pickle=False)
    scenario, models, calls = Scenario(**request["scenario"]), {}, {}
    for entry in request["contenders"]:
        model = load(request, entry)
        prepared = getattr(model, "prepared", lambda batch: batch)
        rotation = Rotation(inputs, entry["batch_size"], request["seed"], prepared)
        models[entry["name"]] = (model, rotation)
    for name, (model, rotation) in models.items():
        calls[name] = warm_up(model, rotation, request["warm_up_seconds"])
    busy = {name: scenario.utilisation(*pair) for name, pair in models.items()}
    before, wall, cpu = machine.counters(), time.perf_counter(), time.process_time()
    samples = time_rounds(
        models,
        scenario,
        rounds=request["rounds"],
        calls=request["calls"],
        max_seconds=request["max_seconds"],
        seed=request["seed"],
        lead_ins={name: lead_in(share) for name, share in busy.items()},
    )
    return {
        "cpus": cpus,
        "warm_up_calls": calls,
        "utilisation": busy,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "before": before,
        "after": machine.counters(),
        "samples": {name: encode(taken) for name, taken in samples.items()},
    }


def imported(request: dict) -> Any:
    """Import the class that the request names as `module:class`."""
    module, name = request["runtime"].split(":")
    return getattr(import_module(module), name)


def load(request: dict, entry: dict, runtime: Any = None) -> Any:
    """Open a model with the runtime of the request."""
    return (runtime or imported(request))(
        entry["file"],
        num_threads=request["num_threads"],
        spin=request["spin"],
        **request["runtime_options"],
    )


def encode(samples: np.ndarray) -> Dict[str, Any]:
    """Put nanoseconds into JSON as they are: little-endian int64, base64."""
    raw = np.ascontiguousarray(samples, "<i8").tobytes()
    return {"shape": list(samples.shape), "data": base64.b64encode(raw).decode("ascii")}


def decode(encoded: dict) -> np.ndarray:
    """The inverse of `encode`."""
    raw = base64.b64decode(encoded["data"], validate=True)
    return np.frombuffer(raw, "<i8").reshape(encoded["shape"]).astype(np.int64)


if __name__ == "__main__":
    main()
