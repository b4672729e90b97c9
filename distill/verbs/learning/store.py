"""The soft-label store of a run: where it lies, what it must be made from, how it is opened."""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from distill.errors import UserError
from distill.files import read_json
from distill.tasks import TaskKind
from distill.verbs.learning.members import TEACHER_FACTS, load_teacher
from distill.verbs.learning.views import check_views_of_data, shows_samples_as_they_are
from distill.verbs.run.own_code import with_own_code
from distill.verbs.run.workspace import OUTPUTS, Workspace, plain

if TYPE_CHECKING:
    from distill.training.soft_labels import Recipe
    from distill.training.teachers.base import Teacher

log = logging.getLogger(__name__)


def uses_store(workspace: Workspace) -> bool:
    """Tell whether the student learns from stored answers, not from a live teacher."""
    return "path" in workspace.cfg.soft_labels  # `none` has no settings but an experiment's


def check_store_settings(workspace: Workspace) -> None:
    """Refuse settings of which no store can be made, before a teacher is trained."""
    from distill.training.soft_label_writer import StoreWriter

    check_views_of_data(workspace)
    cfg = workspace.cfg.soft_labels
    whole = [cfg.num_views, cfg.batch_size, *([] if cfg.top_k is None else [cfg.top_k])]
    if not all(isinstance(value, int) and value > 0 for value in whole) or not cfg.path:
        raise UserError(
            "Expected whole numbers above 0 for `soft_labels.num_views`, `batch_size` and `top_k` "
            f"(or null) and a `soft_labels.path` but got {plain(cfg)}."
        )
    if cfg.top_k is not None and workspace.data.task.kind is not TaskKind.CLASSIFICATION:
        raise UserError(
            f"Expected `soft_labels.top_k=null` for {OUTPUTS[workspace.data.task.kind]} but got "
            f"{cfg.top_k}: none of them is what the others leave over. Leave it out."
        )
    shown = num_views(workspace)
    if shown < cfg.num_views and not shows_samples_as_they_are(workspace.cfg):
        log.info(
            "soft labels: %d views of `soft_labels.num_views=%d`, one for each of "
            "`trainer.max_epochs`; no more are shown",
            shown,
            cfg.num_views,
        )
    recipe = store_recipe(workspace, "unknown", workspace.cfg.soft_labels.precision)
    indices = workspace.data.taught.indices
    StoreWriter(store_folder(workspace), recipe, indices, shown)


def num_views(workspace: Workspace) -> int:
    """Tell how many views the student is shown in turn: no more than there are epochs.

    One where all would be the same.
    """
    cfg = workspace.cfg
    if shows_samples_as_they_are(cfg):
        return 1
    asked, epochs = cfg.soft_labels.num_views, cfg.trainer.max_epochs
    return min(asked, epochs) if isinstance(epochs, int) and epochs > 0 else asked


def open_store(workspace: Workspace) -> "Teacher":
    """Open the store as a teacher: by fingerprint, by hash, and by replay of random records."""
    from distill.training.labelling import TOLERANCE, check_replay
    from distill.training.soft_labels import SoftLabelStore, stored_precision
    from distill.training.teachers.cached import CachedTeacher

    folder, cfg = store_folder(workspace), workspace.cfg.soft_labels
    facts = read_json(workspace.run_dir / TEACHER_FACTS)
    recipe = store_recipe(workspace, facts["fingerprint"], cfg.precision)
    if cfg.precision == "auto":  # without a store of this recipe the next line says what differs
        stored = stored_precision(folder, recipe) or "float32"
        recipe = dataclasses.replace(recipe, precision=stored)
    store = SoftLabelStore(folder, recipe)
    if store.num_views < num_views(workspace):
        raise UserError(
            f"Expected {num_views(workspace)} views in {folder} but it has {store.num_views}. Run "
            "`soft_labels` again: it adds what is missing."
        )
    of_classes = workspace.data.task.kind is TaskKind.CLASSIFICATION
    teacher, dataset = load_teacher(workspace), shown_dataset(workspace)
    error = check_replay(store, teacher, dataset, of_classes=of_classes)
    log.info(
        "soft labels verified: the teacher says the same again, within %.2g of their spread "
        "(limit %.2g)",
        error,
        TOLERANCE[store.precision],
    )
    return CachedTeacher(store)


def store_folder(workspace: Workspace) -> Path:
    """Where the store lies."""
    return Path(workspace.cfg.soft_labels.path).resolve()


def shown_dataset(workspace: Workspace) -> Any:
    """Make what is taught in all its views, as the student is shown it."""
    from distill.training.data.loading import BatchDataset

    cfg, data = workspace.cfg, workspace.data
    return BatchDataset(
        data.taught,
        instantiate(cfg.views),
        instantiate(cfg.mixing) or None,
        num_classes=len(data.classes),
    )


def stored_top_k(workspace: Workspace) -> int | None:
    """How many logits of each are kept; None for all."""
    from distill.training.soft_labels import default_top_k

    if workspace.data.task.kind is not TaskKind.CLASSIFICATION:
        return None
    return workspace.cfg.soft_labels.top_k or default_top_k(len(workspace.data.classes))


def store_recipe(workspace: Workspace, teacher: str, precision: str) -> "Recipe":
    """Say what this run's labels must be made from, with a teacher of this fingerprint."""
    from distill.training.soft_labels import Recipe
    from distill.training.views import VERSION

    cfg, data = workspace.cfg, workspace.data
    return Recipe(
        teacher=teacher,
        data=data.fingerprint,
        classes=data.classes,
        views=with_own_code({"views": plain(cfg.views), "mixing": plain(cfg.mixing)}),
        views_version=VERSION,
        num_samples=len(data.taught),
        top_k=stored_top_k(workspace),
        precision=precision,
    )
