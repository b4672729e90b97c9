"""The teacher as labeller: which predictions need nobody, the teacher, or a person.

Knows logits and what an audit has proven; knows nothing of where they come from.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from distill.errors import UsageError
from distill.statistics.metrics import log_softmax


class Tier(StrEnum):
    """What becomes of a prediction.

    - `agree`: the teacher is confident and says the same; no label is needed;
    - `soft_label`: it is confident and says otherwise; its answer goes to distillation as it is;
    - `unsure`: a person says.
    """

    AGREE = "agree"
    SOFT_LABEL = "soft_label"
    UNSURE = "unsure"


def confidences(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probability of the answered class, [N]; NaN where there is no answer."""
    known = np.isfinite(logits).all(axis=1)
    found = np.full(len(logits), np.nan)
    if known.any():
        found[known] = np.exp(log_softmax(logits[known]).max(axis=1))
    return found


def tiers(
    teacher_logits: NDArray[np.floating],
    labels: NDArray[np.int64],
    *,
    threshold: float | None,
    may_teach: bool = True,
) -> list[Tier]:
    """Say what becomes of each prediction.

    Args:
        teacher_logits: [N, C]; NaN where there is no answer.
        labels: that the model gave, [N].
        threshold: of the teacher's confidence; None where nothing is proven, and then people say.
        may_teach: whether it is proven where it differs, too; else people say there.
    """
    if threshold is None:
        return [Tier.UNSURE] * len(labels)
    sure = confidences(teacher_logits) >= threshold
    same = np.nan_to_num(teacher_logits, nan=-np.inf).argmax(axis=1) == labels
    apart = Tier.SOFT_LABEL if may_teach else Tier.UNSURE
    return [
        Tier.UNSURE if not s else Tier.AGREE if a else apart
        for s, a in zip(sure, same, strict=True)
    ]


def capped(
    teacher_confidences: NDArray[np.floating], num_others: int, share: float
) -> NDArray[np.int64]:
    """Choose which of a teacher's labels are taken: the surest, so many that people keep the rest.

    Args:
        teacher_confidences: [K].
        num_others: labels of people and of the truth beside them.
        share: that the teacher's may have of all labels, from 0 to below 1.

    Returns:
        Places, in the order given.

    Raises:
        UsageError: the share is none.
    """
    if not 0 <= share < 1:
        raise UsageError(
            f"Expected `max_teacher_share` from 0 to below 1 but got {share}. A student that is "
            "taught by the teacher alone has nobody to correct what the teacher gets wrong."
        )
    room = int(np.floor(num_others * share / (1 - share) + 1e-9))
    surest = np.argsort(-np.asarray(teacher_confidences), kind="stable")[:room]
    return np.sort(surest)


def counted(found: Sequence[Tier]) -> dict[str, int]:
    """How many predictions are in each tier."""
    return {tier.value: sum(own is tier for own in found) for tier in Tier}
