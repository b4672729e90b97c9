"""How precise a teacher is above which confidence, as far as an audit proves it.

Knows hits and confidences of audited rows alone; what was chosen is not for it to see.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from distill.errors import UsageError

GRID = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)  # fixed before any data is seen


@dataclass(frozen=True, kw_only=True)
class Level:
    """What the audit says of answers above one confidence.

    Attributes:
        threshold: of the confidence, inclusive.
        num_audited: rows above it whose truth is known.
        num_right: of them.
        lower_bound: of the precision.
        num_differing: of the audited rows, to which the model says something else.
        num_differing_right: of them, where the teacher is right.
        differing_lower_bound: of the precision where they differ, which is far lower: most rows are
            easy, and on those both are right.
    """

    threshold: float
    num_audited: int
    num_right: int
    lower_bound: float
    num_differing: int
    num_differing_right: int
    differing_lower_bound: float


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Above which confidence a teacher may label.

    Attributes:
        target: precision that is asked for.
        differing_target: likewise, where the model says something else.
        confidence: of all bounds together.
        levels: of the grid, in order.
        threshold: the smallest one whose lower bound reaches the target; None where none does, and
            then nothing is labelled.
    """

    target: float
    differing_target: float
    confidence: float
    levels: tuple[Level, ...]
    threshold: float | None

    @property
    def level(self) -> Level | None:
        """What is known above the threshold."""
        return next((own for own in self.levels if own.threshold == self.threshold), None)

    @property
    def may_teach(self) -> bool:
        """Whether the teacher's word is proven where it differs, too, and may be trained on."""
        own = self.level
        return own is not None and own.differing_lower_bound >= self.differing_target


def lower_bound(num_right: int, num_audited: int, *, confidence: float) -> float:
    """Clopper and Pearson's one-sided lower bound of a share; 0 of nothing.

    The alpha quantile of Beta(k, n - k + 1). Clopper, Pearson, "The use of confidence or fiducial
    limits illustrated in the case of the binomial", 1934.
    """
    if num_right == 0:
        return 0.0
    return float(special.betaincinv(num_right, num_audited - num_right + 1, 1 - confidence))


def prove(
    confidences: NDArray[np.floating],
    right: NDArray[np.bool_],
    differs: NDArray[np.bool_],
    *,
    target: float,
    differing_target: float = 0.5,
    confidence: float = 0.95,
    grid: Sequence[float] = GRID,
) -> Proof:
    """Find the smallest threshold above which the precision is proven.

    The levels share the error out among themselves (Bonferroni), so that looking at all of them and
    taking the best does not spoil what is claimed.

    Args:
        confidences: of the teacher in its answers to audited rows, [N] from 0 to 1.
        right: whether each answer is the truth, [N].
        differs: whether the model says something else, [N].
        target: precision that is asked for.
        differing_target: likewise where they differ; above a half, the teacher is right there more
            often than the model.
        confidence: that the precision is above the bound, of all levels together.
        grid: of thresholds; chosen before the data.

    Raises:
        UsageError: target or confidence are no such thing.
    """
    given = {"target": target, "differing_target": differing_target, "confidence": confidence}
    for name, value in given.items():
        if not 0 < value < 1:
            raise UsageError(f"Expected `{name}` between 0 and 1 but got {value}.")
    each = 1 - (1 - confidence) / len(grid)
    levels = []
    for threshold in sorted(grid):
        above = confidences >= threshold
        num_right, num_audited = int(right[above].sum()), int(above.sum())
        apart = above & differs
        num_differing_right, num_differing = int(right[apart].sum()), int(apart.sum())
        level = Level(
            threshold=threshold,
            num_audited=num_audited,
            num_right=num_right,
            lower_bound=lower_bound(num_right, num_audited, confidence=each),
            num_differing=num_differing,
            num_differing_right=num_differing_right,
            differing_lower_bound=lower_bound(num_differing_right, num_differing, confidence=each),
        )
        levels.append(level)
    reached = [own.threshold for own in levels if own.lower_bound >= target]
    return Proof(
        target=target,
        differing_target=differing_target,
        confidence=confidence,
        levels=tuple(levels),
        threshold=reached[0] if reached else None,
    )
