"""Teachers that no run of ours has trained: where the test set is drawn here, they may know it.

A run of ours draws the same test set again, and trains on none of it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.contract import CLASSES_KEY, HASH_KEY
from distill.tables.windows import Windows
from distill.tasks import TaskKind
from distill.verbs.learning.members import teacher_members
from distill.verbs.run.workspace import Workspace


def made_elsewhere(workspace: Workspace) -> list[str]:
    """Name the files that the teacher is read from and that say nothing of a run of ours."""
    members = teacher_members(workspace.cfg.teacher).values()
    own = [path for m in members if (path := m.get("checkpoint")) and not _is_a_runs(Path(path))]
    others = [path for m in members if (path := m.get("path")) and not _is_an_export(Path(path))]
    return [*map(str, own), *map(str, others)]


def warnings_about_test_set(
    workspace: Workspace, training: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Say where a teacher may have been trained on what tests it.

    Args:
        workspace: of the run.
        training: what teacher and soft labels have come to, where they are known.
    """
    data = workspace.data
    files = made_elsewhere(workspace) if data.test_is_drawn else []
    if not files:
        return ()
    if data.encoder is None:
        advice = "Lay images out as `root/train` and `root/test` (`data=image_folder`)"
    elif isinstance(data.encoder, Windows):
        advice = "Take data that go on after it was made"
    else:
        advice = "Name a table of its own as `data.test_path=`"
    return (
        f"Teacher may know the test set: {', '.join(files)} was made elsewhere and the test set is "
        "drawn here, so it may have been trained on what tests it, and then its figures, and its "
        f"student's, are too good. {_figures(workspace, training or {})}{advice}, to test on what "
        "it has not seen.",
    )


def _figures(workspace: Workspace, training: Mapping[str, Any]) -> str:
    """Say how good it is on training and on test samples: alike, if it was trained on either."""
    train = training.get("soft_labels", {}).get("agreement_as_they_are")
    test = training.get("teacher", {}).get("test_at_best_epoch")
    of_classes = workspace.data.task.kind is TaskKind.CLASSIFICATION
    if train is None or test is None or not of_classes:
        return ""
    return (
        f"It is right on {100 * train:.1f} % of training and on "
        f"{100 * test['accuracy']['estimate']:.1f} % of test samples. "
    )


def _is_a_runs(checkpoint: Path) -> bool:
    """Tell whether a run has kept these weights: it names their classes."""
    from distill.training.fit import load_weights

    return "classes" in load_weights(checkpoint)


def _is_an_export(path: Path) -> bool:
    """Tell whether a run has exported this file: it carries its classes, or its contract's hash."""
    if path.suffix != ".onnx":
        return False
    import onnx

    properties = onnx.load(path, load_external_data=False).metadata_props
    return not {CLASSES_KEY, HASH_KEY}.isdisjoint(entry.key for entry in properties)
