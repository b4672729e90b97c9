"""Where artefacts are measured: each target runs `latency.py` in fresh processes of its own.

Knows how to get there; knows nothing of budgets or accuracy.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import distill.runtime
from distill.deployment import latency
from distill.deployment.latency import CONTROL_SUFFIX, median_ratio, percentiles
from distill.errors import UserError
from distill.metrics import Estimate

log = logging.getLogger(__name__)

COLD_STARTS = 6  # the range of 6 draws covers the median with 97 % confidence


@dataclass(frozen=True, kw_only=True)
class ArtefactLatency:
    """One artefact on one target."""

    artefact: str
    p50_latency_ms: Estimate
    p95_latency_ms: Estimate
    p99_latency_ms: Estimate
    ratio_to_first: Estimate
    cold_start_ms: Estimate
    peak_rss_bytes: Estimate
    size_bytes: int
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """What was measured on a target, with the run's own noise floor.

    Attributes:
        target: name.
        artefacts: one per contender.
        noise_floor: ratio of the first contender to itself (A/A); differences inside its interval
            are noise.
        conditions: of the run: rounds, CPUs, steal, load, context switches.
        samples: raw nanoseconds, [rounds, calls] per contender and control.
    """

    target: str
    artefacts: list[ArtefactLatency]
    noise_floor: Estimate
    conditions: dict[str, Any]
    samples: dict[str, NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class LocalTarget:
    """This machine.

    Attributes:
        name: in reports.
        num_threads: that an inference may use.
        pin: whether to stay on as many CPUs as threads.
        spin: whether idle threads burn their CPU, as in the deployment.
        min_rounds: measured even when time is up.
        max_rounds: of 10 calls per contender.
        max_seconds: after which no further round starts.
    """

    name: str
    num_threads: int = 1
    pin: bool = True
    spin: bool = True
    min_rounds: int = 30
    max_rounds: int = 300
    max_seconds: float = 60.0

    def measure(
        self, artefacts: Sequence[Path], inputs: NDArray[Any], *, confidence: float, seed: int = 0
    ) -> TargetReport:
        """Measure all artefacts in one interleaved run, and each one's cold start on its own.

        Args:
            artefacts: ONNX files with distinct names; the first has its A/A control.
            inputs: to rotate through, [K, ...].
            confidence: of the intervals.
            seed: of the shuffling.

        Raises:
            UserError: a measuring process fails.
        """
        cold: dict[str, list[dict[str, float]]] = {path.name: [] for path in artefacts}
        for _ in range(COLD_STARTS):
            for path in artefacts:
                cold[path.name].append(self._run("cold", [path], inputs, seed)[0])
        conditions, samples = self._run("measure", artefacts, inputs, seed)
        reference = artefacts[0].name
        rows = [
            _summarise(path, samples, reference, cold[path.name], confidence) for path in artefacts
        ]
        floor = median_ratio(samples[reference + CONTROL_SUFFIX], samples[reference], confidence)
        return TargetReport(
            target=self.name,
            artefacts=rows,
            noise_floor=_estimate(floor),
            conditions=conditions,
            samples=samples,
        )

    def _run(
        self, mode: str, artefacts: Sequence[Path], inputs: NDArray[Any], seed: int
    ) -> tuple[dict[str, Any], dict[str, NDArray[np.int64]]]:
        """Run the timer as a fresh process on a bundle, exactly as a device would."""
        request = {
            "mode": mode,
            "artefacts": [str(path.resolve()) for path in artefacts],
            "num_threads": self.num_threads,
            "pin": self.pin,
            "spin": self.spin,
            "min_rounds": self.min_rounds,
            "max_rounds": self.max_rounds,
            "max_seconds": self.max_seconds,
            "seed": seed,
        }
        if self.pin and self.num_threads > len(os.sched_getaffinity(0)):
            raise UserError(
                f"Expected {self.num_threads} CPUs for target {self.name} but this process may use "
                f"{len(os.sched_getaffinity(0))}. Lower `target.num_threads`."
            )
        with tempfile.TemporaryDirectory(prefix="distill-") as name:
            folder = Path(name)
            for module in (latency, distill.runtime):
                assert module.__file__ is not None
                shutil.copy(module.__file__, folder)
            (folder / "request.json").write_text(json.dumps(request))
            np.save(folder / "inputs.npy", inputs)
            command = [sys.executable, "-E", "-s", "latency.py", "request.json"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                reason = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
                raise UserError(
                    f"Expected to measure {', '.join(path.name for path in artefacts)} on target "
                    f"{self.name} but the measuring process failed: {reason[0]}"
                )
            result = json.loads((folder / "result.json").read_text())
            samples: dict[str, NDArray[np.int64]] = {}
            if mode == "measure":
                with np.load(folder / "samples.npz", allow_pickle=False) as arrays:
                    samples = {key: arrays[key] for key in arrays.files}
        return result, samples


def _summarise(
    path: Path,
    samples: dict[str, NDArray[np.int64]],
    reference: str,
    cold: list[dict[str, float]],
    confidence: float,
) -> ArtefactLatency:
    own = samples[path.name]
    p50, p95, p99 = (
        _estimate(figure, scale=1e-6) for figure in percentiles(own, [50, 95, 99], confidence)
    )
    return ArtefactLatency(
        artefact=path.name,
        p50_latency_ms=p50,
        p95_latency_ms=p95,
        p99_latency_ms=p99,
        ratio_to_first=_estimate(median_ratio(own, samples[reference], confidence)),
        cold_start_ms=_median_of_few([run["cold_start_ms"] for run in cold]),
        peak_rss_bytes=_median_of_few([run["peak_rss_bytes"] for run in cold]),
        size_bytes=path.stat().st_size,
        num_samples=own.size,
    )


def _median_of_few(values: Sequence[float]) -> Estimate:
    """Median with the range as its interval (David & Nagaraja, "Order Statistics", 2003)."""
    return Estimate(estimate=float(np.median(values)), interval=(min(values), max(values)))


def _estimate(figure: tuple[float, float, float], scale: float = 1.0) -> Estimate:
    value, low, high = (float(part) * scale for part in figure)
    return Estimate(estimate=value, interval=(low, high))
