"""A student beside its teacher: what it is shown, whose answers it learns, and by which losses."""

from typing import Any

import lightning
import numpy as np
from hydra.utils import instantiate

from distill.verbs.learning.members import load_teacher
from distill.verbs.learning.networks import build_distillation
from distill.verbs.learning.store import num_views, open_store, uses_store
from distill.verbs.learning.views import shows_samples_as_they_are
from distill.verbs.run.workspace import Workspace, plain


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
