"""How good predictions are, and how sure one may be: metrics, intervals and paired tests in NumPy.

Knows nothing of models or files. Logits are [N, C] float, labels and predictions [N] integers,
accuracies are fractions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Array = NDArray[Any]
Interval = tuple[float, float]

NUM_RESAMPLES = 2000


def log_softmax(logits: Array) -> NDArray[np.float64]:
    """Log-probabilities in float64, [N, C]."""
    return special.log_softmax(np.asarray(logits, np.float64), axis=1)


def nll(logits: Array, labels: Array) -> NDArray[np.float64]:
    """Negative log-likelihood of each label in nats, [N]."""
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def fit_temperature(logits: Array, labels: Array) -> float:
    """Find the temperature that minimises the NLL of softmax(logits / temperature).

    Guo et al., "On Calibration of Modern Neural Networks", 2017: one number, fitted on validation
    samples, that changes no answer. Of n samples each label counts (n + 1) / (n + 2), the rest
    goes to the other classes, as in Platt, "Probabilistic Outputs for Support Vector Machines",
    1999: a small validation set on which every answer is right would otherwise ask for certainty.
    Searched from 0.05 to 20 on a log scale; the NLL is convex in 1 / temperature.
    """
    wide = np.asarray(logits, np.float64)
    n, num_classes = wide.shape
    doubt = 1 / (n + 2)
    others = doubt / (num_classes - 1)

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(wide / np.exp(log_temperature))
        own = log_probabilities[np.arange(n), labels]
        return -float(np.mean((1 - doubt - others) * own + others * log_probabilities.sum(axis=1)))

    result = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(result.x))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its interval at the stated confidence."""

    estimate: float
    interval: Interval


def proportion(hits: Array, *, confidence: float = 0.95) -> Estimate:
    """A share of successes with its Wilson score interval."""
    share = float(np.mean(hits))
    return Estimate(estimate=share, interval=wilson(share, len(hits), confidence))


def wilson(share: float, n: float, confidence: float) -> Interval:
    """Give the score interval of a share of n samples (Wilson, 1927); n may be a fraction, or 0."""
    z = special.ndtri(0.5 + confidence / 2)
    centre = (share * n + z**2 / 2) / (n + z**2)
    half_width = z * np.sqrt(n * share * (1 - share) + z**2 / 4) / (n + z**2)
    # Rounding must not put the end beyond a share of 0 or 1.
    return float(min(centre - half_width, share)), float(max(centre + half_width, share))


def estimate_from(value: Mapping[str, Any]) -> Estimate:
    """Read an estimate back from JSON, where an end without bound is written as null.

    So is a gain over a model without any error, minus infinity: no gain has another infinite end.
    """
    estimate, (low, high) = value["estimate"], value["interval"]
    above = np.inf if estimate is not None else -np.inf
    return Estimate(
        estimate=-np.inf if estimate is None else estimate,
        interval=(-np.inf if low is None else low, above if high is None else high),
    )


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Two models' answers to the same samples: first minus second."""

    estimate: float
    interval: Interval
    p_value: float
    num_only_first_correct: int
    num_only_second_correct: int
    num_samples: int


def compare_paired(first: Array, second: Array, *, confidence: float = 0.95) -> PairedComparison:
    """Compare two models' accuracies on the same samples.

    The interval is the Laplace-adjusted Wald interval for paired proportions (Bonett & Price,
    "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data", 2012): unlike the bootstrap it does not shrink to a point when the models never disagree.
    The p-value is McNemar's exact test on the discordant pairs (McNemar, 1947).

    Args:
        first: whether the first model is right, [N] bool.
        second: whether the second model is right, [N] bool.
        confidence: of the two-sided interval.

    Raises:
        ValueError: the models did not answer the same number of samples.
    """
    from scipy import stats  # takes a second to load, which a rollback does not have

    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape:
        raise ValueError(f"Expected paired answers but got {first.shape} and {second.shape}.")
    n = len(first)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    p_first, p_second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    centre = p_first - p_second
    z = special.ndtri(0.5 + confidence / 2)
    half_width = z * np.sqrt((p_first + p_second - centre**2) / (n + 2))
    discordant = only_first + only_second
    p_value = stats.binomtest(only_first, discordant).pvalue if discordant else 1.0
    return PairedComparison(
        estimate=(only_first - only_second) / n,
        interval=(float(max(centre - half_width, -1)), float(min(centre + half_width, 1))),
        p_value=float(p_value),
        num_only_first_correct=only_first,
        num_only_second_correct=only_second,
        num_samples=n,
    )


def bootstrap(
    metrics: dict[str, Callable[[Array], Array]],
    n: int,
    confidence: float,
    seed: int = 0,
    *,
    expanded: bool = True,
) -> dict[str, Estimate]:
    """Estimate metrics with percentile bootstrap intervals over n samples (Efron, 1979).

    Percentiles are too narrow by what Student's t and n - 1 allow for, which is a third at five
    blocks: they are taken further out (Hesterberg, "What Teachers Should Know About the Bootstrap",
    2015, the expanded percentile interval). A single sample, or block, tells nothing of others: its
    intervals are without bounds.

    Args:
        metrics: each a function of resampling weights [R, n] that returns [R] values.
        n: number of samples.
        confidence: of the intervals.
        seed: of the resampling, the same for all metrics.
        expanded: as above; False for what is studentised already.
    """
    rng = np.random.default_rng(seed)
    draws: dict[str, list[Array]] = {name: [] for name in metrics}
    rows = max(1, min(NUM_RESAMPLES, 2_000_000 // n))  # bounds memory at 16 MB
    for start in range(0, NUM_RESAMPLES, rows):
        num_rows = min(rows, NUM_RESAMPLES - start)
        picks = rng.integers(0, n, size=(num_rows, n)) + n * np.arange(num_rows)[:, None]
        weights = np.bincount(picks.ravel(), minlength=num_rows * n).reshape(num_rows, n)
        for name, metric in metrics.items():
            draws[name].append(metric(weights.astype(np.float64)))
    tail = (1 - confidence) / 2
    if expanded and n > 1:
        tail = special.ndtr(special.stdtrit(n - 1, tail) * np.sqrt(n / (n - 1)))
    once = np.ones((1, n))
    estimates = {}
    for name, metric in metrics.items():
        low, high = np.quantile(np.concatenate(draws[name]), [tail, 1 - tail])
        estimate = float(metric(once)[0])
        # Resampling adds to the upward bias of ECE: its draws can all lie above the estimate.
        interval = (min(float(low), estimate), max(float(high), estimate))
        interval = (-np.inf, np.inf) if n == 1 else interval
        estimates[name] = Estimate(estimate=estimate, interval=interval)
    return estimates
