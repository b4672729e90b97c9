"""What a device and a business can bear, and whether an artefact holds it.

Knows figures and intervals; knows nothing of how they were measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from distill.errors import UsageError
from distill.files import from_json
from distill.statistics.metrics import Interval
from distill.statistics.scoring import METRICS, Quantiles


class Outcome(StrEnum):
    """Of a check or a verdict."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class AccuracyBudget:
    """Limits on how good answers are; the margins are non-inferiority margins, as fractions.

    Of accuracies a margin is a difference; of errors, such as RMSE, the share by which one is lower
    than the other. `max_drop_vs_float32` binds int8 and float16 files, held against the student in
    float32.

    Attributes:
        metric: that decides; None takes the first that the task has.
        min: of a metric of which more is better.
        max: of one of which less is, in its own unit; of several numbers in units of their own, in
            the spread of each in training.
        max_drop_on_old_test: of the model in production over the new one on what was the test set
            before, where newer data judge; see `Data.old_test`.
    """

    metric: str | None = None
    min: float | None = None
    max: float | None = None
    max_drop_vs_teacher: float | None = None
    max_drop_vs_float32: float | None = None
    min_gain_vs_baseline: float | None = None
    max_drop_on_old_test: float | None = None


@dataclass(frozen=True, kw_only=True)
class LatencyBudget:
    """Limits on time, in milliseconds: of a call, and from opening a file to its first answer."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    cold_start_ms: float | None = None

    @property
    def percentiles(self) -> dict[float, float]:
        """Those that are limited, percentile to milliseconds."""
        limits = {50.0: self.p50_ms, 95.0: self.p95_ms, 99.0: self.p99_ms}
        return {level: limit for level, limit in limits.items() if limit is not None}


@dataclass(frozen=True, kw_only=True)
class ParityBudget:
    """Limits on how far answers may be from those that were meant.

    Attributes:
        max_logit_std: of the difference, in units of the outputs' spread: of the float32 file from
            the torch model it came from (`parity_logit_std`), of any file on its target from its
            golden samples (`golden_output_std`), and on an emulated processor from here
            (`output_std_on_...`).
        min_top1_agreement: of any file with the torch model, of the largest output.
    """

    max_logit_std: float | None = None
    min_top1_agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """All limits; None is no limit."""

    accuracy: AccuracyBudget = field(default_factory=AccuracyBudget)
    latency: LatencyBudget = field(default_factory=LatencyBudget)
    min_samples_per_second: float | None = None
    size_bytes: int | None = None
    peak_rss_bytes: int | None = None
    parity: ParityBudget = field(default_factory=ParityBudget)
    confidence: float = 0.95


def parse_budget(values: Any) -> Budget:
    """Read a budget from plain values.

    Raises:
        UsageError: a field is unknown (the nearest are named) or makes no sense.
    """
    budget = from_json(Budget, values, where="budget")
    if not 0.5 <= budget.confidence < 1:
        raise UsageError(
            f"Expected `budget.confidence` from 0.5 to below 1 but got {budget.confidence}."
        )
    metric = budget.accuracy.metric
    known = [*(name for own in METRICS.values() for name in own), Quantiles.metric]
    if metric is not None and metric not in known:
        raise UsageError(
            f"Expected `budget.accuracy.metric` to be one of {', '.join(known)} but got {metric}."
        )
    return budget


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of a budget, held against one artefact on one target; a note says more."""

    artefact: str
    target: str
    name: str
    limit: float
    measured: float | None
    interval: Interval | None
    outcome: Outcome
    note: str | None = None


def at_most(measured: float, limit: float, interval: Interval | None) -> Outcome:
    """Pass if the whole interval is at or under the limit, fail if all of it is above."""
    low, high = interval or (measured, measured)
    if high <= limit:
        return Outcome.PASS
    return Outcome.FAIL if low > limit else Outcome.INCONCLUSIVE


def at_least(measured: float, limit: float, interval: Interval | None) -> Outcome:
    """Pass if the whole interval is at or over the limit, fail if all of it is below."""
    low, high = interval or (measured, measured)
    return at_most(-measured, -limit, (-high, -low))


def conjunction(outcomes: Sequence[Outcome]) -> Outcome:
    """One failure fails all; otherwise one inconclusive makes all inconclusive."""
    for worst in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        if worst in outcomes:
            return worst
    return Outcome.PASS


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The artefact to ship, or why there is none.

    Attributes:
        outcome: pass if an artefact passes; inconclusive if none does but one may; else fail.
        artefact: the cheapest that passes.
        per_artefact: each artefact's own conjunction.
    """

    outcome: Outcome
    artefact: str | None
    per_artefact: dict[str, Outcome]


def choose(checks: Sequence[Check], cost: dict[str, float]) -> Choice:
    """Take the cheapest artefact whose checks all pass.

    Args:
        checks: of all artefacts that may ship.
        cost: of every artefact that may ship, for example its p50 latency in ms; one without a
            check passes.
    """
    per_artefact = {
        name: conjunction([check.outcome for check in checks if check.artefact == name])
        for name in cost
    }
    passing = [name for name, outcome in per_artefact.items() if outcome is Outcome.PASS]
    if passing:
        cheapest = min(passing, key=lambda name: cost[name])
        return Choice(outcome=Outcome.PASS, artefact=cheapest, per_artefact=per_artefact)
    open_question = Outcome.INCONCLUSIVE in per_artefact.values()
    outcome = Outcome.INCONCLUSIVE if open_question else Outcome.FAIL
    return Choice(outcome=outcome, artefact=None, per_artefact=per_artefact)
