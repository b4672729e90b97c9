"""Preflight: students exported untrained and measured on the target, before anything is trained."""

import dataclasses
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from distill.deployment.measurement import Effort, TargetReport, make_plan, summarise
from distill.deployment.quantize.auto import Auto
from distill.deployment.quantize.recipes import Source, StaticInt8
from distill.deployment.search.preflight import (
    Preflight,
    judge,
    limits_of,
    too_much,
)
from distill.deployment.search.space import slug
from distill.files import to_json, write_arrays
from distill.tasks import TaskKind
from distill.verbs.exporting.artefacts import export_network
from distill.verbs.exporting.measuring import (
    NUM_INPUTS,
    configured,
    digest,
    facts,
    measure,
    measurement,
    measurement_values,
    raw_samples,
)
from distill.verbs.learning.networks import further
from distill.verbs.run.workspace import Workspace, plain

log = logging.getLogger(__name__)

STAGE, RAW = "preflight", "preflight.npz"
ENOUGH_STARTS = 6  # the range of as many covers the median with 97 % confidence
NUM_CALIBRATION_SAMPLES = 32  # of weights that say nothing yet


def preflight_stage(workspace: Workspace, students: Mapping[str, Workspace]) -> list[Preflight]:
    """Export students untrained, measure all of them in one interleaved run, and judge them.

    Args:
        workspace: of the run.
        students: name to a workspace whose student it is.

    Returns:
        What is known of each student, the cheapest first.
    """
    inputs = workspace.data.validation.served[:NUM_INPUTS]
    measured_by = measurement_values(workspace)
    del measured_by["limits_ms"]  # measuring does not go on until they are decided
    values = measured_by | {
        "effort": plain(workspace.cfg.preflight_effort),
        "students": {name: plain(own.cfg.student) for name, own in students.items()},
        "quantize": plain(workspace.cfg.quantize),
        "head": plain(workspace.cfg.head),
        "embedding": workspace.cfg.embedding,
        "classes": workspace.data.classes,
        "encoder": repr(workspace.data.encoder),  # it is in the file
        "inputs": digest(inputs),
        "starts": [workspace.budget.latency.cold_start_ms, workspace.budget.peak_rss_bytes],
    }

    def compute() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="distill-") as folder:
            candidates = _export_all(students, Path(folder))
            paths = [Path(folder) / f for c in candidates.values() for f in c["files"].values()]
            report = _measure(workspace, paths, inputs)
        write_arrays(workspace.run_dir / RAW, report.samples)
        return facts(report) | {"candidates": candidates, "raw_nanoseconds": RAW}

    measured = workspace.stage(
        STAGE,
        compute,
        values=values,
        outputs=(RAW,),
        again=lambda report: bool(report["incomplete"]),
    )
    for problem in (*measured["problems"], *filter(None, [measured["incomplete"]])):
        log.warning("during preflight, %s", problem)
    return judge(workspace.budget, measured, raw_samples(workspace, RAW))


def _export_all(students: Mapping[str, Workspace], folder: Path) -> dict[str, Any]:
    candidates = {}
    for number, (name, own) in enumerate(students.items(), start=1):
        about = f"exporting untrained: {name} ({number} of {len(students)})"
        with own.console.status(about):
            candidates[name] = _export(own, folder, name)
    return candidates


def _export(workspace: Workspace, folder: Path, name: str) -> dict[str, Any]:
    """Write one student's files as the pipeline would, but for its weights."""
    import lightning
    import torch

    from distill.contract import HASH_KEY
    from distill.deployment.export import embed_metadata
    from distill.training.models import TemperatureScaled, num_macs, num_parameters, unalike
    from distill.verbs.learning.networks import build_student

    lightning.seed_everything(workspace.cfg.seed, verbose=False)
    student = unalike(build_student(workspace).eval())
    path = folder / f"{slug(name)}.onnx"
    example = torch.from_numpy(workspace.data.train.inputs[:1])
    of_classes = workspace.data.task.kind is TaskKind.CLASSIFICATION
    model = TemperatureScaled(student, 1.5).eval() if of_classes else student
    export_network(workspace, model, path, **further(workspace))
    files = {"float32": path.name}
    recipe = _recipe(workspace)
    if recipe is not None:
        smaller = folder / f"{slug(name)}.{recipe.precision}.onnx"
        images = workspace.data.train.served[: recipe.num_calibration_samples]
        with tempfile.TemporaryDirectory() as scratch:
            recipe.make(Source(path, images, Path(scratch)), smaller)
        files[recipe.precision] = smaller.name
    for file in files.values():
        embed_metadata(folder / file, {HASH_KEY: "0" * 64})  # as long as the one that ships
    return {
        "files": files,
        "num_parameters": num_parameters(student),
        "macs": num_macs(student, example),
    }


def _recipe(workspace: Workspace) -> Any:
    """Take the configured recipe; static int8 where it is still to be searched for."""
    recipe = instantiate(workspace.cfg.quantize) or None
    if isinstance(recipe, Auto):
        recipe = StaticInt8()
    if isinstance(recipe, StaticInt8):
        samples = min(NUM_CALIBRATION_SAMPLES, recipe.num_calibration_samples)
        return dataclasses.replace(recipe, num_calibration_samples=samples)
    return recipe


def _measure(workspace: Workspace, paths: Sequence[Path], inputs: Any) -> TargetReport:
    """Measure all files at once; start again, often enough, those that take too much at first."""
    target = configured(workspace, "target")
    effort: Effort = instantiate(workspace.cfg.preflight_effort)
    if not hasattr(target, "num_threads"):  # emulated, or measured by hand: no latencies yet
        log.info("preflight: %s takes no latencies now; sizes alone are judged", target.name)
        request = measurement(workspace, lambda said: None)
        plan = make_plan(paths, request, num_threads=1, pin=False, spin=False)
        return summarise(target.name, paths, plan, [], request, incomplete=None)
    report = measure(workspace, target, paths, inputs, effort=effort, golden=False, limits_ms={})
    if effort.cold_starts >= ENOUGH_STARTS:
        return report
    rows = [to_json(row) for row in report.artefacts]
    heavy = too_much(rows, limits_of(workspace.budget))
    if not heavy:
        return report
    sure = Effort(
        cold_starts=ENOUGH_STARTS, processes=1, warm_up_seconds=0, rounds=1, max_seconds=0
    )
    chosen = [path for path in paths if path.name in heavy]
    again = measure(workspace, target, chosen, inputs, effort=sure, golden=False, limits_ms={})
    starts = {row.artefact: row for row in again.artefacts}
    merged = [
        dataclasses.replace(
            row,
            cold_start_ms=starts[row.artefact].cold_start_ms,
            peak_rss_bytes=starts[row.artefact].peak_rss_bytes,
        )
        if row.artefact in starts
        else row
        for row in report.artefacts
    ]
    return dataclasses.replace(report, artefacts=merged)
