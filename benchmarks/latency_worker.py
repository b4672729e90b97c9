"""A measuring process of `latency_timer`: contenders interleaved in one fresh, pinned process.

Reads a JSON request from stdin and prints one JSON line: nanoseconds per contender.
"""

import contextlib
import json
import sys

import numpy as np

from distill.deployment.device import machine
from distill.deployment.device.latency import Rotation, Scenario, time_rounds, warm_up
from distill.runtime import OnnxModel


class IoBound:
    """The model in a bare loop over an IO binding: the least that onnxruntime can take."""

    def __init__(self, path: str) -> None:
        model = OnnxModel(path)
        self.session, self.binding = model.session, model.session.io_binding()
        self.name = model.input_name
        self.binding.bind_output(model.output_names[0], "cpu")

    def __call__(self, batch: np.ndarray) -> None:
        """Bind and run."""
        self.binding.bind_cpu_input(self.name, batch)
        self.session.run_with_iobinding(self.binding)


def eager(seed: int, name: str):
    """The same network in eager PyTorch, one thread."""
    import torch
    from latency_timer import NETWORKS

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = NETWORKS[name]().eval()

    def call(batch: np.ndarray) -> None:
        with torch.inference_mode():
            model(torch.from_numpy(batch)).numpy()

    return call


def nothing(batch: np.ndarray) -> None:
    """Do nothing: what is read is the harness."""


def loadgen(model: OnnxModel, batches: list, seconds: float) -> np.ndarray:
    """Time SingleStream queries by MLPerf's loadgen, in its own log's nanoseconds."""
    import tempfile
    from pathlib import Path

    import mlperf_loadgen as lg

    def issue(samples: list) -> None:
        for sample in samples:
            model(batches[sample.index % len(batches)])
            lg.QuerySamplesComplete([lg.QuerySampleResponse(sample.id, 0, 0)])

    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
    settings.min_duration_ms, settings.min_query_count = int(1000 * seconds), 100
    settings.max_query_count = 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        log = lg.LogSettings()
        log.log_output.outdir, log.log_output.copy_summary_to_stdout = folder, False
        log.enable_trace = False
        sut = lg.ConstructSUT(issue, lambda: None)
        library = lg.ConstructQSL(len(batches), len(batches), lambda _: None, lambda _: None)
        lg.StartTestWithLogSettings(sut, library, settings, log)
        lg.DestroyQSL(library)
        lg.DestroySUT(sut)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
    wanted = ("50.00 percentile latency (ns)", "99.00 percentile latency (ns)")
    lines = [line.split(":") for line in summary.splitlines() if ":" in line]
    facts = {name.strip(): value.strip() for name, value in lines}
    return np.array([int(facts[name]) for name in wanted])


def main() -> None:
    """Time what the request asks for."""
    request = json.load(sys.stdin)
    machine.pin(1)
    rng = np.random.default_rng(request["seed"])
    shape = request["shape"]
    images = rng.integers(0, 256, (64, *shape), dtype=np.uint8)
    pixels = rng.standard_normal((64, shape[2], *shape[:2])).astype(np.float32)
    contenders = {}
    for name in request["contenders"]:
        rotation = Rotation(pixels if name == "bare" else images, 1, request["seed"])
        contenders[name] = (_model(name, request), rotation)
    for model, rotation in contenders.values():
        warm_up(model, rotation)
    answer = {}
    first, second = (_interleaved, _loadgen) if request["seed"] % 2 else (_loadgen, _interleaved)
    for part in (first, second):
        answer.update(part(request, contenders, images))
    print(json.dumps(answer))


def _interleaved(request: dict, contenders: dict, images: np.ndarray) -> dict:
    taken = time_rounds(
        contenders,
        Scenario(),
        rounds=request["rounds"],
        calls=10,
        max_seconds=60.0,
        seed=request["seed"],
    )
    return {name: samples.ravel().tolist() for name, samples in taken.items()}


def _loadgen(request: dict, contenders: dict, images: np.ndarray) -> dict:
    if not request["loadgen_s"]:
        return {}
    model = OnnxModel(request["files"]["baked"])
    batches = [images[i : i + 1] for i in range(64)]
    with contextlib.redirect_stdout(sys.stderr):
        p50, p99 = loadgen(model, batches, request["loadgen_s"])
    return {"loadgen": {"p50": int(p50), "p99": int(p99)}}


def _model(name: str, request: dict):
    if name == "nothing":
        return nothing
    if name == "eager":
        return eager(0, request["network"])
    if name == "io binding":
        return IoBound(request["files"]["baked"])
    if name == "session":  # what a program without us would call
        model = OnnxModel(request["files"]["baked"])
        run, key = model.session.run, model.input_name
        return lambda batch: run(None, {key: batch})
    return OnnxModel(request["files"].get(name, request["files"]["baked"]))


if __name__ == "__main__":
    main()
