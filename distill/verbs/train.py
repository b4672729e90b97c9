"""`train`: the teacher, the control (the student on labels alone) and the distilled student."""

from pathlib import Path
from typing import Any

import lightning
import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig

from distill.files import write_json
from distill.verbs.configuration import check_configuration
from distill.verbs.fitting import fit_stage
from distill.verbs.members import TEACHER_FACTS, load_teacher
from distill.verbs.networks import build_distillation, objective, start_path, starting_student
from distill.verbs.seeds import compare_roles, seed_folder, seeds, show_trained
from distill.verbs.soft_labels import soft_labels_stage
from distill.verbs.store import num_views, open_store, uses_store
from distill.verbs.teacher import teacher_stage
from distill.verbs.views import shows_samples_as_they_are
from distill.verbs.workspace import Workspace, open_workspace, plain

ROLES = ("teacher", "control", "student")


def run(cfg: DictConfig) -> dict[str, Any]:
    """Train one role, or all three in order."""
    with open_workspace(cfg) as workspace:
        check_configuration(workspace)
        return train_roles(workspace, ROLES if cfg.action == "all" else (cfg.action,))


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


def distillation_values(workspace: Workspace) -> dict[str, Any]:
    """List the settings that decide what a student learns from its teacher."""
    cfg = workspace.cfg
    labels = {k: v for k, v in (plain(cfg.soft_labels) or {}).items() if k != "path"}
    return {
        "losses": plain(workspace.of_task("loss")),
        "module": plain(cfg.module),
        "soft_labels": labels,
    }


def views_shown(workspace: Workspace) -> int | None:
    """Tell how many views a student is shown in turn: those that have labels, or ever new ones."""
    return num_views(workspace) if uses_store(workspace) else None


def taught_rows(workspace: Workspace) -> Any:
    """Put rows without labels behind the training set, the teacher's answers for their labels.

    None where there are no such rows.
    """
    from distill.training.data.loading import BatchDataset
    from distill.training.data.splits import joined, labelled_by
    from distill.training.labelling import answer

    data = workspace.data
    if data.unlabelled is None:
        return None
    stored = uses_store(workspace) and shows_samples_as_they_are(workspace.cfg)
    teacher = open_store(workspace) if stored else load_teacher(workspace)
    rows = np.arange(len(data.unlabelled))
    answers = answer(teacher, BatchDataset(data.unlabelled), 0, rows)
    return joined(data.train, labelled_by(data.unlabelled, answers, data.task))


def distilled(
    workspace: Workspace, student: Any, parts: dict[str, Any]
) -> lightning.LightningModule:
    """Put a student beside its teacher's stored answers, or the live teacher, and the losses."""
    with_store = uses_store(workspace)
    losses = instantiate(workspace.of_task("loss"), _convert_="all")
    teacher = open_store(workspace) if with_store else load_teacher(workspace)
    if not any(hasattr(loss, "teacher_taps") for loss in losses.values()):
        teacher = teacher.folded()
    return build_distillation(workspace, student, teacher, losses, **parts)
