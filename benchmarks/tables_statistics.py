"""Intervals over the folds of a repeated cross-validation, whose trainings share most rows."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def difference(first: Sequence[float], second: Sequence[float], num_folds: int) -> dict:
    """First minus second, paired by fold, over all folds of all repetitions.

    The folds' variance is counted 1 / n + 1 / (num_folds - 1) times, not 1 / n: Nadeau & Bengio,
    "Inference for the Generalization Error", 2003, for repeated folds as Bouckaert & Frank,
    "Evaluating the Replicability of Significance Tests for Comparing Learning Algorithms", 2004.

    Args:
        first: a figure of each fold, [n].
        second: likewise, of the same folds.
        num_folds: of one repetition.

    Returns:
        The mean, its 95 % interval by Student's t with n - 1 degrees of freedom, and the p-value.
    """
    differences = np.subtract(first, second)
    return _interval(float(differences.mean()), differences, num_folds, no_difference=0.0)


def ratio(first: Sequence[float], second: Sequence[float], num_folds: int) -> dict:
    """Mean of the first over mean of the second, likewise; by the delta method."""
    first, second = np.asarray(first), np.asarray(second)
    estimate = float(first.mean() / second.mean())
    return _interval(estimate, (first - estimate * second) / second.mean(), num_folds, 1.0)


def _interval(estimate: float, spread: np.ndarray, num_folds: int, no_difference: float) -> dict:
    count = len(spread)
    error = float(np.sqrt((1 / count + 1 / (num_folds - 1)) * spread.var(ddof=1)))
    half = float(stats.t.ppf(0.975, count - 1)) * error
    away = estimate - no_difference
    p_value = float(2 * stats.t.sf(abs(away) / error, count - 1)) if error else float(not away)
    return {
        "estimate": estimate,
        "interval": [estimate - half, estimate + half],
        "p_value": p_value,
        "num_folds": count,
    }
