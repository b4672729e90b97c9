"""How often rows of each class are shown in training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UsageError
from distill.tasks import Task, TaskKind


def class_weights(
    task: Task, labels: NDArray[Any], wanted: str | Mapping[str, float] | None
) -> NDArray[np.float64] | None:
    """Weigh training rows by their class, mean 1.

    Raises:
        UsageError: there are no classes, or the weights are not one above 0 for each.
    """
    if wanted is None:
        return None
    if task.kind is not TaskKind.CLASSIFICATION:
        raise UsageError("Expected classes for `data.class_weights` but the task has none.")
    counts = np.bincount(labels, minlength=len(task.outputs))
    if wanted == "balanced":
        by_class = 1 / np.maximum(counts, 1)
    else:
        named = {str(k): v for k, v in wanted.items()} if isinstance(wanted, Mapping) else {}
        usable = all(isinstance(v, int | float) and 0 < v < np.inf for v in named.values())
        if set(named) != set(task.outputs) or not usable:
            raise UsageError(
                "Expected `data.class_weights` to be balanced, or a number above 0 for each of "
                f"{', '.join(task.outputs[:10])}, but got {wanted}."
            )
        by_class = np.array([named[name] for name in task.outputs])
    weights = by_class[labels]
    return weights / weights.mean()
