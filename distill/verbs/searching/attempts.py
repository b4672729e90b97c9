"""Full trainings of a search: each a whole pipeline in a folder of its own, with its verdict."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.deployment.search.record import Attempt
from distill.deployment.search.space import Candidate
from distill.files import read_json
from distill.run_folder import adopt_stage
from distill.statistics.metrics import estimate_from
from distill.verbs.exporting.references import export_reference_stage
from distill.verbs.run.summary import show_verdict
from distill.verbs.run.workspace import Workspace, open_workspace
from distill.verbs.searching.candidates import pipeline_cfg
from distill.verbs.searching.rungs import full_training
from distill.verbs.stages.order import all_stages

ATTEMPTS = "attempts"


def attempt(workspace: Workspace, candidate: Candidate) -> tuple[Attempt, dict[str, Any]]:
    """Take a candidate through the pipeline, with the search's baseline, teacher and labels.

    Returns:
        What became of it, and its verdict.
    """
    export_reference_stage(workspace, "teacher")
    folder = workspace.run_dir / ATTEMPTS / candidate.slug
    cfg = pipeline_cfg(workspace, candidate, str(folder))
    with open_workspace(cfg, workspace.data, trains=True) as own:
        if own.leads:
            _adopt(workspace.run_dir, folder)
        verdict = all_stages(own, is_attempt=True)
        show_verdict(own.console, cfg.name, verdict)
    student = verdict["models"]["student"]
    artefact = verdict["chosen"]["artefact"]
    shipped = next(
        (m for m in verdict["models"].values() if artefact and m.get("artefact") == artefact),
        student,
    )
    accuracy = {"estimate": shipped["accuracy"], "interval": shipped["accuracy_interval"]}
    done = Attempt(
        run_dir=f"{ATTEMPTS}/{candidate.slug}",
        verdict=verdict["verdict"],
        artefact=artefact,
        accuracy=estimate_from(accuracy),
        on_validation=full_training(folder, len(workspace.data.validation), cfg.trainer.max_epochs),
        p95_latency_ms=shipped["p95_latency_ms"],
        seconds=seconds_spent(folder),
    )
    return done, verdict


def _adopt(source: Path, target: Path) -> None:
    """Take over what is the same for every student: it is not made twice."""
    shutil.copytree(  # beside what stages promise, an estimator that was fitted
        source / "train" / "teacher",
        target / "train" / "teacher",
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("*.ckpt", ".tmp-*"),
    )
    manifests = source / "manifests"
    names = ["baseline", "teacher", "export_teacher"]
    names += [
        str(path.relative_to(manifests).with_suffix(""))
        for path in (manifests / "train").rglob("*.json")
        if path.relative_to(manifests / "train").parts[0] in ("teacher", "teacher.json")
    ]
    for name in names:
        adopt_stage(name, source, target)


def seconds_spent(run_dir: Path, counts: Callable[[Path], bool] = lambda manifest: True) -> float:
    """Sum what the stages of a run folder, and of the folders below it, say that they took.

    Args:
        run_dir: of a search or a pipeline.
        counts: told a stage's manifest, below `run_dir`, whether it counts.
    """
    return sum(
        read_json(path).get("seconds", 0.0)
        for folder in (run_dir, *run_dir.glob(f"{ATTEMPTS}/*"))
        for path in (folder / "manifests").rglob("*.json")
        if counts(path.relative_to(run_dir))
    )
