"""The queue to Label Studio, and its answers back into the log.

Knows the log and the format of neither side's files.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.errors import UserError
from distill.files import write_text
from distill.people.annotating import label_studio_config
from distill.production.feedback.label_studio import read_annotations, task_of
from distill.production.feedback.model import Model
from distill.production.prediction_log.annotations import UnknownItemError, answer
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.queue import reviewed


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What went out.

    Attributes:
        tasks: file of the tasks.
        config: file of the labelling configuration.
        num_tasks: open items that are in it.
        num_without_input: open items that nobody can be shown.
    """

    tasks: Path
    config: Path
    num_tasks: int
    num_without_input: int


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What came in.

    Attributes:
        num_tasks: in the files.
        num_annotations: labels in them.
        num_new: that the log did not have.
        num_cancelled: answers that were skipped or are empty.
        num_gone: labels of predictions that are not in the queue, or no longer.
        settled: items that people agree on now, of those in the files.
        adjudicate: items on which people, or one of them and the teacher, differ.
    """

    num_tasks: int
    num_annotations: int
    num_new: int
    num_cancelled: int
    num_gone: int
    settled: int
    adjudicate: int


def export_tasks(engine: Engine, model: Model, folder: Path) -> Exported:
    """Write all open items as tasks, the most urgent first.

    Raises:
        UserError: there is none, or a logged input cannot be shown.
        LogUnavailableError: the database cannot be read now.
    """
    rows = reviewed(engine, model.classes_sha256)
    open_rows = [r for r in rows if r.item.label is None and r.truth is None]
    shown = [row for row in open_rows if row.prediction.input is not None]
    if not shown:
        hidden = f"; {len(open_rows):,} wait whose input was not kept" if open_rows else ""
        raise UserError(
            f"Expected open items in the queue but there is none{hidden}. Choose some: `feedback "
            "select`; inputs are kept with `log.inputs=keep`."
        )
    shown.sort(key=lambda row: (row.item.num_extra == 0, -row.item.priority))
    tasks = [task_of(row, model.classes, model.columns) for row in shown]
    files = folder / "tasks.json", folder / "config.xml"
    write_text(files[0], json.dumps(tasks))
    write_text(files[1], label_studio_config(model.classes, is_table=model.columns is not None))
    return Exported(
        tasks=files[0],
        config=files[1],
        num_tasks=len(tasks),
        num_without_input=len(open_rows) - len(shown),
    )


def import_files(engine: Engine, model: Model, paths: Sequence[Path]) -> Imported:
    """Take what people said; all files are read before anything is kept, and may be read again.

    A later answer of the same person takes the place of an earlier one.

    Raises:
        UserError: a file is missing, damaged or says what is no class, or names no item at all.
        LogUnavailableError: the database cannot be written now.
    """
    if not paths:
        raise UserError("Expected files of Label Studio's answers. Name them: `files=[a.json]`.")
    read = [read_annotations(path, model.classes) for path in paths]
    given = [own for one in read for own in one.annotations]
    ours = {row.item.prediction for row in reviewed(engine, model.classes_sha256, inputs=False)}
    num_new = num_gone = 0
    items = {}
    for own in given:
        if own.prediction not in ours:  # labels count through other classes there
            num_gone += 1
            continue
        try:
            done = answer(engine, own, replace=True)
        except UnknownItemError:  # it went for its age in this moment
            num_gone += 1
            continue
        num_new += done.is_new
        items[own.prediction] = done.item
    if given and num_gone == len(given):
        raise UserError(
            f"Expected answers to items of the queue but none of {len(given):,} is of one "
            "with these classes. Import into the log that the tasks were exported from: `log.url=`."
        )
    return Imported(
        num_tasks=sum(one.num_tasks for one in read),
        num_annotations=len(given),
        num_new=num_new,
        num_cancelled=sum(one.num_cancelled for one in read),
        num_gone=num_gone,
        settled=sum(item.label is not None for item in items.values()),
        adjudicate=sum(item.num_extra > 0 and item.label is None for item in items.values()),
    )
