"""Answers that come from outside torch: checked, and probabilities made logits.

Knows nothing of where they come from.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.tasks import TaskKind

SMALLEST = float(np.finfo(np.float32).tiny)  # what a float32 softmax gives is 0 or above this
ROUNDING = 0.01  # of the sum of a row of probabilities, as a file of few digits has it


def to_outputs(
    values: NDArray[np.floating],
    index: NDArray[np.int64],
    where: str,
    *,
    kind: TaskKind,
    outputs_probabilities: bool | None,
    floor: float = SMALLEST,
) -> NDArray[np.float32]:
    """Check a teacher's answers and return them as logits, float32; numbers as they are.

    Probabilities p of classes become log max(p, floor); of several labels
    log p - log(1 - p), where neither counts below the floor, nor below the precision of the values.

    Args:
        values: [B, C].
        index: of the samples, [B], for messages.
        where: who says so, for messages.
        kind: of answers.
        outputs_probabilities: whether the values are probabilities, not logits; None where nobody
            says so: they are taken for logits, unless all rows of classes are distributions.
        floor: the smallest probability that counts; 0 has no finite logit.

    Raises:
        UserError: a value is NaN or infinite, a row is no distribution as it should be, or all
            rows are and nobody says which they are.
    """
    if outputs_probabilities and kind is TaskKind.REGRESSION:
        raise UserError(
            f"Expected numbers from {where}, not probabilities. Set "
            "`teacher.outputs_probabilities=false`."
        )
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)  # what is beyond it is infinite, and float16 lacks floor
    _check_finite(narrow, index, where)
    if outputs_probabilities is None and kind is TaskKind.CLASSIFICATION:
        _check_logits(narrow, where)
    if not outputs_probabilities:
        return narrow
    if kind is TaskKind.MULTI_LABEL:
        return _label_logits(values, index, where, floor)
    _check_probabilities(narrow, _off(narrow), index, f"probabilities that sum to 1 from {where}")
    return np.log(np.maximum(narrow, np.float32(floor)))


def check_width(width: int, classes: Sequence[str] | None, where: str) -> None:
    """Refuse answers for another number of classes than there are names.

    Raises:
        UserError: the two differ.
    """
    if classes is not None and width != len(classes):
        raise UserError(
            f"Expected {where} to answer for {len(classes)} classes but it answers for {width}. "
            "Name its classes in the order of its outputs (`teacher.classes=[...]`); with "
            f"`teacher.drop_classes=true` it may know more than the data.{quantile_hint(classes)}"
        )


def quantile_hint(names: Sequence[str]) -> str:
    """Say what to do where outputs of these names are asked for, and are quantiles."""
    if not any("[q0." in name for name in names):
        return ""
    return (
        " A teacher of numbers alone knows no quantiles: use `teacher=sklearn_quantiles`, or a "
        "network trained in the run, or set `data.quantiles=null`."
    )


def _label_logits(
    values: NDArray[np.floating], index: NDArray[np.int64], where: str, floor: float
) -> NDArray[np.float32]:
    off = (values > 1 + ROUNDING).any(axis=1)
    _check_probabilities(values, off, index, f"probabilities from 0 to 1 from {where}")
    precision = np.finfo(values.dtype).epsneg if values.dtype.kind == "f" else 0
    least, wide = max(floor, float(precision)), values.astype(np.float64)
    logits = np.log(np.maximum(wide, least)) - np.log(np.maximum(1 - wide, least))
    return logits.astype(np.float32)


def _off(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell of each row whether it does not sum to 1."""
    return np.abs(values.sum(axis=1, dtype=np.float64) - 1) > ROUNDING


def _check_logits(values: NDArray[np.floating], where: str) -> None:
    """Refuse what would pass for probabilities, too: one row may by chance, several do not."""
    if len(values) < 2 or (values < 0).any() or _off(values).any():
        return
    raise UserError(
        f"Expected logits from {where} but these look like probabilities: all {len(values)} rows "
        "are 0 or more and sum to 1. Set `teacher.outputs_probabilities=true`, or `false` if they "
        "are logits."
    )


def _check_finite(values: NDArray[np.floating], index: NDArray[np.int64], where: str) -> None:
    unusable = ~np.isfinite(values).all(axis=1)
    if unusable.any():
        raise UserError(
            f"Expected finite numbers from {where} but {unusable.sum()} of {len(values)} samples "
            f"have NaN, an infinite or an empty value, such as index {index[unusable][0]}. Mend "
            "them, or leave those samples out."
        )


def _check_probabilities(
    values: NDArray[np.floating], off: Any, index: NDArray[np.int64], expected: str
) -> None:
    off = off | (values < 0).any(axis=1)
    if off.any():
        first = np.flatnonzero(off)[0]
        raise UserError(
            f"Expected {expected} but those of index {index[first]} "
            f"are {np.round(values[first][:5], 4).tolist()}{'...' * (values.shape[1] > 5)}. If "
            "they are logits, say so (`teacher.outputs_probabilities=false`, or a column `logits`)."
        )
