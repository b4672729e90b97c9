"""How good answers of one class among several are: figures, calibration, and class by class.

Every figure has an interval over rows or blocks of rows. Knows nothing of
models or files. Logits are [N, C] float, labels and predictions [N] integers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distill.statistics.comparison import NUM_FLIPS, Comparison, compare_right_labels
from distill.statistics.metrics import (
    Array,
    Estimate,
    PairedComparison,
    bootstrap,
    compare_paired,
    log_softmax,
    nll,
)
from distill.statistics.resampling import Blocks, share


def score(
    logits: Array,
    labels: Array,
    *,
    blocks: Array | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Accuracy with a score interval, macro-F1, NLL and ECE with one of the bootstrap.

    Where all predictions are right (or all wrong) the bootstrap sees no spread and would claim
    certainty: see `resampling.share` and `metrics.bootstrap`, the same resamples for every metric.

    Args:
        logits: [N, C].
        labels: [N].
        blocks: [N], rows of one block are drawn together; None: the rows are independent.
        confidence: of the two-sided intervals.
        seed: of the resampling.
    """
    predictions = np.argmax(logits, axis=1)
    rows = None if blocks is None else Blocks(len(labels), blocks)
    sums: Callable[[Array], Array] = np.asarray if rows is None else rows.sums
    sizes = sums(np.ones(len(labels)))
    losses, gaps = sums(nll(logits, labels)), sums(_calibration_gaps(logits, labels, 15))
    hits, total = map(sums, _hits(predictions, labels, logits.shape[1]))
    metrics: dict[str, Callable[[Array], Array]] = {
        "macro_f1": lambda w: _macro_f1(w @ hits, w @ total),
        "nll": lambda w: w @ losses / (w @ sizes),
        "ece": lambda w: np.abs(w @ gaps).sum(axis=1) / (w @ sizes),
    }
    accuracy = share(predictions == labels, blocks=blocks, confidence=confidence)
    return {"accuracy": accuracy, **bootstrap(metrics, len(sizes), confidence, seed)}


def score_predictions(
    predictions: Array,
    labels: Array,
    num_classes: int,
    *,
    blocks: Array | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Accuracy and macro-F1 of bare class predictions, with intervals; see `score`."""
    one_hot = np.eye(num_classes)[predictions]
    scores = score(one_hot, labels, blocks=blocks, confidence=confidence, seed=seed)
    return {name: scores[name] for name in ("accuracy", "macro_f1")}


def macro_f1(predictions: Array, labels: Array, num_classes: int) -> float:
    """Unweighted mean of the classes' F1; a class neither present nor predicted counts 0."""
    hits, total = _hits(predictions, labels, num_classes)
    return float(_macro_f1(hits.sum(axis=0)[None], total.sum(axis=0)[None])[0])


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
class ClassRegression:
    """How one class fares under the student against the control."""

    label: str
    num_samples: int
    difference: PairedComparison | Comparison
    regressed: bool


def per_class_regressions(
    student: Array,
    control: Array,
    labels: Array,
    classes: tuple[str, ...],
    *,
    blocks: Array | None = None,
    confidence: float = 0.95,
) -> list[ClassRegression]:
    """Compare recall per class; `regressed` is Holm-corrected over the classes (Holm, 1979).

    Args:
        student: whether the student is right, [N] bool.
        control: whether the control is right, [N] bool.
        labels: [N] class numbers.
        classes: names.
        blocks: [N], rows of one block are dependent; None: the rows are independent.
        confidence: of each interval, and family-wise of what is called a regression.
    """
    present = [c for c in range(len(classes)) if (labels == c).any()]
    # As many that the smallest p-value can be below what Holm asks of the first.
    num_flips = max(NUM_FLIPS, int(2 * len(present) / (1 - confidence)))

    def compared(own: Array) -> PairedComparison | Comparison:
        pair = student[own], control[own]
        if blocks is None:
            return compare_paired(*pair, confidence=confidence)
        wide = (marks.astype(np.float64)[:, None] for marks in pair)
        return compare_right_labels(
            *wide, blocks=blocks[own], confidence=confidence, num_flips=num_flips
        )

    pairs = [compared(labels == c) for c in present]
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


def _hits(predictions: Array, labels: Array, num_classes: int) -> tuple[Array, Array]:
    """What each row adds to a class's hits, and to its labels and predictions, [N, C] each."""
    of_label, of_prediction = np.eye(num_classes)[labels], np.eye(num_classes)[predictions]
    return of_label * of_prediction, of_label + of_prediction


def _macro_f1(hits: Array, total: Array) -> Array:
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
