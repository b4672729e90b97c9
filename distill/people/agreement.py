"""How far people agree: votes and kappas in NumPy.

Works on counts by sample and class and on single answers; knows nothing of files, of truths or of
models.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]  # [n, C]: how many people said what of each sample
Sums = Callable[[NDArray[Any]], NDArray[Any]]  # adds up rows that are weighed as one, [n, ...]


def majority_vote(counts: Counts, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Take the class that most people say, [n], and tell where several have as many, [n].

    A tie is broken at random among those that tie, so that no class is favoured; the same seed
    breaks it alike.
    """
    most = counts == counts.max(axis=1, keepdims=True)
    chance = np.random.default_rng(seed).random(counts.shape)
    return np.where(most, chance, -1.0).argmax(axis=1), most.sum(axis=1) > 1


def cohen_kappa(first: NDArray[np.int64], second: NDArray[np.int64], num_classes: int) -> float:
    """Agreement of two people beyond chance, (p_o - p_e) / (1 - p_e).

    Cohen, "A coefficient of agreement for nominal scales", 1960. NaN where both always give one
    and the same class.

    Args:
        first: class numbers, [n].
        second: the other's, [n].
        num_classes: C.
    """
    return float(cohen_by_weight(first, second, num_classes)(np.ones((1, len(first))))[0])


def fleiss_kappa(counts: Counts) -> float:
    """Agreement of many people beyond chance, each sample by any number of them.

    Fleiss, "Measuring nominal scale agreement among many raters", 1971; for unequal numbers of
    raters as in Gwet, "Handbook of Inter-Rater Reliability", 2014: agreement is the mean over the
    samples with two answers or more, a class's share the mean of its shares over all samples. With
    equal numbers it is Fleiss' own. NaN where all say one class.
    """
    return float(fleiss_by_weight(counts)(np.ones((1, len(counts))))[0])


def cohen_by_weight(
    first: NDArray[np.int64], second: NDArray[np.int64], num_classes: int, sums: Sums = np.asarray
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Cohen's kappa of two people as a function of weights of the samples' sums, [B, n] to [B]."""
    one, other = sums(np.eye(num_classes)[first]), sums(np.eye(num_classes)[second])  # [n, C]
    same, sizes = sums((first == second).astype(float)), sums(np.ones(len(first)))

    def kappa(weights: NDArray[Any]) -> NDArray[Any]:
        total = weights @ sizes
        by_chance = ((weights @ one) * (weights @ other)).sum(axis=1) / total**2
        return _beyond(weights @ same / total, by_chance)

    return kappa


def fleiss_by_weight(
    counts: Counts, sums: Sums = np.asarray
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Fleiss' kappa as a function of weights of the samples' sums, [B, n] to [B]."""
    raters = counts.sum(axis=1)
    several = sums((raters > 1).astype(float))
    pairs = np.maximum(raters * (raters - 1), 1)
    agreement = sums((counts * (counts - 1)).sum(axis=1) / pairs)  # [n]
    shares, sizes = sums(counts / raters[:, None]), sums(np.ones((len(counts), 1)))

    def kappa(weights: NDArray[Any]) -> NDArray[Any]:
        classes = weights @ shares / (weights @ sizes)
        with np.errstate(invalid="ignore"):
            observed = weights @ agreement / (weights @ several)
        return _beyond(observed, (classes**2).sum(axis=1))

    return kappa


def _beyond(observed: NDArray[Any], by_chance: NDArray[Any]) -> NDArray[Any]:
    nothing = np.full(observed.shape, np.nan)
    certain = by_chance > 1 - 1e-12  # one class alone: agreement says nothing
    return np.divide(observed - by_chance, 1 - by_chance, out=nothing, where=~certain)
