"""`benchmark`: latency, cold start, memory and size of ONNX files on a target, against a budget."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig

from distill.budget import choose
from distill.deployment.checks import target_checks
from distill.deployment.report import write_benchmark_report
from distill.deployment.targets import TargetReport
from distill.errors import UserError
from distill.files import to_json, write_arrays, write_json
from distill.runtime import OnnxModel
from distill.verbs.workspace import Workspace, open_workspace, plain

RAW = "benchmark.npz"
NUM_INPUTS = 64

_NUMPY_TYPES = {"float": "float32", "double": "float64"}


def run(cfg: DictConfig) -> dict[str, Any]:
    """Measure any ONNX files, held against the latency, size and memory limits of a budget."""
    with open_workspace(cfg) as workspace:
        paths = [Path(path) for path in plain(cfg.artefacts)]
        if len({path.name for path in paths}) < len(paths):
            raise UserError(
                f"Expected files with distinct names but got {', '.join(map(str, paths))}."
            )
        inputs = _inputs(cfg, paths)
        report = benchmark_stage(workspace, paths, inputs)
        checks = target_checks(workspace.budget, report)
        cost = {row["artefact"]: row["p50_latency_ms"]["estimate"] for row in report["artefacts"]}
        choice = choose(checks, cost)
        result = {
            "verdict": choice.outcome,
            "run_dir": str(workspace.run_dir),
            "report": str(workspace.run_dir / "report.html"),
            "chosen": {"artefact": choice.artefact, "target": report["target"]},
            "checks": checks,
            "artefacts": report["artefacts"],
        }
        write_benchmark_report(workspace.run_dir, report, checks, choice)
        write_json(workspace.run_dir / "verdict.json", result)
        return to_json(result)


def benchmark_stage(
    workspace: Workspace, artefacts: Sequence[Path], inputs: NDArray[Any]
) -> dict[str, Any]:
    """Measure artefacts on the configured target; keep the raw nanoseconds."""
    cfg, confidence = workspace.cfg, workspace.budget.confidence
    target = instantiate(cfg.target)

    def compute() -> dict[str, Any]:
        for path in artefacts:
            OnnxModel(path).predict(inputs[:1])  # a bad file is named before anything is timed
        with workspace.console.status(f"measuring {len(artefacts)} artefacts on {target.name}"):
            report: TargetReport = target.measure(
                artefacts, inputs, confidence=confidence, seed=cfg.seed
            )
        write_arrays(workspace.run_dir / RAW, report.samples)
        return {
            f.name: getattr(report, f.name)
            for f in dataclasses.fields(report)
            if f.name != "samples"
        } | {"raw_nanoseconds": RAW}

    values = {"target": plain(cfg.target), "confidence": confidence, "seed": cfg.seed}
    return workspace.stage(
        "benchmark", compute, values=values, inputs=tuple(artefacts), outputs=(RAW,)
    )


def _inputs(cfg: DictConfig, paths: list[Path]) -> NDArray[Any]:
    """Read the inputs to rotate through, or draw random ones of the first model's shape."""
    model = OnnxModel(paths[0])
    if cfg.inputs:
        return np.load(cfg.inputs, allow_pickle=False)
    shape = model.input_shape[1:]
    if any(size is None for size in shape):
        raise UserError(
            f"Expected {paths[0]} to have fixed dimensions besides the batch but it takes "
            f"{list(model.input_shape)}. Give real inputs with `inputs=<file>.npy`."
        )
    name = model.input_type.removeprefix("tensor(").removesuffix(")")
    dtype = np.dtype(_NUMPY_TYPES.get(name, name))
    rng = np.random.default_rng(cfg.seed)
    full = (NUM_INPUTS, *(size for size in shape if size is not None))
    if dtype.kind in "iu":
        return rng.integers(0, 256 if dtype == np.uint8 else 2, full).astype(dtype)
    return rng.standard_normal(full).astype(dtype)
