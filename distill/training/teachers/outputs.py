"""Answers that come from outside torch: checked, and probabilities made logits.

Knows nothing of where they come from.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError

SMALLEST = float(np.finfo(np.float32).tiny)  # what a float32 softmax gives is 0 or above this
ROUNDING = 0.01  # of the sum of a row of probabilities, as a file of few digits has it


def to_logits(
    values: NDArray[np.floating],
    index: NDArray[np.int64],
    where: str,
    *,
    outputs_probabilities: bool,
    floor: float = SMALLEST,
) -> NDArray[np.float32]:
    """Check a teacher's answers and return them as logits, float32.

    Probabilities p become log max(p, floor).

    Args:
        values: [B, C].
        index: of the samples, [B], for messages.
        where: who says so, for messages.
        outputs_probabilities: whether the values are probabilities, not logits.
        floor: the smallest probability that counts; 0 has no finite logit.

    Raises:
        UserError: a value is NaN or infinite, or a row is no distribution as it should be.
    """
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)  # what is beyond it is infinite, and float16 lacks floor
    unusable = ~np.isfinite(values).all(axis=1)
    if unusable.any():
        raise UserError(
            f"Expected finite numbers from {where} but {unusable.sum()} of {len(values)} samples "
            f"have NaN, an infinite or an empty value, such as index {index[unusable][0]}. Mend "
            "them, or leave those samples out."
        )
    if not outputs_probabilities:
        return values
    off = (values < 0).any(axis=1) | (np.abs(values.sum(axis=1, dtype=np.float64) - 1) > ROUNDING)
    if off.any():
        first = np.flatnonzero(off)[0]
        raise UserError(
            f"Expected probabilities that sum to 1 from {where} but those of index {index[first]} "
            f"are {np.round(values[first][:5], 4).tolist()}{'...' * (values.shape[1] > 5)}. If "
            "they are logits, say so (`teacher.outputs_probabilities=false`, or a column `logits`)."
        )
    return np.log(np.maximum(values, np.float32(floor)))


def check_width(width: int, classes: Sequence[str] | None, where: str) -> None:
    """Refuse answers for another number of classes than there are names.

    Raises:
        UserError: the two differ.
    """
    if classes is not None and width != len(classes):
        raise UserError(
            f"Expected {where} to answer for {len(classes)} classes but it answers for {width}. "
            "Name its classes in the order of its outputs (`teacher.classes=[...]`); with "
            "`teacher.drop_classes=true` it may know more than the data."
        )
