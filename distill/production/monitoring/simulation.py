"""What each way to decide when to train again would have cost, and saved, on days that are past.

A stand-in that trains in milliseconds (ridge regression on the inputs) lives through the log under
each policy: what it would have got wrong, how often it would have been trained, and how many labels
that would have taken. It compares policies, and says nothing of the student itself. Knows arrays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from distill.errors import UsageError
from distill.production.monitoring.audit import audited, labels_alone
from distill.production.monitoring.drift import of_points
from distill.production.monitoring.label_free import disagreement_based

Numbers = NDArray[np.float64]
Classes = NDArray[np.int64]

NEVER, CALENDAR, DRIFT, AUDITED, DISAGREEMENT, HYBRID = POLICIES = (
    "never",
    "calendar",
    "drift",
    "audited",
    "disagreement",
    "hybrid",
)
FEW_SHUFFLES = 199
MIN_ROWS = 50


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all policies share.

    Attributes:
        first_days: that the first model is trained on.
        window_days: that a policy looks back, and a training takes rows from.
        every_days: of the calendar.
        max_drop: of accuracy that is accepted.
        audit_share: of the rows that people label at random, every day, where a policy asks.
        labels: that a training buys.
        cooldown_days: between trainings.
        alarm_rate: of a look at the drift.
        seed: of all that is drawn.
    """

    first_days: int = 7
    window_days: int = 7
    every_days: int = 14
    max_drop: float = 0.05
    audit_share: float = 0.05
    labels: int = 300
    cooldown_days: int = 5
    alarm_rate: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in ("first_days", "window_days", "every_days", "labels", "cooldown_days"):
            if not getattr(self, name) >= 1:
                raise UsageError(f"Expected `plan.{name}` >= 1 but got {getattr(self, name)}.")
        if self.labels < MIN_ROWS:
            raise UsageError(
                f"Expected `plan.labels` >= {MIN_ROWS}, with which a stand-in can be trained, but "
                f"got {self.labels}."
            )
        if not 0 < self.audit_share <= 1:
            raise UsageError(
                f"Expected `plan.audit_share` above 0 and up to 1 but got {self.audit_share}."
            )


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Rows whose truth is known, in the order of time.

    Attributes:
        days: of each, from 0, [n].
        inputs: as numbers, [n, D].
        labels: classes, [n].
        teacher: the teacher's classes, [n]; None without one.
    """

    days: Classes
    inputs: Numbers
    labels: Classes
    teacher: Classes | None = None

    @property
    def num_days(self) -> int:
        """From the first to the last."""
        return int(self.days.max()) + 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a policy did.

    Attributes:
        policy: its name.
        accuracy: over all rows after the first model's.
        regret: accuracy lost against training anew every day with every label, times days.
        trainings: days on which it trained.
        num_needed: of them, on which accuracy really was below what is accepted.
        labels: that it took, audits included.
        delay_days: from the day on which accuracy fell to the training, on average; None where
            there was none to answer.
        by_day: accuracy of each day after the first model's.
    """

    policy: str
    accuracy: float
    regret: float
    trainings: tuple[int, ...]
    num_needed: int
    labels: int
    delay_days: float | None
    by_day: tuple[float, ...] = field(repr=False, default=())


Model = Callable[[Numbers], Classes]


def fit(inputs: Numbers, labels: Classes, num_classes: int) -> Model:
    """Train the stand-in: ridge regression on one column for each class."""
    middle, spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6

    def wide(values: Numbers) -> Numbers:
        return np.hstack([(values - middle) / spread, np.ones((len(values), 1))])

    known = wide(inputs)
    gram = known.T @ known + 0.03 * len(known) * np.eye(known.shape[1])
    weights = np.linalg.solve(gram, known.T @ np.eye(num_classes)[labels])
    return lambda values: (wide(values) @ weights).argmax(axis=1)


def simulate(stream: Stream, plan: Plan, *, policies: Sequence[str] = POLICIES) -> list[Outcome]:
    """Live through the stream under each policy.

    Policies that need a teacher are left out where there is none.

    Args:
        stream: what happened.
        plan: what they share.
        policies: by name.

    Raises:
        UsageError: the stream is too short, or its first days hold too few rows.
    """
    is_first = (stream.days < plan.first_days) & (stream.days >= plan.first_days - plan.window_days)
    known = int(is_first.sum())
    if stream.num_days <= plan.first_days or known < MIN_ROWS:
        raise UsageError(
            f"Expected more than {plan.first_days} days with the truth of at least {MIN_ROWS} rows "
            f"that the first model is trained on but got {stream.num_days} days and {known} rows. "
            "Take fewer `plan.first_days`, or wait for labels."
        )
    best = _Life(stream, plan, "best").live()
    wanted = [p for p in policies if stream.teacher is not None or p != DISAGREEMENT]
    outcomes = [_Life(stream, plan, policy).live() for policy in wanted]
    top = np.array(best.by_day)
    return [
        replace(own, regret=float(np.maximum(top - np.array(own.by_day), 0).sum()))
        for own in outcomes
    ]


class _Life:
    """One policy's way through the stream."""

    def __init__(self, stream: Stream, plan: Plan, policy: str) -> None:
        self.stream, self.plan, self.policy = stream, plan, policy
        self.num_classes = int(stream.labels.max()) + 1
        # The same rows are audited whoever asks.
        draws = np.random.default_rng(plan.seed).random(len(stream.days))
        self.is_audited = draws < plan.audit_share
        self.rng = np.random.default_rng(plan.seed + 1)
        self.num_labels = 0
        self._train(plan.first_days, everything=True)

    def live(self) -> Outcome:
        """Go through all days."""
        stream, plan = self.stream, self.plan
        by_day, trainings, needed, delays = [], [], 0, []
        fell: int | None = None
        right_rows = all_rows = 0
        for day in range(plan.first_days, stream.num_days):
            today = np.flatnonzero(stream.days == day)
            right = self.model(stream.inputs[today]) == stream.labels[today]
            by_day.append(float(right.mean()) if len(today) else np.nan)
            right_rows, all_rows = right_rows + int(right.sum()), all_rows + len(today)
            if self.policy in (AUDITED, HYBRID):
                self.num_labels += int(self.is_audited[today].sum())
            is_low = self._truth(day) < self.accepted - plan.max_drop
            fell = (fell if fell is not None else day) if is_low else None
            if self.policy == "best":
                self._train(day + 1, everything=True)
            elif day - self.trained >= plan.cooldown_days and self._asks(day):
                if not self._train(day + 1):
                    continue  # too few rows have their truth: it asks again tomorrow
                trainings.append(day)
                needed += int(is_low)
                if fell is not None:
                    delays.append(day - fell)
                    fell = None
        days = np.array(by_day)
        days = np.where(np.isnan(days), np.nanmean(days), days)
        return Outcome(
            policy=self.policy,
            accuracy=right_rows / max(all_rows, 1),
            regret=0.0,
            trainings=tuple(trainings),
            num_needed=needed,
            labels=self.num_labels,
            delay_days=float(np.mean(delays)) if delays else None,
            by_day=tuple(days.tolist()),
        )

    def _train(self, until: int, *, everything: bool = False) -> bool:
        """Train on rows of the window before a day; on all, or on as many as are bought.

        Tell whether there were enough.
        """
        stream = self.stream
        rows = self._window(until - 1)
        if not everything:
            rows = rows[self.rng.permutation(len(rows))[: self.plan.labels]]
        if len(rows) < MIN_ROWS:
            return False
        self.num_labels += 0 if everything else len(rows)
        x, y = stream.inputs[rows], stream.labels[rows]
        folds = np.arange(len(rows)) % 5
        right = np.zeros(len(rows), bool)
        for own in range(5):
            unseen = folds == own
            right[unseen] = fit(x[~unseen], y[~unseen], self.num_classes)(x[unseen]) == y[unseen]
        self.model, self.accepted = fit(x, y, self.num_classes), float(right.mean())
        self.trained, self.known, self.was_right = until - 1, rows, right
        return True

    def _window(self, day: int) -> NDArray[np.int64]:
        days = self.stream.days
        return np.flatnonzero((days > day - self.plan.window_days) & (days <= day))

    def _truth(self, day: int) -> float:
        rows = self._since_trained(day)
        if not len(rows):
            return self.accepted
        return float((self.model(self.stream.inputs[rows]) == self.stream.labels[rows]).mean())

    def _since_trained(self, day: int) -> NDArray[np.int64]:
        rows = self._window(day)
        return rows[self.stream.days[rows] > self.trained]

    def _asks(self, day: int) -> bool:
        plan = self.plan
        if self.policy == CALENDAR:
            return day - self.trained >= plan.every_days
        if self.policy == DRIFT:
            return self._has_drifted(day)
        if self.policy == AUDITED:
            return self._is_low(day, with_teacher=False)
        if self.policy == DISAGREEMENT:
            return self._disagrees(day)
        return self.policy == HYBRID and self._is_low(day, with_teacher=True)

    def _has_drifted(self, day: int) -> bool:
        inputs, rows = self.stream.inputs, self._window(day)
        if len(rows) < MIN_ROWS:
            return False
        found = of_points(
            "inputs",
            inputs[self._some(self.known)],
            inputs[self._some(rows)],
            rng=self.rng,
            num_shuffles=FEW_SHUFFLES,
        )
        return found.p_value <= max(self.plan.alarm_rate, 1 / (FEW_SHUFFLES + 1))

    def _some(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows[self.rng.permutation(len(rows))[:200]]

    def _is_low(self, day: int, *, with_teacher: bool) -> bool:
        """Whether audited labels say so, with the teacher's help where that is meant."""
        stream, rows = self.stream, self._since_trained(day)
        own = rows[self.is_audited[rows]]
        if not len(own):
            return False
        said = self.model(stream.inputs[rows])
        place = np.searchsorted(rows, own)
        right = said[place] == stream.labels[own]
        found = labels_alone(right)
        if with_teacher and stream.teacher is not None:
            agree = said == stream.teacher[rows]
            rest = ~self.is_audited[rows]
            found = audited(right, agree[place], agree[rest])
        return found.interval[1] < self.accepted - self.plan.max_drop

    def _disagrees(self, day: int) -> bool:
        teacher, rows = self.stream.teacher, self._since_trained(day)
        if teacher is None or len(rows) < MIN_ROWS:
            return False
        inputs = self.stream.inputs
        agreed = self.model(inputs[self.known]) == teacher[self.known]
        agree = self.model(inputs[rows]) == teacher[rows]
        found = disagreement_based(self.was_right, agreed, agree)
        return found.interval[1] < self.accepted - self.plan.max_drop
