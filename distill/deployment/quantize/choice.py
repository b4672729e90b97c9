"""Which of a model's candidates is worth shipping: plain figures in, a decision out.

A preselection on the validation set, by estimates; whether the chosen file holds the budget is
judged afterwards on the test set, with intervals. Knows nothing of how candidates are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from distill.statistics.metrics import Estimate
from distill.statistics.scoring import Paired


class Outcome(StrEnum):
    """Of a search for smaller numbers."""

    INT8 = "int8"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    REPAIR = "repair needed"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a candidate has to hold beside float32; None is no limit.

    Attributes:
        max_drop: of accuracy, or of what else decides (see `Scoring.compare`), as a fraction.
        min_agreement: how far it must say the same as float32 (see `Scoring.agreement`).
    """

    max_drop: float | None = None
    min_agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One file beside the float32 file it was made from; None is unknown.

    Attributes:
        recipe: its name, also that of its file.
        precision: `int8` or `float16`.
        base: the recipe whose layers were searched; None for a recipe of its own.
        excluded: layers that this search left in float.
        accuracy_drop: float32 minus candidate on validation, paired.
        agreement: with float32's answers on validation.
        logit_std: error of the answers over their standard deviation.
        latency_ratio: to float32, interleaved on the target.
        latency_of: the recipe whose file of the same structure was timed in its place.
        size_bytes: of the file.
        accurate: whether its accuracy holds its limit, by estimate.
        holds: whether it holds that of agreement, too.
        reason: why it is out of the running, if it is.
    """

    recipe: str
    precision: str
    base: str | None = None
    excluded: tuple[str, ...] = ()
    accuracy_drop: Paired | None = None
    agreement: Estimate | None = None
    logit_std: float | None = None
    latency_ratio: Estimate | None = None
    latency_of: str | None = None
    size_bytes: int | None = None
    accurate: bool | None = None
    holds: bool | None = None
    reason: str | None = None

    @property
    def is_shown_faster(self) -> bool:
        """Whether the whole interval of its ratio to float32 lies below 1."""
        return self.latency_ratio is not None and self.latency_ratio.interval[1] < 1


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to ship.

    Attributes:
        outcome: the precision, or that a repair is needed.
        recipe: of the candidate; None where it is float32 or none.
        why: in one sentence.
    """

    outcome: Outcome
    recipe: str | None
    why: str


def is_accurate(limits: Limits, accuracy_drop: Paired | None) -> bool:
    """Tell whether accuracy holds its limit by estimate; what is unknown holds only no limit."""
    drop = 1.0 if accuracy_drop is None else accuracy_drop.estimate
    return limits.max_drop is None or drop <= limits.max_drop


def agrees(limits: Limits, agreement: Estimate | None) -> bool:
    """Tell whether agreement with float32 holds its limit, likewise."""
    same = 0.0 if agreement is None else agreement.estimate
    return limits.min_agreement is None or same >= limits.min_agreement


def decide(candidates: Sequence[Candidate]) -> Decision:
    """Choose the fastest candidate that holds the limits and is shown faster than float32.

    Without one, float32, unless an int8 candidate is shown faster and its accuracy is missing: then
    a repair by training is worth its time. (It mends neither float16, nor agreement alone: answers
    that are as often right, but not the same.)
    """
    running = [candidate for candidate in candidates if candidate.reason is None]
    faster = {c.recipe: c.latency_ratio for c in running if c.is_shown_faster and c.latency_ratio}
    good = {c.recipe: c for c in running if c.recipe in faster and c.holds}
    if good:
        best = min(good, key=lambda recipe: faster[recipe].estimate)
        ratio = faster[best]
        return Decision(
            outcome=Outcome(good[best].precision),
            recipe=best,
            why=f"{best} holds the limits and takes {ratio.estimate:.2f} of float32's time "
            f"({ratio.interval[0]:.2f} to {ratio.interval[1]:.2f}).",
        )
    small = [c for c in running if c.recipe in faster and c.precision == Outcome.INT8]
    mendable = sum(not c.accurate for c in small)
    if mendable:
        return Decision(
            outcome=Outcome.REPAIR,
            recipe=None,
            why=f"{mendable} in int8 are faster than float32, but not as accurate as they must be.",
        )
    return Decision(
        outcome=Outcome.FLOAT32,
        recipe=None,
        why="No candidate that holds the limits is shown to be faster than float32.",
    )


def accept(candidate: Candidate) -> Decision:
    """Take the only candidate as it is, and say whether it holds the limits."""
    if candidate.reason is not None:
        why = f"{candidate.recipe} could not be made: {candidate.reason}"
        return Decision(outcome=Outcome.FLOAT32, recipe=None, why=why)
    if candidate.accurate or candidate.precision != Outcome.INT8:
        state = "holds" if candidate.holds else "does not hold"
        return Decision(
            outcome=Outcome(candidate.precision),
            recipe=candidate.recipe,
            why=f"{candidate.recipe} is the only recipe; it {state} the limits.",
        )
    return Decision(
        outcome=Outcome.REPAIR,
        recipe=candidate.recipe,
        why=f"{candidate.recipe} is less accurate than allowed.",
    )
