"""Short trainings of a search: whole ones of few epochs, from the shared labels, on validation."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from distill.deployment.search.outlook import Floor, Trained, floors
from distill.files import read_json
from distill.statistics.resampling import share
from distill.verbs.baseline import configured_baselines
from distill.verbs.baselines.incumbent import ask_incumbent, incumbent_path
from distill.verbs.learning.distilling import (
    distillation_values,
    distilled,
    taught_rows,
    views_shown,
)
from distill.verbs.learning.fitting import MARKS, fit_stage
from distill.verbs.learning.members import TEACHER_FACTS, load_teacher
from distill.verbs.learning.networks import build_student
from distill.verbs.run.workspace import Workspace, plain


def on_validation(workspace: Workspace) -> Workspace:
    """Put the validation set where the test set is: a search does not look at the latter."""
    data = workspace.data
    return workspace.changed(workspace.cfg, dataclasses.replace(data, test=data.validation))


def rung_stage(
    workspace: Workspace, judged: Workspace, slug: str, epochs: int
) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """Distil a candidate for a few epochs, by a schedule of its own.

    Args:
        workspace: whose student it is.
        judged: what `on_validation` makes of it.
        slug: of the candidate.
        epochs: of the training.

    Returns:
        What is known of the training, and whether each validation sample is answered right, [N],
        at the last epoch: the best one would be chosen on the very samples that judge it.
    """
    seed, role = workspace.cfg.seed, f"rung_{epochs}/{slug}"
    values = {"network": plain(workspace.cfg.student), "seed": seed}
    result = fit_stage(
        judged,
        role,
        _short(workspace.cfg, epochs),
        lambda parts: distilled(workspace, build_student(workspace), parts),
        values | distillation_values(workspace),
        seed=seed,
        inputs=(workspace.run_dir / TEACHER_FACTS,),
        num_views=views_shown(workspace),
        taught=lambda: taught_rows(workspace),
    )
    with np.load(workspace.run_dir / "train" / role / MARKS, allow_pickle=False) as arrays:
        correct = arrays["last"]
    return result, correct


def trained(correct: NDArray[np.bool_], epochs: int) -> Trained:
    """Say what a training came to."""
    return Trained(epochs=epochs, num_wrong=int((~correct).sum()), num_samples=len(correct))


def _short(cfg: DictConfig, epochs: int) -> DictConfig:
    short = cfg.copy()
    short.trainer.max_epochs = epochs
    return short


def floors_stage(workspace: Workspace) -> tuple[list[Floor], dict[str, Any]]:
    """Measure teacher, baselines and incumbent on validation, and translate the budget to it.

    Returns:
        The limits, and the references: accuracy on validation of `teacher`, `baseline` and
        `incumbent`, each an estimate or None.
    """
    incumbent = incumbent_path(workspace)
    accuracy, confidence = workspace.budget.accuracy, workspace.budget.confidence
    # A function or a file that knows the test set alone has nothing to say of validation.
    asked = {
        name: baseline
        for name, baseline in configured_baselines(workspace).items()
        if hasattr(baseline, "fit")
    }

    def compute() -> dict[str, Any]:
        from distill.training.baselines.scoring import score_baselines
        from distill.training.data.loading import BatchDataset
        from distill.training.labelling import answer

        validation = workspace.data.validation
        teacher = load_teacher(workspace)
        said = None
        if teacher.sees_images:
            logits = answer(teacher, BatchDataset(validation), 0, np.arange(len(validation)))
            right = logits.argmax(axis=1) == validation.labels
            said = share(right, blocks=validation.blocks, confidence=confidence)
        data = dataclasses.replace(workspace.data, test=validation)
        scores, _ = score_baselines(data, asked, workspace.scoring, confidence=confidence)
        accuracies = [score["accuracy"] for score in scores.values()]
        best = max(accuracies, key=lambda accuracy: accuracy.estimate, default=None)
        replaced = None
        if incumbent is not None:
            said_now = ask_incumbent(workspace, incumbent, validation).argmax(axis=1)
            right = said_now == validation.labels
            replaced = share(right, blocks=validation.blocks, confidence=confidence)
        return {"teacher": said, "baseline": best, "incumbent": replaced}

    values = {
        "data": workspace.data.fingerprint,
        "baselines": plain(workspace.cfg.get("baselines")),
        "confidence": confidence,
    }
    inputs = (workspace.run_dir / TEACHER_FACTS,)
    if incumbent is not None:
        values["incumbent"] = plain(workspace.cfg.incumbent)
        inputs = (*inputs, incumbent)
    found = workspace.stage("references", compute, values=values, inputs=inputs)
    known = {name: value and value["estimate"] for name, value in found.items()}
    return floors(accuracy, **known, num_samples=len(workspace.data.validation)), found


def full_training(run_dir: Path, num_samples: int, epochs: int) -> Trained:
    """Say what a full training came to on validation, at its best epoch.

    One that stopped early is as full as any: trained again it would come to the same. So its length
    is the one that was allowed, as that of short trainings is.

    Args:
        run_dir: of the attempt.
        num_samples: of validation.
        epochs: of a full training.
    """
    result = read_json(run_dir / "train" / "student.json")
    history: Sequence[dict[str, float]] = read_json(run_dir / "train" / "student" / "history.json")
    accuracy = history[result["best_epoch"]]["val/accuracy"]
    return Trained(epochs=epochs, num_wrong=(1 - accuracy) * num_samples, num_samples=num_samples)
