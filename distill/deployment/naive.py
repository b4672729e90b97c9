"""What a model is worth beside what costs nothing: the best naive forecast, or the best baseline.

Which naive forecast is best, and who beats it. Knows marks of models; knows nothing of series.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from distill.statistics.metrics import estimate_from
from distill.statistics.scoring import Paired, Scoring, Truth
from distill.wording import gain_phrase, gain_range, metric_name

UNKNOWN = (-math.inf, 1.0)  # all that a gain can be
NAIVE = ("last_value", "seasonal_naive", "drift", "window_mean", "moving_average")


@dataclass(frozen=True, kw_only=True)
class NaiveGains:
    """Gains over the best naive forecast.

    Attributes:
        reference: its name: the first of `NAIVE`, unless another is shown to be better.
        gains: of every other model and baseline over it.
        confidence: of each interval, so that all hold together at that of the budget (Bonferroni).
    """

    reference: str
    gains: dict[str, Paired]
    confidence: float


def gains_over_naive(
    scoring: Scoring,
    models: Mapping[str, NDArray[Any]],
    baselines: Mapping[str, NDArray[Any]],
    truth: Truth,
    *,
    confidence: float,
) -> NaiveGains | None:
    """Set models and baselines against the best naive forecast; None where there is none.

    Args:
        scoring: of the task.
        models: marks of each.
        baselines: likewise.
        truth: of the test set.
        confidence: of all intervals together.
    """
    naive = [name for name in NAIVE if name in baselines]
    if not naive:
        return None
    others = {name: own for name, own in baselines.items() if name not in naive} | dict(models)
    num_compared = max(1, len(others) + len(naive) - 1)
    each = 1 - (1 - confidence) / num_compared

    def gain(first: NDArray[Any], second: NDArray[Any]) -> Paired:
        return scoring.compare(first, second, blocks=truth.blocks, confidence=each)

    best = naive[0]
    for name in naive[1:]:
        if gain(baselines[name], baselines[best]).interval[0] > 0:
            best = name
    gains = {name: gain(own, baselines[best]) for name, own in others.items()}
    return NaiveGains(reference=best, gains=gains, confidence=each)


def gains_over(best: str, evaluation: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Say what a student is worth beside what costs nothing, from `evaluate.json`.

    Args:
        best: name of the best baseline, which it is held against where there is no naive forecast.
        evaluation: the margins, and what `gains_over_naive` found.

    Returns:
        The reference and the gains over it, and one sentence.
    """
    found, metric = evaluation["naive"], evaluation["metric"]
    if found is not None:
        return {"reference": found["reference"], **found["gains"]}, naive_sentence(found, metric)
    gains = {name: own["gain_vs_baseline"] for name, own in evaluation["margins"].items()}
    said = baseline_sentence(best, gains["student"], metric)
    return {"reference": best, **gains}, said


def baseline_sentence(best: str, gain: Mapping[str, Any], metric: str) -> str:
    """Say whether the student beats the best baseline, from a `Paired` as plain values."""
    reference = "the model in production" if best == "incumbent" else best.replace("_", " ")
    low, high = estimate_from(gain).interval
    said = (
        f"{reference}: {gain_phrase(metric, gain['estimate'])} "
        f"({gain_range(metric, gain['interval'])}, {gain['num_samples']} test samples)"
    )
    if low > 0:
        return f"The student beats {said}."
    if high < 0:
        return f"The student is worse than {said}; use that."
    return f"Whether the student beats {said} is not shown; use that, or get more data."


def naive_sentence(found: Mapping[str, Any], metric: str) -> str:
    """Say who beats the naive forecast, from a `NaiveGains` as plain values."""
    reference = found["reference"].replace("_", " ")
    what = "the last value" if reference == "last value" else f"the naive forecast ({reference})"
    known = {name: estimate_from(gain).interval for name, gain in found["gains"].items()}
    better = [name for name, interval in known.items() if interval[0] > 0]
    if all(interval == UNKNOWN for interval in known.values()):
        return (
            f"Whether anything beats {what} is not known: the test set is a single stretch of "
            "time. Give longer series, or more of the windows (`data.test_fraction`)."
        )
    if not better:
        return (
            f"Nothing beats {what} here: of {len(found['gains'])} others none has less "
            f"{metric_name(metric)} beyond doubt. It costs nothing: ship that."
        )
    gain = found["gains"]["student"]
    said = (
        f"{gain_phrase(metric, gain['estimate'], of='the naive forecast')} ({reference}; "
        f"{gain_range(metric, gain['interval'])}, at a confidence of {found['confidence']:.1%})"
    )
    if "student" in better:
        return f"The student beats the naive forecast: {said}."
    names = ", ".join(name.replace("_", " ") for name in better)
    return f"The student does not beat the naive forecast: {said}; {names} does."
