"""How many requests until a difference shows: before an experiment, by trying it out in numbers.

Experiments are simulated with the very statistics that will decide, looked at all along. Knows
nothing of models, and no traffic but its rate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from distill.errors import UsageError
from distill.statistics.sequential import (
    MIN_EVENTS,
    TUNED_AT,
    half_width,
    log_e_value,
    planned_bounds,
)

NUM_EXPERIMENTS = 2000
_NUM_LOOKS = 400  # of a simulated path, evenly; looking oftener tells hardly sooner
_MOST = 1 << 26  # units, beyond which nobody waits


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        baseline: the champion's share of right answers, or of clicks.
        difference: by which the challenger would be better, as a share.
        agreement: of all labelled answers, the share on which the two are right or wrong alike,
            if they were equally good; what pairs profit from. None: 80 % of the errors are common.
        share: of the compared units, that the challenger has.
        alpha: chance of a false alarm.
        power: chance to see the difference.
        units_per_day: compared ones; None where it is not known.
    """

    baseline: float
    difference: float
    agreement: float | None = None
    share: float = 0.5
    alpha: float = 0.05
    power: float = 0.8
    units_per_day: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        better = self.baseline + self.difference
        if not (0 < self.baseline < 1 and 0 < better < 1) or not self.difference:
            raise UsageError(
                f"Expected shares between 0 and 1 with a `difference` between them but got "
                f"`baseline={self.baseline}` and `difference={self.difference}`."
            )
        for name in ("share", "alpha", "power"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(
                    f"Expected `{name}` between 0 and 1 but got {getattr(self, name)}."
                )
        lowest = 1 - 2 * min(self.baseline, 1 - self.baseline)
        if self.agreement is not None and not lowest <= self.agreement < 1:
            raise UsageError(
                f"Expected `agreement` from {lowest:.2f}, all that is left with "
                f"`baseline={self.baseline}`, to below 1 but got {self.agreement}."
            )


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one way of asking needs.

    Attributes:
        method: by which it is decided.
        units: within which the difference shows with the power that is asked for; None: never.
        median_units: within which it does in half of all experiments.
        days: of traffic that the units take; None where the rate is not known.
        may_be_looked_at: when looking spoils nothing.
    """

    method: str
    units: int | None
    median_units: int | None
    days: float | None
    may_be_looked_at: str


def plan(question: Question, seed: int = 0) -> list[Need]:
    """Tell what each way of asking needs, the most frugal first."""
    rng = np.random.default_rng(seed)
    fixed = _fixed(question)
    planned = fixed * _inflation(question)
    found = [
        _need(question, "pairs of a shadow", _until(question, rng, _pairs), "at any time"),
        _need(
            question, "confidence sequence of two arms", _until(question, rng, _arms), "at any time"
        ),
        _need(question, "five planned looks", (planned, planned), "at the planned five"),
        _need(question, "one look", (fixed, fixed), "once, at the end"),
    ]
    return sorted(found, key=lambda need: need.units or math.inf)


Sample = Callable[[Question, np.random.Generator, NDArray[np.int64]], NDArray[np.bool_]]


def _need(question: Question, method: str, units: tuple[float, float] | None, when: str) -> Need:
    whole = None if units is None else [math.ceil(value) for value in units]
    rate = question.units_per_day
    return Need(
        method=method,
        units=None if whole is None else whole[0],
        median_units=None if whole is None else whole[1],
        days=None if whole is None or not rate else whole[0] / rate,
        may_be_looked_at=when,
    )


def _variance(question: Question) -> float:
    """Of the estimated difference, times the units of both arms."""
    first, second = question.baseline, question.baseline + question.difference
    control, treated = first * (1 - first), second * (1 - second)
    return control / (1 - question.share) + treated / question.share


def _fixed(question: Question) -> float:
    reach = stats.norm.isf(question.alpha / 2) + stats.norm.ppf(question.power)
    return float(reach**2 * _variance(question) / question.difference**2)


def _inflation(question: Question) -> float:
    """By how much five looks of O'Brien & Fleming's kind take more units at most than one."""
    fractions = np.linspace(0.2, 1, 5)
    bounds = planned_bounds(fractions, alpha=question.alpha)
    noise = np.random.default_rng(0).normal(size=(100_000, 5)) * math.sqrt(0.2)
    walks = noise.cumsum(axis=1)
    reach = stats.norm.isf(question.alpha / 2) + stats.norm.ppf(question.power)
    for inflation in np.arange(1.0, 1.5, 0.005):
        z = (walks + reach * math.sqrt(inflation) * fractions) / np.sqrt(fractions)
        if (z > bounds).any(axis=1).mean() >= question.power:
            return float(inflation)
    return 1.5


def _until(
    question: Question, rng: np.random.Generator, sample: Sample
) -> tuple[float, float] | None:
    """Double the experiment's length until the difference shows often enough."""
    most = 2 * _fixed(question)
    while most < _MOST:
        looks = np.unique(np.linspace(0, most, _NUM_LOOKS + 1).astype(int)[1:])
        shown = sample(question, rng, looks)  # [experiments, looks]
        first = np.where(shown.any(axis=1), shown.argmax(axis=1), len(looks))
        ordered = np.sort(first)
        at = ordered[math.ceil(question.power * len(ordered)) - 1]
        if at < len(looks):
            return float(looks[at]), float(looks[ordered[len(ordered) // 2]])
        most *= 2
    return None


def _arms(
    question: Question, rng: np.random.Generator, looks: NDArray[np.int64]
) -> NDArray[np.bool_]:
    first, second = question.baseline, question.baseline + question.difference
    steps = np.diff(looks, prepend=0)
    shape = (NUM_EXPERIMENTS, len(looks))
    treated = rng.binomial(steps, question.share, shape)
    counts = np.stack([treated, steps - treated])
    right = np.stack([rng.binomial(counts[0], second), rng.binomial(counts[1], first)])
    counts, right = counts.cumsum(axis=-1), right.cumsum(axis=-1)
    means = right / np.maximum(counts, 1)
    squared_error = (means * (1 - means) / np.maximum(counts, 1)).sum(axis=0)
    half = half_width(looks, looks * squared_error, alpha=question.alpha, tuned_at=TUNED_AT)
    enough = (np.minimum(right, counts - right) >= MIN_EVENTS).all(axis=0)
    return enough & (np.abs(means[0] - means[1]) > half)


def _pairs(
    question: Question, rng: np.random.Generator, looks: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Every labelled request is a pair, answered by both."""
    alone = (1 - _agreement(question)) / 2
    won = alone + max(question.difference, 0)
    lost = alone + max(-question.difference, 0)
    steps = np.diff(looks, prepend=0)
    shape = (NUM_EXPERIMENTS, len(looks))
    wins = rng.binomial(steps, won, shape)
    losses = rng.binomial(steps - wins, lost / (1 - won))
    log_e = log_e_value(wins.cumsum(axis=1), losses.cumsum(axis=1))
    return log_e >= math.log(1 / question.alpha)


def _agreement(question: Question) -> float:
    if question.agreement is not None:
        return question.agreement
    worse = 1 - max(question.baseline, question.baseline + question.difference)
    return 1 - 2 * 0.2 * worse
