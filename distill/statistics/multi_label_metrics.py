"""How good answers of several labels at once are: F1, average precision, accuracy, NLL.

Logits and labels are [N, C], a label 1 or 0; a label is given where its logit is above 0. Every
figure has a percentile-bootstrap interval over rows or blocks of rows. Knows nothing of models or
files.
"""

from collections.abc import Callable

import numpy as np

from distill.statistics.metrics import Array, Estimate, bootstrap
from distill.statistics.resampling import Blocks, paired, share


def right_labels(logits: Array, labels: Array) -> Array:
    """Which labels are right, [N, C] bool."""
    return (np.asarray(logits) > 0) == (np.asarray(labels) > 0)


def score_multi_label(
    logits: Array, labels: Array, *, blocks: Array | None = None, confidence: float = 0.95
) -> dict[str, Estimate]:
    """Score rows of several labels.

    - `subset_accuracy`: share of rows with all labels right;
    - `label_accuracy`: share of right labels, 1 - Hamming loss;
    - `micro_f1` over all labels, `macro_f1` the mean over labels, where one that is neither present
      nor given counts 0;
    - `mean_average_precision`: mean over the labels that some row has; left out if there is none.
      Its bootstrap is linearised by the infinitesimal jackknife (Efron, "Nonparametric estimates of
      standard error", 1981), so that no resample has to be sorted;
    - `nll`: binary cross-entropy in nats, mean over rows and labels.

    Args:
        logits: [N, C].
        labels: [N, C].
        blocks: [N], rows of one block are drawn together; None: the rows are independent.
        confidence: of the two-sided intervals.

    Raises:
        UserError: a logit or a label is not finite.
        ValueError: the shapes differ, or there is no row.
    """
    logits, labels = paired(logits, labels)
    rows = Blocks(len(labels), blocks)
    truth, given = labels > 0, logits > 0
    right = right_labels(logits, labels)
    losses = rows.sums((np.logaddexp(0, logits) - labels * logits).mean(axis=1))
    hits, total = rows.sums(truth & given), rows.sums(truth) + rows.sums(given)  # [G, C]

    def f1(hits: Array, total: Array) -> Array:
        return np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)

    metrics: dict[str, Callable[[Array], Array]] = {"nll": lambda w: w @ losses / (w @ rows.sizes)}
    metrics["micro_f1"] = lambda w: f1(w @ hits.sum(axis=1), w @ total.sum(axis=1))
    metrics["macro_f1"] = lambda w: f1(w @ hits, w @ total).mean(axis=1)
    present = np.flatnonzero(truth.any(axis=0))
    if present.size:
        parts = [_average_precision(logits[:, c], truth[:, c]) for c in present]
        centre = float(np.mean([value for value, _ in parts]))
        influence = rows.sums(np.mean([slope for _, slope in parts], axis=0))
        metrics["mean_average_precision"] = lambda w: np.clip(centre + w @ influence, 0, 1)
    shares = {"subset_accuracy": right.all(axis=1), "label_accuracy": right.mean(axis=1)}
    return {
        name: share(each, blocks=blocks, confidence=confidence) for name, each in shares.items()
    } | bootstrap(metrics, rows.num_groups, confidence)


def _average_precision(scores: Array, truth: Array) -> tuple[float, Array]:
    """Average precision of a label that a row has, and its slope by each row's weight at 1, [N].

    Without interpolation; equal scores are one threshold, as in scikit-learn.
    With A the average precision, P the number of positives and, at a row's threshold, T the
    positives and M the rows at or above it: A = sum over positives of (T / M) / P.
    """
    num_positives = int(truth.sum())
    _, ranks = np.unique(-scores, return_inverse=True)  # 0 is the highest score
    own = np.bincount(ranks, weights=truth)  # positives at each threshold
    rows_above = np.cumsum(np.bincount(ranks))
    precision = np.cumsum(own) / rows_above
    value = float(own @ precision) / num_positives
    # A row counts in M, and a positive one in T, of every threshold at or below its own.
    by_row = np.cumsum((own * precision / rows_above)[::-1])[::-1]
    by_positive = np.cumsum((own / rows_above)[::-1])[::-1]
    slope = truth * (precision[ranks] - value + by_positive[ranks]) - by_row[ranks]
    return value, slope / num_positives
