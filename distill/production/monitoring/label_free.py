"""Accuracy without labels: three estimates, and what none of them can see.

All rest on the belief that labels still follow from inputs as they did on the reference; where that
changes (concept drift), none notices. What does is `audit`. Knows arrays alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from distill.statistics.metrics import log_softmax

Logits = NDArray[np.floating]  # [n, C]
Yes = NDArray[np.bool_]  # [n]
Shares = NDArray[np.bool_] | NDArray[np.floating]  # [n], from 0 to 1

MIN_GAIN = 0.1  # of the calibration error that a calibration must take away to be believed


@dataclass(frozen=True, kw_only=True)
class LabelFree:
    """An estimate of accuracy that has seen no labels.

    Attributes:
        estimate: a fraction.
        interval: of what chance does to it; not of what the world may do.
        count: of answers that it rests on.
    """

    estimate: float
    interval: tuple[float, float]
    count: int


def confidence_based(
    reference: Logits, right: Yes, now: Logits, *, confidence: float = 0.95
) -> LabelFree:
    """Estimate accuracy by how sure the model is: CBPE.

    The mean of the top probability, which a monotone calibration (Zadrozny & Elkan, "Transforming
    classifier scores into accurate multiclass probability estimates", 2002) brings to the reference
    where that takes away a tenth of the calibration error on rows that it has not seen. Confidence-
    based performance estimation is NannyML's (Kivimäki et al., 2024).

    Args:
        reference: logits of the model, [N, C].
        right: whether it was, [N].
        now: logits, [n, C].
        confidence: of the interval.
    """
    known, asked = _top(reference), _top(now)
    calibrate = _calibration(known, right)
    values = asked if calibrate is None else calibrate(asked)
    own = float(values.std()) / np.sqrt(len(values))
    # The level of the calibration is known as well as the reference is large.
    level = float(np.sqrt(right.mean() * (1 - right.mean()) / len(right)))
    return _with_interval(float(values.mean()), np.hypot(own, level), len(now), confidence)


def threshold_based(
    reference: Logits, right: Yes, now: Logits, *, confidence: float = 0.95
) -> LabelFree:
    """Estimate accuracy by how often the model is sure enough: ATC, by negative entropy.

    A threshold that as many answers pass on the reference as are right there. Garg et al.,
    "Leveraging unlabeled data to predict out-of-distribution performance", 2022.

    Args:
        reference: logits of the model, [N, C].
        right: whether it was, [N].
        now: logits, [n, C].
        confidence: of the interval.
    """
    known, asked = _negative_entropy(reference), _negative_entropy(now)
    threshold = np.quantile(known, 1 - right.mean(), method="higher")
    share = float((asked >= threshold).mean())
    spread = np.sqrt(
        share * (1 - share) / len(asked) + right.mean() * (1 - right.mean()) / len(right)
    )
    return _with_interval(share, spread, len(now), confidence)


def chance_of(teacher: Logits, said: NDArray[np.integer]) -> NDArray[np.float64]:
    """Tell how likely the teacher finds what the model says, [n].

    Args:
        teacher: its logits, [n, C], divided by the temperature that fits them where labels are
            known: how sure it states to be is taken at its word.
        said: classes, [n].
    """
    return np.exp(log_softmax(teacher)[np.arange(len(said)), said])


def disagreement_based(
    right: Yes, before: Shares, now: Shares, *, confidence: float = 0.95
) -> LabelFree:
    """Estimate accuracy by how likely the teacher finds what the model says.

    The accuracy on the reference, plus by how much that has changed since: what both err on alike
    cancels. A teacher that is lost itself says so by its probabilities, where a mere count of how
    often the two agree would not. It still overstates where the teacher is sure and wrong.

    Args:
        right: whether the student was, on the reference, [N].
        before: `chance_of` there, or whether the two agreed, [N].
        now: the same now, [n].
        confidence: of the interval.
    """
    change = right.astype(float) - before  # paired: most of it cancels
    estimate = float(change.mean() + now.mean())
    spread = np.sqrt(change.var() / len(right) + now.var() / len(now))
    return _with_interval(estimate, spread, len(now), confidence)


def agreement_bounds(agree: Yes, teacher_error: float) -> tuple[float, float]:
    """Bound the student's accuracy by the teacher's error on the same rows.

    Where both agree the student is wrong no more often than the teacher is; where they do not, it
    is right no more often than the teacher is wrong.

    Args:
        agree: whether they do, [n].
        teacher_error: share of the rows on which the teacher is wrong.
    """
    share = float(agree.mean())
    return max(share - teacher_error, 0.0), min(share + teacher_error, 1.0)


def _with_interval(estimate: float, spread: float, count: int, confidence: float) -> LabelFree:
    estimate = float(np.clip(estimate, 0, 1))
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * float(spread)
    return LabelFree(
        estimate=estimate,
        interval=(max(estimate - half, 0.0), min(estimate + half, 1.0)),
        count=count,
    )


def _top(logits: Logits) -> NDArray[np.float64]:
    return np.exp(log_softmax(logits).max(axis=1))


def _negative_entropy(logits: Logits) -> NDArray[np.float64]:
    log_p = log_softmax(logits)
    return (np.exp(log_p) * log_p).sum(axis=1)


def _calibration(known: NDArray[np.float64], right: Yes) -> Any:
    """Fit one, if it is better on rows that it has not seen."""
    folds = np.arange(len(known)) % 5
    unseen = np.empty(len(known))
    for fold in range(5):
        unseen[folds == fold] = _isotonic(known[folds != fold], right[folds != fold])(
            known[folds == fold]
        )
    if _gap(unseen, right) > (1 - MIN_GAIN) * _gap(known, right):
        return None
    return _isotonic(known, right)


def _isotonic(scores: NDArray[np.float64], right: Yes) -> Any:
    order = np.argsort(scores, kind="stable")
    fitted = optimize.isotonic_regression(right[order].astype(float)).x
    return lambda values: np.interp(values, scores[order], fitted)


def _gap(chances: NDArray[np.float64], right: Yes, num_bins: int = 15) -> float:
    """The expected calibration error, over bins of equally many."""
    parts = np.array_split(np.argsort(chances, kind="stable"), num_bins)
    gaps = [abs(chances[p].mean() - right[p].mean()) * len(p) for p in parts if len(p)]
    return float(np.sum(gaps)) / len(chances)
