"""How good by few labels: rows drawn at random and labelled by people, with the teacher's help.

Unbiased whatever the world does, concept drift included; the teacher only makes it tighter, by as
much as it is worth, and of classes alone. Knows arrays alone.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from distill.statistics.metrics import Estimate, proportion
from distill.statistics.scoring import Classes, Scoring, Truth

Yes = NDArray[np.bool_]

MIN_LABELS = 20


@dataclass(frozen=True, kw_only=True)
class Audited:
    """How good by labels of rows that were drawn at random.

    Attributes:
        estimate: of the task's metric: of classes accuracy, a fraction; unbiased.
        interval: at the stated confidence.
        num_labels: that it rests on.
        num_answers: the teacher's, to rows without a label; 0 where labels stand alone.
        weight: of the teacher's answers, 0 to 1.
        saving: how many times as many labels alone would be as tight; 1 where they stand alone.
    """

    estimate: float
    interval: tuple[float, float]
    num_labels: int
    num_answers: int = 0
    weight: float = 0.0
    saving: float = 1.0


def scored(
    scoring: Scoring, answers: NDArray[Any], truths: NDArray[Any], *, confidence: float = 0.95
) -> Estimate:
    """Score answers whose truth is known in the metric of their task; classes as by Wilson.

    Args:
        scoring: of the task.
        answers: classes, [n], or what the model answered, [n, K].
        truths: classes, [n], or the truth of every output, [n, D].
        confidence: of the interval.
    """
    truth = Truth(labels=truths)
    if isinstance(scoring, Classes):
        return proportion(scoring.marks(answers, truth), confidence=confidence)
    found = scoring.score(answers, truth, confidence=confidence)[scoring.metric]
    if len(truths) >= MIN_LABELS:
        return found
    return replace(found, interval=(-np.inf, np.inf))  # resampling so few says nothing


def labels_alone(right: Yes, *, confidence: float = 0.95) -> Audited:
    """Estimate accuracy by labels alone, with the Wilson score interval.

    Args:
        right: whether the model was, [n].
        confidence: of the interval.
    """
    found = proportion(right, confidence=confidence)
    return Audited(estimate=found.estimate, interval=found.interval, num_labels=len(right))


def audited(right: Yes, agreed: Yes, agree: Yes, *, confidence: float = 0.95) -> Audited:
    """Estimate accuracy by labels, with the teacher as control variate: PPI++.

    weight * mean(agree) + mean(right - weight * agreed), with the weight that makes the variance
    smallest: Angelopoulos, Duchi & Zrnic, "PPI++: efficient prediction-powered inference", 2023.

    Their interval is too narrow where nearly everything is right (at an accuracy of 0.98 and 100
    labels it holds the truth in 84 % of all cases, not 95 %), as Wald's is for a share. So middle,
    variance and weight are those of the labels and half of one more of each kind (right or not,
    agreed or not), as Agresti & Coull do ("Approximate is better than exact for interval estimation
    of binomial proportions", 1998); the estimate itself is left alone.

    Args:
        right: whether the model was, on the labelled rows, [n].
        agreed: whether the teacher says what the model says, on the same rows, [n].
        agree: likewise, on other rows without a label, [N].
        confidence: of the interval.
    """
    alone = labels_alone(right, confidence=confidence)
    if len(right) < MIN_LABELS or not len(agree):
        return alone
    n, num_answers = len(right), len(agree)
    cells = np.array([[(~right & ~agreed).sum(), (~right & agreed).sum()],
                      [(right & ~agreed).sum(), (right & agreed).sum()]]) + 0.5  # fmt: skip
    share = cells / cells.sum()
    p_right, p_agreed = float(share[1].sum()), float(share[:, 1].sum())
    covariance = share[1, 1] - p_right * p_agreed
    of_agreed = p_agreed * (1 - p_agreed)
    weight = float(np.clip(covariance / (of_agreed * (1 + n / num_answers)), 0, 1))
    estimate = weight * agree.mean() + np.mean(right - weight * agreed)
    middle = weight * agree.mean() + p_right - weight * p_agreed
    of_rest = p_right * (1 - p_right) - 2 * weight * covariance + weight**2 * of_agreed
    variance = weight**2 * of_agreed / num_answers + of_rest / cells.sum()
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1) * np.sqrt(variance))
    return Audited(
        estimate=float(np.clip(estimate, 0, 1)),
        interval=(max(float(middle) - half, 0.0), min(float(middle) + half, 1.0)),
        num_labels=n,
        num_answers=num_answers,
        weight=weight,
        saving=float(p_right * (1 - p_right) / cells.sum() / variance),
    )
