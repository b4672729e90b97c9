"""Are these rows from the world that the reference is from?

Distances between what was and what is, each with the chance to be as large by luck alone, found by
shuffling; of many at once, those that stand out are told at a bounded rate of false ones. "Drift"
means that inputs have changed, not that answers are worse. Knows arrays and counts alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Counts = NDArray[np.int64]  # [K], by bin or category
Points = NDArray[np.floating]  # [n, D]

NUM_SHUFFLES = 999
MAX_POINTS = 500  # of each side, between which all distances are taken
_SMALL = 1e-4  # stands for an empty bin


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far one thing is from what it was.

    Attributes:
        name: of the thing.
        statistic: psi, ks, mmd or classifier: what the distance is.
        distance: in its own units.
        p_value: the chance of as large a distance in an unchanged world, or of a larger.
    """

    name: str
    statistic: str
    distance: float
    p_value: float


def population_stability(reference: Counts, now: Counts) -> NDArray[np.float64]:
    """PSI between counts by bin, [..., K] each: sum of (q - p) ln(q / p).

    Siddiqi, "Credit risk scorecards", 2006. The customary 0.1 and 0.25 are for no sample size in
    particular: 100 rows in 10 bins are above 0.1 in two of five unchanged worlds.
    """
    p, q = (np.maximum(c / c.sum(axis=-1, keepdims=True), _SMALL) for c in (reference, now))
    return ((q - p) * np.log(q / p)).sum(axis=-1)


def kolmogorov_smirnov(reference: Counts, now: Counts) -> NDArray[np.float64]:
    """Largest distance between the distribution functions of binned numbers, [..., K] each."""
    p, q = (c.cumsum(axis=-1) / c.sum(axis=-1, keepdims=True) for c in (reference, now))
    return np.abs(p - q).max(axis=-1)


DISTANCES = {"psi": population_stability, "ks": kolmogorov_smirnov}


def of_counts(
    name: str,
    reference: Counts,
    now: Counts,
    *,
    statistic: str,
    rng: np.random.Generator,
    num_shuffles: int = NUM_SHUFFLES,
) -> Drift:
    """Compare counts; shuffling rows between both sides is drawing without putting back.

    Args:
        name: of what is counted.
        reference: by bin or category, [K].
        now: likewise, [K].
        statistic: `psi` of categories, `ks` of bins in order.
        rng: shuffles.
        num_shuffles: bounds the p-value from below.
    """
    distance = DISTANCES[statistic]
    found = float(distance(reference, now))
    pooled = reference + now
    drawn = rng.multivariate_hypergeometric(pooled, int(now.sum()), num_shuffles, "marginals")
    by_luck = distance(pooled - drawn, drawn)
    return Drift(name=name, statistic=statistic, distance=found, p_value=_share(by_luck, found))


def of_points(
    name: str,
    reference: Points,
    now: Points,
    *,
    rng: np.random.Generator,
    num_shuffles: int = NUM_SHUFFLES,
) -> Drift:
    """Compare clouds of points: maximum mean discrepancy.

    A Gaussian kernel as wide as the median distance, and the unbiased estimate of the square:
    Gretton et al., "A kernel two-sample test", 2012.

    Args:
        name: of the space.
        reference: [N, D].
        now: [n, D].
        rng: draws at most `MAX_POINTS` of each, and shuffles.
        num_shuffles: bounds the p-value from below.
    """
    first, second = (_some(points, rng) for points in (reference, now))
    both = np.concatenate([first, second]).astype(np.float64)
    squares = (both**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares[None] - 2 * both @ both.T, 0)
    width = float(np.median(apart[np.triu_indices(len(both), 1)])) or 1.0
    kernel = np.exp(-apart / width)
    np.fill_diagonal(kernel, 0)
    side = np.zeros((num_shuffles + 1, len(both)))
    side[0, : len(first)] = 1
    side[1:] = rng.permuted(np.tile(side[0], (num_shuffles, 1)), axis=1)
    m, n = len(first), len(second)
    sums = side @ kernel
    within = (sums * side).sum(axis=1)
    across = sums.sum(axis=1) - within
    other = kernel.sum() - within - 2 * across
    found = within / (m * (m - 1)) + other / (n * (n - 1)) - 2 * across / (m * n)
    return Drift(
        name=name,
        statistic="mmd",
        distance=float(found[0]),
        p_value=_share(found[1:], float(found[0])),
    )


def by_classifier(
    name: str,
    reference: Points,
    now: Points,
    *,
    rng: np.random.Generator,
    num_shuffles: int = NUM_SHUFFLES,
) -> Drift:
    """Compare clouds of points: how well a linear classifier tells them apart.

    The area under its ROC curve on rows that it has not seen (two folds, ridge regression on the
    side). It is fitted anew for every shuffle: shuffling its answers alone would forget that the
    folds teach each other, and call an unchanged world changed twice as often as stated. Lopez-Paz
    & Oquab, "Revisiting classifier two-sample tests", 2017.

    Args:
        name: of the space.
        reference: [N, D].
        now: [n, D].
        rng: draws at most `MAX_POINTS` of each, and shuffles.
        num_shuffles: bounds the p-value from below.
    """
    first, second = (_some(points, rng) for points in (reference, now))
    both = np.concatenate([first, second]).astype(np.float64)
    spread = both.std(axis=0)
    both = (both - both.mean(axis=0)) / np.where(spread > 0, spread, 1)
    sides = np.tile(np.repeat([0.0, 1.0], [len(first), len(second)]), (num_shuffles + 1, 1))
    sides[1:] = rng.permuted(sides[1:], axis=1)
    halves = np.array_split(rng.permutation(len(both)), 2)
    areas = np.zeros(num_shuffles + 1)
    for seen, asked in (halves, halves[::-1]):
        known = sides[:, seen]
        scores = (known - known.mean(axis=1, keepdims=True)) @ _ridge(both[seen], both[asked])
        areas += _areas(scores, sides[:, asked]) / 2
    found = float(areas[0])
    return Drift(
        name=name, statistic="classifier", distance=found, p_value=_share(areas[1:], found)
    )


def discoveries(p_values: Mapping[str, float], rate: float) -> set[str]:
    """Tell which stand out, so that of those told at most `rate` are false on average.

    Where nothing has changed at all, anything is told in at most `rate` of all cases. Benjamini &
    Hochberg, "Controlling the false discovery rate", 1995.

    Args:
        p_values: by name.
        rate: of false discoveries.
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    last = 0
    for place, name in enumerate(ordered, 1):
        if p_values[name] <= rate * place / len(ordered):
            last = place
    return set(ordered[:last])


def _share(by_luck: NDArray[np.float64], found: float) -> float:
    """A p-value that is never 0: the found one is among those that luck could give."""
    return float((1 + (by_luck >= found - 1e-12).sum()) / (1 + len(by_luck)))


def _some(points: Points, rng: np.random.Generator) -> Points:
    if len(points) <= MAX_POINTS:
        return points
    return points[rng.choice(len(points), MAX_POINTS, replace=False)]


def _ridge(seen: NDArray[np.float64], asked: NDArray[np.float64]) -> NDArray[np.float64]:
    """What ridge regression makes of targets: [..., seen] @ this = scores [..., asked]."""
    gram = seen.T @ seen + len(seen) * np.eye(seen.shape[1])
    return seen @ np.linalg.solve(gram, asked.T)


def _areas(scores: NDArray[np.float64], sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area under each row's ROC curve: [S, n] both; ties count half."""
    ranks = stats.rankdata(scores, axis=1)
    ones = sides.sum(axis=1)
    pairs = np.maximum(ones * (sides.shape[1] - ones), 1)
    return ((sides * ranks).sum(axis=1) - ones * (ones + 1) / 2) / pairs
