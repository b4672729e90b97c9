"""When to train again: by the calendar, by audited labels, by the teacher, by what is new.

Drift alone asks for an investigation and never for a training: inputs change all the time without
harm. Whoever has just trained, or has no budget left, waits. Knows figures alone.
"""

from dataclasses import dataclass
from typing import Literal

from distill.errors import UsageError
from distill.wording import ERRORS, metric_interval, metric_name, metric_text

Asks = Literal["retrain", "investigate"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What fires.

    Attributes:
        max_drop: of accuracy below that of the test set; of an error the share by which it may be
            larger; more is a reason to train again.
        max_age_days: since the model's first answer; None never.
        min_new_labels: since then; None never.
        max_skew: share of rows that hold what training has never seen; more is a reason to look.
        cooldown_days: after the model's first answer, in which nothing asks for a training.
        max_retrainings: in `budget_days`; None sets no limit.
        budget_days: see there.
    """

    max_drop: float = 0.02
    max_age_days: float | None = None
    min_new_labels: int | None = None
    max_skew: float | None = 0.01
    cooldown_days: float = 7.0
    max_retrainings: int | None = None
    budget_days: float = 90.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in ("max_drop", "cooldown_days", "budget_days"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"Expected `rules.{name}` >= 0 but got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What rules look at; None where it is not known.

    Attributes:
        age_days: of the model.
        reference: how good it is on the test set.
        metric: that this is in.
        audited: bounds of how good it is, by labels of a random slice.
        estimated: likewise, by the teacher's answers; of classes alone.
        drifted: names of what stands out.
        skew: share of rows with what training has never seen.
        num_new_labels: since the model's first answer.
        num_retrainings: in the last `budget_days`.
    """

    age_days: float
    reference: float
    metric: str = "accuracy"
    audited: tuple[float, float] | None = None
    estimated: tuple[float, float] | None = None
    drifted: tuple[str, ...] = ()
    skew: float = 0.0
    num_new_labels: int = 0
    num_retrainings: int = 0


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """One rule, and what it says now.

    Attributes:
        name: age, audited accuracy (or the task's metric), disagreement, drift, skew or new labels.
        fires: whether it asks for something.
        asks: for what.
        why: in words.
        held: for how long or why nothing follows though it fires, and the key that says so; None
            where something does.
    """

    name: str
    fires: bool
    asks: Asks
    why: str
    held: str | None = None

    @property
    def tells_worse(self) -> bool:
        """Whether it fires since answers are worse, and not by the calendar or for new labels."""
        return self.fires and (self.name.startswith("audited ") or self.name == "disagreement")


def triggers(rules: Rules, known: Known) -> list[Trigger]:
    """Ask every rule."""
    without_teacher = (
        "no teacher answers"
        if known.metric == "accuracy"
        else "a teacher is asked of classes alone"
    )
    name = f"audited {metric_name(known.metric)}"
    found = [
        _by_metric(name, rules, known, known.audited, "no labels of a random slice yet"),
        _by_metric("disagreement", rules, known, known.estimated, without_teacher),
        _age(rules, known),
        _labels(rules, known),
        Trigger(
            name="drift",
            fires=bool(known.drifted),
            asks="investigate",
            why=f"{', '.join(known.drifted)} changed more than luck does"
            if known.drifted
            else "nothing stands out",
        ),
        Trigger(
            name="skew",
            fires=rules.max_skew is not None and known.skew > rules.max_skew,
            asks="investigate",
            why=f"{known.skew:.1%} of the rows hold what training has never seen",
        ),
    ]
    held = _held(rules, known)
    return [
        Trigger(name=t.name, fires=t.fires, asks=t.asks, why=t.why, held=held)
        if t.fires and t.asks == "retrain"
        else t
        for t in found
    ]


def _by_metric(
    name: str, rules: Rules, known: Known, bounds: tuple[float, float] | None, otherwise: str
) -> Trigger:
    if bounds is None:
        return Trigger(name=name, fires=False, asks="retrain", why=otherwise)
    (low, high), metric = bounds, known.metric
    if metric in ERRORS:
        limit, beyond = known.reference * (1 + rules.max_drop), "above"
        is_worse, is_as_good = low > limit, high <= limit
    else:
        limit, beyond = known.reference - rules.max_drop, "below"
        is_worse, is_as_good = high < limit, low >= limit
    told = metric_text(metric, limit, 1)
    between = f"{metric_name(metric)} is {metric_interval(metric, bounds, 1)}"
    if is_worse:
        why = f"{between}, {beyond} {told} that is accepted"
    elif is_as_good:
        why = f"{between}, not {beyond} {told}"
    else:
        why = f"{between}: whether it is {beyond} {told} cannot be told yet"
    return Trigger(name=name, fires=is_worse, asks="retrain", why=why)


def _age(rules: Rules, known: Known) -> Trigger:
    limit = rules.max_age_days
    return Trigger(
        name="age",
        fires=limit is not None and known.age_days > limit,
        asks="retrain",
        why=f"{known.age_days:.0f} days old" + ("" if limit is None else f", of {limit:g}"),
    )


def _labels(rules: Rules, known: Known) -> Trigger:
    limit = rules.min_new_labels
    return Trigger(
        name="new labels",
        fires=limit is not None and known.num_new_labels >= limit,
        asks="retrain",
        why=f"{known.num_new_labels:,} since its first answer"
        + ("" if limit is None else f", of {limit:,}"),
    )


def _held(rules: Rules, known: Known) -> str | None:
    if known.age_days < rules.cooldown_days:
        left = rules.cooldown_days - known.age_days
        return f"for {left:.1f} days, since the model is new (`rules.cooldown_days`)"
    limit = rules.max_retrainings
    if limit is not None and known.num_retrainings >= limit:
        return (
            f"since there were {known.num_retrainings} trainings in {rules.budget_days:g} days "
            "already (`rules.max_retrainings`)"
        )
    return None
