"""The way of a challenger: shadow, a growing share of the units, then champion or sent away.

A pure state machine: a state, a decision and the time in, the next state out. Whoever is not known
to be good goes no further; whoever does harm is gone at once, also within a while after it became
champion. Knows no statistics and no requests.

    shadow -> canary 1 % -> ... -> canary 50 % -> promoted          `advance`, on proof
                                               -> decided           where somebody else promotes
    shadow, canary -> aborted                                       `advance` on harm; `sent_away`
    promoted -> rolled_back                  `watch` on harm; `sent_away`; `rolled_back` by somebody
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from distill.budget import Outcome
from distill.production.experiment.decision import Decision
from distill.production.experiment.policy import Policy


class Stage(StrEnum):
    """Where a challenger is."""

    SHADOW = "shadow"  # it answers beside the champion, and nobody sees it
    CANARY = "canary"  # it answers some of the units
    DECIDED = "decided"  # better or no worse, and somebody else promotes
    PROMOTED = "promoted"  # it is champion, and the old one is warm
    ABORTED = "aborted"  # sent away
    ROLLED_BACK = "rolled_back"  # it was champion, and another one answers again

    @property
    def is_over(self) -> bool:
        """Whether the experiment is."""
        return self not in (Stage.SHADOW, Stage.CANARY)

    @property
    def is_failed(self) -> bool:
        """Whether nobody is answered by the challenger any more."""
        return self in (Stage.ABORTED, Stage.ROLLED_BACK)

    @property
    def changes_champion(self) -> bool:
        """Whether another one is champion with it."""
        return self in (Stage.PROMOTED, Stage.ROLLED_BACK)


@dataclass(frozen=True, kw_only=True)
class State:
    """Of one experiment.

    Attributes:
        stage: where the challenger is.
        step: of the policy's steps, from 0; None outside a canary.
        weight: share of the units that it answers.
        since: when the stage and step began, UTC seconds.
        is_paused: whether it waits: what is known so far does not decide.
        until: until then nobody else is tried: the end of the cooldown after an abort or rollback,
            of the rollback window after a promotion.
        why: it is where it is.
    """

    stage: Stage
    step: int | None = None
    weight: float = 0.0
    since: float
    is_paused: bool = False
    until: float | None = None
    why: str = "the experiment begins"

    @property
    def name(self) -> str:
        """Of stage and step, in words."""
        if self.step is not None:
            return f"{self.stage} {self.weight:.0%}"
        return self.stage.replace("_", " ")

    def is_watched(self, now: float) -> bool:
        """Whether harm would still bring the old champion back."""
        return self.stage is Stage.PROMOTED and now < (self.until or 0)


def begin(policy: Policy, now: float) -> State:
    """Start an experiment."""
    if policy.starts_in_shadow:
        return State(stage=Stage.SHADOW, since=now)
    return _at_step(policy, 0, now, "the experiment begins")


def advance(
    policy: Policy,
    state: State,
    decision: Decision,
    *,
    challenger_units: int,
    now: float,
    unproven: Callable[[], str | None] = lambda: None,
) -> State:
    """Take the next step, if there is one to take; an ended experiment stays as it is.

    Args:
        policy: the rules.
        state: so far.
        decision: on all that was seen so far.
        challenger_units: that the challenger has answered since the step began.
        now: UTC seconds; a clock that went back ends nothing.
        unproven: says why it may not become champion by itself, and so is decided; asked then.
    """
    if state.stage.is_over:
        return state
    if decision.outcome is Outcome.FAIL:
        return sent_away(policy, state, decision.why, now)
    if decision.outcome is Outcome.PASS and challenger_units >= policy.min_units:
        return _forward(policy, state, decision.why, now, unproven)
    if now - state.since > policy.max_step_seconds:
        why = f"no decision within {policy.max_step_seconds:g} s at {state.name}: {decision.why}"
        return sent_away(policy, state, why, now)
    if decision.outcome is Outcome.PASS:
        why = f"{challenger_units:,} of the {policy.min_units:,} units that a step forward needs"
    else:
        why = decision.why
    return dataclasses.replace(state, is_paused=True, why=why)


def watch(policy: Policy, state: State, decision: Decision, *, now: float) -> State:
    """Take a promotion back that has done harm within its window; all else stays as it is.

    Args:
        policy: the rules.
        state: so far.
        decision: on all that was seen since the promotion.
        now: UTC seconds; a clock that went back ends no window.
    """
    if decision.outcome is not Outcome.FAIL or not state.is_watched(now):
        return state
    return sent_away(policy, state, decision.why, now)


def sent_away(policy: Policy, state: State, why: str, now: float) -> State:
    """Answer nobody by the challenger any more, at once; a failed one stays as it is."""
    if state.stage.is_failed:
        return state
    stage = Stage.ROLLED_BACK if state.stage is Stage.PROMOTED else Stage.ABORTED
    return State(stage=stage, since=now, until=now + policy.cooldown_seconds, why=why)


def rolled_back(state: State, why: str, now: float) -> State:
    """Note that somebody has brought the old champion back; nothing need cool down."""
    if state.stage is not Stage.PROMOTED:
        return state
    return State(stage=Stage.ROLLED_BACK, since=now, why=why)


def _forward(
    policy: Policy, state: State, why: str, now: float, unproven: Callable[[], str | None]
) -> State:
    following = 0 if state.step is None else state.step + 1
    if following < len(policy.steps):
        return _at_step(policy, following, now, why)
    if not policy.promotes or not policy.steps:
        return State(stage=Stage.DECIDED, since=now, why=why)
    hindrance = unproven()
    if hindrance is not None:
        return State(stage=Stage.DECIDED, since=now, why=f"{why}; but {hindrance}")
    until = now + policy.rollback_window_seconds
    return State(stage=Stage.PROMOTED, weight=1.0, since=now, until=until, why=why)


def _at_step(policy: Policy, step: int, now: float, why: str) -> State:
    return State(stage=Stage.CANARY, step=step, weight=policy.steps[step], since=now, why=why)
