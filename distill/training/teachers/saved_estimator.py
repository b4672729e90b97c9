"""An estimator that somebody else has fitted, as teacher of the data at hand.

What it was fitted on decides what it is given: columns by name where it knows their names, else
what the student sees. Knows nothing of files, nor of what it answers.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from distill.errors import UserError
from distill.tasks import TaskKind
from distill.training.data.frames import Frames
from distill.training.data.splits import Data
from distill.training.data.tables import TableData
from distill.training.teachers.estimator import Ask, SklearnTeacher, class_names

log = logging.getLogger(__name__)


def saved_estimator(
    estimator: Any, data: Data, path: str, classes: Sequence[str] | None
) -> SklearnTeacher:
    """Make a teacher of a fitted estimator.

    Args:
        estimator: of classes, labels or numbers.
        data: that it is asked about.
        path: for messages.
        classes: in the order of its class numbers; None takes the names that it was fitted on.

    Raises:
        UserError: it wants columns that the data lacks, or is of another kind or other classes.
    """
    if classes is None and data.task.kind is TaskKind.CLASSIFICATION:
        classes = _names_of_classes(estimator, data.classes)
    _remark(path)
    rows = _raw_rows(estimator, data, path) if isinstance(data, TableData) else None
    return SklearnTeacher(estimator, classes or data.classes, data.task.kind, rows)


@cache
def _remark(path: str) -> None:
    """Say once what nobody knows: a run opens its teacher several times."""
    log.info(
        "%s may have been fitted on rows of this data, test rows among them: nobody knows, so none "
        "are answered out of fold, and its figures may flatter it",
        path,
    )


def _names_of_classes(estimator: Any, classes: Sequence[str]) -> Sequence[str] | None:
    """Take what an estimator was fitted on for names, unless it is whole numbers of other names."""
    own = class_names(estimator)
    if own is None or np.asarray(estimator.classes_).dtype.kind not in "iu":
        return own
    by_name = set(own) <= set(classes) or set(classes) <= set(own)
    return own if by_name else None


def _raw_rows(estimator: Any, data: TableData, path: str) -> Ask | None:
    """Find raw rows for an estimator that knows its columns by name; None where it does not."""
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    if not names:
        log.warning(
            "%s was fitted without names of columns, and is given encoded rows, as a network "
            "learns them; fitted on a pandas DataFrame it is given raw ones",
            path,
        )
        return None
    assert data.encoder is not None
    known = {column.name for column in data.encoder.takes}
    frames = Frames(data, [name for name in names if name in known])
    missing = [name for name in names if name not in known]
    try:
        estimator.predict(frames(data.train.indices[:1]))
    except (ValueError, TypeError, KeyError) as error:
        lacking = [f"`{name}` ({data.left_out.get(name, 'no input')})" for name in missing]
        raise UserError(
            f"Expected {path} to answer raw rows of {data.name} but it refuses: "
            f"{str(error).splitlines()[0]} "
            + (f"The data does not have {', '.join(lacking[:5])}. " if lacking else "")
            + f"It has {', '.join(sorted(known))}. Fit it on those, or have the data take what it "
            "wants (`data.columns`, `data.unavailable`, `+data.kinds.NAME=category`)."
        ) from error
    if missing:
        log.info("%s does not use %s, which are no inputs here", path, ", ".join(missing))
    return frames
