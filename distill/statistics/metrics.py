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


def macro_f1(predictions: Array, labels: Array, num_classes: int) -> float:
    """Unweighted mean of the classes' F1; a class neither present nor predicted counts 0."""
    ones = np.ones((1, len(labels)))
    return float(_macro_f1(ones, predictions, labels, num_classes)[0])


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
class CalibrationBin:
    """One bar of a reliability diagram."""

    confidence: float
    accuracy: float
    count: int


def calibration_bins(logits: Array, labels: Array, num_bins: int = 15) -> list[CalibrationBin]:
    """Mean confidence and accuracy per bin, the empty bins left out."""
    confidence, correct, membership = _binned(logits, labels, num_bins)
    counts = membership.sum(axis=0)
    return [
        CalibrationBin(
            confidence=float(confidence @ membership[:, b] / counts[b]),
            accuracy=float(correct @ membership[:, b] / counts[b]),
            count=int(counts[b]),
        )
        for b in np.flatnonzero(counts)
    ]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its interval at the stated confidence."""

    estimate: float
    interval: Interval


def score(
    logits: Array, labels: Array, *, confidence: float = 0.95, seed: int = 0
) -> dict[str, Estimate]:
    """Accuracy, macro-F1, NLL and ECE, each with a bootstrap interval over samples.

    Percentile bootstrap (Efron, 1979), the same resamples for every metric. Where all predictions
    are right (or all wrong) the bootstrap sees no spread and would claim certainty, so accuracy
    falls back to the Wilson score interval (Wilson, 1927).
    """
    predictions = np.argmax(logits, axis=1)
    num_classes = logits.shape[1]
    correct = (predictions == labels).astype(float)
    losses = nll(logits, labels)
    gaps = _calibration_gaps(logits, labels, 15)
    metrics: dict[str, Callable[[Array], Array]] = {
        "accuracy": lambda w: w @ correct / w.sum(axis=1),
        "macro_f1": lambda w: _macro_f1(w, predictions, labels, num_classes),
        "nll": lambda w: w @ losses / w.sum(axis=1),
        "ece": lambda w: _ece(w, gaps),
    }
    scores = bootstrap(metrics, len(labels), confidence, seed)
    if correct.all() or not correct.any():
        scores["accuracy"] = proportion(correct, confidence=confidence)
    return scores


def score_predictions(
    predictions: Array, labels: Array, num_classes: int, *, confidence: float = 0.95, seed: int = 0
) -> dict[str, Estimate]:
    """Accuracy and macro-F1 of bare class predictions, with bootstrap intervals."""
    one_hot = np.eye(num_classes)[predictions]
    scores = score(one_hot, labels, confidence=confidence, seed=seed)
    return {name: scores[name] for name in ("accuracy", "macro_f1")}


def proportion(hits: Array, *, confidence: float = 0.95) -> Estimate:
    """A share of successes with its Wilson score interval (Wilson, 1927)."""
    from scipy import stats  # takes a second to load, which a rollback does not have

    result = stats.binomtest(int(np.sum(hits)), len(hits))
    low, high = result.proportion_ci(confidence, method="wilson")
    return Estimate(estimate=float(np.mean(hits)), interval=(float(low), float(high)))


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


@dataclass(frozen=True, kw_only=True)
class ClassRegression:
    """How one class fares under the student against the control."""

    label: str
    num_samples: int
    difference: PairedComparison
    regressed: bool


def per_class_regressions(
    student: Array,
    control: Array,
    labels: Array,
    classes: tuple[str, ...],
    confidence: float = 0.95,
) -> list[ClassRegression]:
    """Compare recall per class; `regressed` is Holm-corrected over the classes (Holm, 1979).

    Args:
        student: whether the student is right, [N] bool.
        control: whether the control is right, [N] bool.
        labels: [N] class numbers.
        classes: names.
        confidence: family-wise, over all classes.
    """
    present = [c for c in range(len(classes)) if (labels == c).any()]
    pairs = [compare_paired(student[labels == c], control[labels == c]) for c in present]
    order = np.argsort([pair.p_value for pair in pairs])
    rejected: set[int] = set()
    for rank, i in enumerate(order):
        if pairs[i].p_value > (1 - confidence) / (len(pairs) - rank):
            break
        rejected.add(int(i))
    return [
        ClassRegression(
            label=classes[c],
            num_samples=pair.num_samples,
            difference=pair,
            regressed=i in rejected and pair.estimate < 0,
        )
        for i, (c, pair) in enumerate(zip(present, pairs, strict=True))
    ]


def bootstrap(
    metrics: dict[str, Callable[[Array], Array]], n: int, confidence: float, seed: int = 0
) -> dict[str, Estimate]:
    """Estimate metrics with percentile bootstrap intervals over n samples (Efron, 1979).

    A single sample, or block, tells nothing of others: its intervals are without bounds.

    Args:
        metrics: each a function of resampling weights [R, n] that returns [R] values.
        n: number of samples.
        confidence: of the intervals.
        seed: of the resampling, the same for all metrics.
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


def _macro_f1(weights: Array, predictions: Array, labels: Array, num_classes: int) -> Array:
    one_hot_label = np.eye(num_classes)[labels]  # [N, C]
    one_hot_prediction = np.eye(num_classes)[predictions]
    hits = weights @ (one_hot_label * one_hot_prediction)  # [R, C]
    total = weights @ one_hot_label + weights @ one_hot_prediction
    return np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0).mean(axis=1)


def _binned(logits: Array, labels: Array, num_bins: int) -> tuple[Array, Array, Array]:
    probabilities = np.exp(log_softmax(logits))
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == labels).astype(float)
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    return confidence, correct, np.eye(num_bins)[bins]


def _calibration_gaps(logits: Array, labels: Array, num_bins: int) -> Array:
    """Each sample's part in the expected calibration error, [N, bins] of confidence.

    Guo et al., "On Calibration of Modern Neural Networks", 2017. The error is biased upwards on
    small samples; read it beside its interval.
    """
    confidence, correct, membership = _binned(logits, labels, num_bins)
    return membership * (confidence - correct)[:, None]


def _ece(weights: Array, gaps: Array) -> Array:
    return np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)
