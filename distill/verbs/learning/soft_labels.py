"""The teacher's answers as stages: for every sample and view, or to what production asked."""

import logging
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray

from distill.production.teacher_answers import TeacherAnswers, read_answers
from distill.run_folder import run_folder_lock
from distill.tasks import TaskKind
from distill.verbs.learning.members import TEACHER_FACTS, fingerprint_of, load_teacher
from distill.verbs.learning.store import (
    num_views,
    shown_dataset,
    store_folder,
    store_recipe,
    stored_top_k,
)
from distill.verbs.learning.teacher import teacher_stage
from distill.verbs.learning.teacher_agreement import agreement_with_labels, ask_as_they_are
from distill.verbs.run.ranks import agree
from distill.verbs.run.workspace import Workspace, is_terminal, plain

log = logging.getLogger(__name__)

ANSWERS = "teacher_answers.npz"


def logged_stage(workspace: Workspace, ids: NDArray[np.str_]) -> dict[str, Any]:
    """Answer what production asked and was not answered before; `monitor` reads the file."""
    from distill.training.data.loading import BatchDataset
    from distill.training.labelling import answer

    data = workspace.data
    teacher_stage(workspace)
    teacher = load_teacher(workspace)
    fingerprint = fingerprint_of(workspace, teacher)
    path = workspace.run_dir / ANSWERS
    known = read_answers(path) if path.is_file() else None
    if known is not None and known.model_sha256 != fingerprint:
        known = None  # another teacher's opinion
    new = np.flatnonzero(known.places(ids) < 0) if known else np.arange(len(ids))
    if len(new):
        assert data.unlabelled is not None
        rows = len(data.unlabelled) - len(ids) + new
        answers = TeacherAnswers(
            ids=ids[new],
            logits=answer(teacher.folded(), BatchDataset(data.unlabelled), 0, rows),
            model_sha256=fingerprint,
            classes=data.classes,
        )
        known = answers if known is None else known.joined(answers)
        known.write(path)
    assert known is not None
    log.info("%d new answers of %d: `teacher.path=%s`", len(new), len(known.ids), path)
    return {
        "path": str(path),
        "num_answers": len(known.ids),
        "num_new": len(new),
        "num_classes": known.num_classes,
        "teacher": fingerprint,
    }


def soft_labels_stage(workspace: Workspace) -> dict[str, Any]:
    """Build the store, or what it still lacks.

    A store inside the run folder belongs to the run and is made anew when what it depends on has
    changed; one elsewhere is never overwritten.
    """
    from distill.training.soft_labels import MANIFEST, file_names
    from distill.training.views import VERSION

    cfg, folder = workspace.cfg.soft_labels, store_folder(workspace)
    own = folder.is_relative_to(workspace.run_dir)
    values = {
        "data": workspace.data.fingerprint,
        "views": [plain(workspace.cfg.views), VERSION],
        "mixing": plain(workspace.cfg.mixing),
        "soft_labels": {name: value for name, value in plain(cfg).items() if name != "path"},
    }
    names = [MANIFEST, *file_names(num_views(workspace), stored_top_k(workspace))]
    # A file that is gone or has changed makes the stage run again: it mends it, or says so.
    outputs = tuple(str(folder / name) for name in names)
    return workspace.stage(
        "soft_labels",
        lambda: _build(workspace, folder, own),
        values=values,
        inputs=(workspace.run_dir / TEACHER_FACTS,),
        outputs=outputs,
        together=True,
    )


def _build(workspace: Workspace, folder: Path, own: bool) -> dict[str, Any]:
    from distill.training.labelling import choose_precision, label
    from distill.training.soft_label_writer import StoreWriter
    from distill.training.soft_labels import SoftLabelStore, stored_precision

    start = time.monotonic()
    cfg, teacher = workspace.cfg, load_teacher(workspace)
    dataset, fingerprint = shown_dataset(workspace), fingerprint_of(workspace, teacher)
    asked = ask_as_they_are(workspace, teacher) if workspace.leads else None
    precision = cfg.soft_labels.precision
    if precision == "auto":
        if workspace.leads:
            stored = stored_precision(folder, store_recipe(workspace, fingerprint, precision))
            of_classes = workspace.data.task.kind is TaskKind.CLASSIFICATION
            chosen = choose_precision if of_classes else lambda *_: "float32"  # too coarse
            precision = stored or chosen(teacher.folded(), dataset)
        precision = agree(precision)
    recipe = store_recipe(workspace, fingerprint, precision)
    writer = StoreWriter(
        folder, recipe, workspace.data.taught.indices, num_views(workspace), replace=own
    )
    num_blocks = 0
    if not agree(writer.is_finished()):
        with run_folder_lock(folder) if workspace.leads else nullcontext():
            if workspace.leads:
                writer.prepare()
            missing = agree(writer.missing_blocks())
            num_blocks = len(missing)
            label(
                teacher.folded(),
                dataset,
                writer,
                instantiate(cfg.teacher_training.trainer),
                missing=missing,
                batch_size=cfg.soft_labels.batch_size,
                show_bar=is_terminal() and workspace.leads,
            )
            agree(None)  # all blocks are written
            if workspace.leads:
                writer.finish()
    if not workspace.leads:
        return {}
    store = SoftLabelStore(folder, recipe)
    seconds = time.monotonic() - start
    return {
        "path": str(folder),
        "num_samples": recipe.num_samples,
        "num_views": num_views(workspace),
        "num_views_stored": store.num_views,
        "agreement_with_labels": agreement_with_labels(workspace, store, asked),
        "agreement_as_they_are": None if asked is None else float(asked.right.mean()),
        "num_classes": len(store.classes),
        "top_k": store.top_k,
        "teacher_precision": precision,
        "size_bytes": store.size_bytes,
        "num_blocks_labelled": num_blocks,
        "seconds": seconds,
    }
