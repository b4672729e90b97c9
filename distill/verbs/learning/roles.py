"""The teacher, the control (the student on labels alone) and the distilled student, trained."""

from pathlib import Path
from typing import Any

import lightning

from distill.files import write_json
from distill.verbs.learning.distilling import (
    distillation_values,
    distilled,
    taught_rows,
    views_shown,
)
from distill.verbs.learning.fitting import fit_stage
from distill.verbs.learning.members import TEACHER_FACTS
from distill.verbs.learning.networks import objective, start_path, starting_student
from distill.verbs.learning.seeds import compare_roles, seed_folder, seeds, show_trained
from distill.verbs.learning.soft_labels import soft_labels_stage
from distill.verbs.learning.store import uses_store
from distill.verbs.learning.teacher import teacher_stage
from distill.verbs.run.workspace import Workspace, plain

ROLES = ("teacher", "control", "student")


def train_roles(workspace: Workspace, roles: tuple[str, ...]) -> dict[str, Any]:
    """Train some roles, the control and the student over all seeds, and compare the two."""
    results: dict[str, Any] = {}
    if "teacher" in roles or "student" in roles:  # a student needs its teacher first
        results["teacher"] = teacher_stage(workspace)
    if "student" in roles and uses_store(workspace):
        results["soft_labels"] = soft_labels_stage(workspace)
    for role in ("control", "student"):
        if role in roles:
            trained = [train_stage(workspace, role, seed) for seed in seeds(workspace)]
            results[role] = trained[0] | {"seeds": trained}
    if "control" in results and "student" in results:
        results["over_seeds"] = compare_roles(workspace, results)
    show_trained(workspace, results)
    if workspace.leads:
        write_json(workspace.run_dir / "train.json", results)
    return results


def train_stage(workspace: Workspace, role: str, seed: int) -> dict[str, Any]:
    """Train the control or the student with one seed."""
    from distill.training.modules import SupervisedModule

    cfg = workspace.cfg
    values: dict[str, Any] = {"network": plain(cfg.student), "seed": seed}
    start = start_path(cfg, "student")
    inputs: tuple[Path, ...] = () if start is None else (start,)
    if role == "student":
        inputs = (*inputs, workspace.run_dir / TEACHER_FACTS)
        values |= distillation_values(workspace)

    def module(parts: dict[str, Any]) -> lightning.LightningModule:
        student = starting_student(workspace)
        if role == "control":
            return SupervisedModule(student, **objective(workspace), **parts)
        return distilled(workspace, student, parts)

    folder = seed_folder(workspace, role, seed)
    shown = views_shown(workspace) if role == "student" else None
    return fit_stage(
        workspace,
        folder,
        cfg,
        module,
        values,
        seed=seed,
        inputs=inputs,
        num_views=shown,
        taught=lambda: taught_rows(workspace) if role == "student" else None,
    )
