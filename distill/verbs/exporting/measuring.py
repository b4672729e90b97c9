"""Measuring artefacts as stages: latency on the target, answers under emulated processors."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray
from rich.markup import escape

from distill.budget import Outcome
from distill.deployment.checks import TIMES
from distill.deployment.device.machine import processor
from distill.deployment.measurement import Measurement, TargetReport
from distill.files import read_json, write_arrays
from distill.verbs.run.workspace import Workspace, named_in_errors, plain

RAW = "benchmark.npz"
NUM_INPUTS = 64


def benchmark_stage(
    workspace: Workspace,
    artefacts: Sequence[Path],
    inputs: NDArray[Any],
    *,
    gated: Sequence[str] | None = None,
    measures_again: bool = True,
) -> dict[str, Any]:
    """Measure artefacts on the configured target; keep the raw nanoseconds.

    Args:
        workspace: of the run.
        artefacts: the first is the reference.
        inputs: to rotate through, [K, ...].
        gated: names of those whose latency limits are to be decided; None for all.
        measures_again: what is there already, where that may tell more.
    """
    target, run_dir = configured(workspace, "target"), workspace.run_dir
    values = measurement_values(workspace) | {"inputs": digest(inputs), "gated": gated}

    def compute() -> dict[str, Any]:
        report = measure(workspace, target, artefacts, inputs, gated=gated)
        write_arrays(run_dir / RAW, report.samples)
        return facts(report) | {"raw_nanoseconds": RAW}

    files = (*artefacts, *getattr(target, "files", ()))  # such as results that someone carried
    return workspace.stage(
        "benchmark",
        compute,
        values=values,
        inputs=files,
        outputs=(RAW,),
        again=lambda report: measures_again and may_tell_more(run_dir, report),
    )


def may_tell_more(run_dir: Path, report: Mapping[str, Any]) -> bool:
    """Whether to measure once more: it broke off, or a disturbed machine left the verdict open.

    A verdict that accuracy leaves open stays open, however often time is measured.
    """
    if report["incomplete"]:
        return True
    path = run_dir / "verdict.json"
    if not report["problems"] or not path.is_file():
        return False
    verdict = read_json(path)
    return verdict["verdict"] == Outcome.INCONCLUSIVE and _time_is_open(verdict["checks"])


def _time_is_open(checks: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a limit on time is open, of an artefact that has not failed already."""
    failed = {check["artefact"] for check in checks if check["outcome"] == Outcome.FAIL}
    return any(
        check["outcome"] == Outcome.INCONCLUSIVE
        and check["measured"] is not None  # else the scenario does not tell it
        and (check["name"] in TIMES or check["name"].endswith("_latency_ms"))
        and check["artefact"] not in failed
        for check in checks
    )


def compatibility_stage(
    workspace: Workspace, artefacts: Sequence[Path], inputs: NDArray[Any]
) -> dict[str, Any]:
    """Compare answers under every emulated processor with those on this machine."""
    emulators = workspace.cfg.emulator
    if not emulators:
        return {}

    def compute() -> dict[str, Any]:
        rows = []
        for name in emulators:
            with workspace.console.status(f"answers under {name}") as status:
                request = measurement(workspace, lambda said: status.update(escape(said)))
                rows.append(instantiate(emulators[name]).check(artefacts, inputs, request))
        return {"processors": rows}

    return workspace.stage(
        "compatibility",
        compute,
        values={
            "emulators": plain(emulators),
            "inputs": digest(inputs),
            "processor": processor(),  # whose answers theirs are held against
        },
        inputs=tuple(artefacts),
    )


def measure(
    workspace: Workspace,
    target: Any,
    artefacts: Sequence[Path],
    inputs: NDArray[Any],
    **changes: Any,
) -> TargetReport:
    """Measure on a target as configured, saying on stderr what is being done."""
    about = f"{target.name}: {len(artefacts)} artefacts"
    with workspace.console.status(about) as status:
        request = measurement(workspace, lambda said: status.update(escape(f"{about}, {said}")))
        return target.measure(artefacts, inputs, dataclasses.replace(request, **changes))


def measurement(workspace: Workspace, progress: Any) -> Measurement:
    """Read from the configuration what is asked of a target."""
    budget = workspace.budget
    return Measurement(
        confidence=budget.confidence,
        seed=workspace.cfg.seed,
        scenario=configured(workspace, "scenario"),
        runtime=configured(workspace, "runtime"),
        effort=configured(workspace, "effort"),
        limits_ms=budget.latency.percentiles,
        progress=progress,
    )


def measurement_values(workspace: Workspace) -> dict[str, Any]:
    """Name all that a measurement depends on besides its files."""
    cfg = workspace.cfg
    parts = ("target", "scenario", "runtime", "effort", "seed")
    return {part: plain(cfg[part]) for part in parts} | {
        "hardware": getattr(configured(workspace, "target"), "hardware", None),
        "limits_ms": {str(k): v for k, v in workspace.budget.latency.percentiles.items()},
        "confidence": workspace.budget.confidence,
    }


def configured(workspace: Workspace, group: str) -> Any:
    """Build what a group of the configuration names."""
    with named_in_errors(group):
        return instantiate(workspace.cfg[group], _convert_="all")


def facts(report: TargetReport) -> dict[str, Any]:
    """Take all of a report but its raw samples."""
    names = (field.name for field in dataclasses.fields(report))
    return {name: getattr(report, name) for name in names if name != "samples"}


def raw_samples(workspace: Workspace, name: str = RAW) -> dict[str, NDArray[np.int64]]:
    """Read the raw nanoseconds that the `benchmark` stage, or another, left in a file."""
    with np.load(workspace.run_dir / name, allow_pickle=False) as arrays:
        return {contender: arrays[contender] for contender in arrays.files}


def digest(inputs: NDArray[Any]) -> str:
    """Hash inputs, for a stage that depends on them."""
    return hashlib.sha256(np.ascontiguousarray(inputs).tobytes()).hexdigest()
