"""`benchmark`: latency, cold start, memory and size of ONNX files on a target, against a budget."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from distill.budget import choose
from distill.contract import GOLDEN_FILE
from distill.deployment.checks import compatibility_checks, median_ms, target_checks
from distill.deployment.device.latency import Scenario
from distill.deployment.intake import Artefact, inspect, random_inputs, read_inputs
from distill.deployment.report.benchmark import write_benchmark_report
from distill.errors import UsageError, UserError
from distill.files import to_json, write_json
from distill.verbs.exporting.measuring import (
    NUM_INPUTS,
    benchmark_stage,
    compatibility_stage,
    configured,
    digest,
    facts,
    measure,
    measurement_values,
    raw_samples,
)
from distill.verbs.run.summary import show_benchmark
from distill.verbs.run.workspace import Workspace, open_workspace, plain

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> dict[str, Any]:
    """Measure any ONNX files, held against the latency, size and memory limits of a budget."""
    with open_workspace(cfg) as workspace:
        paths = _paths(cfg)
        artefacts = [inspect(path) for path in paths]
        for artefact in artefacts:
            if artefact.contract is None:
                log.info(
                    "%s has no contract: its accuracy is not known here, and not judged",
                    artefact.path,
                )
        inputs = _inputs(cfg, artefacts)
        report = benchmark_stage(workspace, paths, inputs)
        report["sweep"] = _sweep_stage(workspace, paths, inputs)
        compatibility = compatibility_stage(workspace, paths, inputs)
        budget = workspace.budget
        names = [path.name for path in paths]
        samples = raw_samples(workspace)
        checks = target_checks(budget, report, samples)
        checks += compatibility_checks(compatibility, names, budget.parity.max_logit_std)
        choice = choose(checks, {row["artefact"]: median_ms(row) for row in report["artefacts"]})
        result = {
            "verdict": choice.outcome,
            "run_dir": str(workspace.run_dir),
            "report": str(workspace.run_dir / "report.html"),
            "chosen": {"artefact": choice.artefact, "target": report["target"]},
            "checks": checks,
            "artefacts": report["artefacts"],
            "sweep": report["sweep"],
            "noise_floor": report["noise_floor"],
            "problems": report["problems"],
            "incomplete": report["incomplete"],
        }
        write_benchmark_report(
            workspace.run_dir,
            to_json(report),
            compatibility,
            checks,
            choice,
            samples=samples,
            limits_ms=budget.latency.percentiles,
        )
        write_json(workspace.run_dir / "verdict.json", result)
        show_benchmark(workspace.console, report, checks, choice)
        workspace.console.print(f"report: {result['report']}", soft_wrap=True)
        return to_json(result)


def _paths(cfg: DictConfig) -> list[Path]:
    given = plain(cfg.artefacts)
    paths = [Path(path) for path in ([given] if isinstance(given, str) else given)]
    if not paths:
        raise UsageError("Expected at least one ONNX file in `artefacts=[...]` but got none.")
    if len({path.name for path in paths}) < len(paths):
        raise UserError(f"Expected files with distinct names but got {', '.join(map(str, paths))}.")
    return paths


def _inputs(cfg: DictConfig, artefacts: Sequence[Artefact]) -> NDArray[Any]:
    """Read the inputs to rotate through: given, golden, or random; all artefacts must take them."""
    first = artefacts[0]
    if cfg.inputs:
        inputs = read_inputs(Path(cfg.inputs), first, cfg.input_key)
    elif first.contract is not None:
        with np.load(first.path.parent / GOLDEN_FILE, allow_pickle=False) as golden:
            inputs = golden["input"]
    else:
        shape = plain(cfg.input_shape)
        inputs = random_inputs(first, NUM_INPUTS, cfg.seed, tuple(shape) if shape else None)
    for other in artefacts[1:]:
        if not other.takes(inputs):
            raise UserError(
                f"Expected all artefacts to take what {first.path} takes, {inputs.dtype} "
                f"{list(inputs.shape[1:])}, but {other.path} takes {other.dtype} "
                f"{list(other.input_shape[1:])}. Measure them in runs of their own."
            )
    return inputs


def _sweep_stage(
    workspace: Workspace, paths: Sequence[Path], inputs: NDArray[Any]
) -> list[dict[str, Any]]:
    """Measure with other numbers of threads and batch sizes."""
    sweep, target = workspace.cfg.sweep, configured(workspace, "target")
    if not sweep.num_threads and not sweep.batch_sizes:
        return []
    if not hasattr(target, "num_threads"):
        raise UsageError(
            f"Expected a target that takes latencies for `sweep` but got {target.name}."
        )

    def compute() -> dict[str, Any]:
        rows = []
        for num_threads in sweep.num_threads or [target.num_threads]:
            for batch_size in sweep.batch_sizes or [1]:
                report = measure(
                    workspace,
                    dataclasses.replace(target, num_threads=num_threads),
                    paths,
                    inputs,
                    scenario=Scenario("offline", batch_size),
                    effort=dataclasses.replace(configured(workspace, "effort"), cold_starts=0),
                    limits_ms={},
                    golden=False,
                )
                setting = {"num_threads": num_threads, "batch_size": batch_size}
                setting["cpu_share"] = report.conditions["cpu_share"]
                rows += [setting | row for row in to_json(facts(report))["artefacts"]]
        return {"rows": rows}

    values = measurement_values(workspace) | {"sweep": plain(sweep), "inputs": digest(inputs)}
    return workspace.stage("sweep", compute, values=values, inputs=tuple(paths))["rows"]
