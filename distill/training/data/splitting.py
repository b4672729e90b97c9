"""Which rows learn, which choose and which report: drawn at random, by group, or by time.

Positions in, positions out. Knows nothing of what the rows hold.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.training.data.splits import split_stratified

Positions = NDArray[np.int64]


def split_at_random(
    labels: NDArray[Any], fraction: float, seed: int
) -> tuple[Positions, Positions]:
    """Draw a fraction at random, of every class where there are any.

    Returns:
        The rest and the drawn, as sorted positions.
    """
    classes = labels if labels.dtype.kind in "iu" else np.zeros(len(labels), np.int64)
    return split_stratified(classes, fraction, seed)


def split_by_group(groups: NDArray[Any], fraction: float, seed: int) -> tuple[Positions, Positions]:
    """Draw whole groups at random until they hold a fraction of the rows.

    Rows of one group (a customer, a patient, a machine) are alike: in both parts, they would be
    recognised, not predicted.

    Raises:
        UserError: there are too few groups for that.
    """
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(counts))
    held = np.cumsum(counts[order])
    num_drawn = int(np.argmin(np.abs(held - fraction * len(groups)))) + 1
    if num_drawn == len(counts):
        raise UserError(
            f"Expected groups to draw {fraction:.0%} of {len(groups):,} rows from but found "
            f"{len(counts)}, the largest of {counts.max():,} rows. Name a finer `data.group`."
        )
    drawn = np.isin(group, order[:num_drawn])
    return np.flatnonzero(~drawn), np.flatnonzero(drawn)


def split_by_time(times: NDArray[np.int64], fraction: float) -> tuple[Positions, Positions]:
    """Split off the latest rows; rows of one moment stay together, and none is torn apart.

    Returns:
        The earlier and the later, each sorted by time.

    Raises:
        UserError: too many rows are of one moment.
    """
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    at = round(len(order) * (1 - fraction))
    at = int(np.searchsorted(ordered, ordered[min(at, len(order) - 1)], side="left"))
    if at == 0:
        raise UserError(
            f"Expected moments to split the latest {fraction:.0%} of {len(times):,} rows off but "
            "most are of one moment. Name a finer `data.time`, or split at random."
        )
    return order[:at], order[at:]


def shared_groups(
    trained: NDArray[Any], validating: NDArray[Any], tested: NDArray[Any]
) -> tuple[str, ...]:
    """Say how many groups are trained on, too, as a split by time or a test set of its own lets be.

    Args:
        trained: groups of the training rows, [N].
        validating: of the validation rows.
        tested: of the test rows.
    """
    counts = {}
    for name, groups in (("test", tested), ("validation", validating)):
        known = np.isin(np.unique(groups), trained)
        if known.any():
            counts[name] = f"{known.sum():,} of the {known.size:,} groups in the {name} set"
    if not counts:
        return ()
    return (
        f"{', and '.join(counts.values())} are trained on, too: how good the model is on new ones "
        "is not told. Without `data.time` and `data.test_path`, no group is in two splits.",
    )
