"""A challenger that is being tried: where it is, what it has failed at, and how that is told.

Knows nothing of requests but what an answer says.
"""

import time
from dataclasses import dataclass
from typing import Any

from distill.production.experiment.decision import Decision
from distill.production.experiment.policy import Setting
from distill.production.experiment.rollout import Stage, State
from distill.production.prediction_log.records import Role
from distill.production.routing.announcer import take_over
from distill.production.routing.challenger import Challenger, ChallengerError
from distill.production.serving.exchange import Answer, InferenceRequest
from distill.production.serving.seen import Seen


@dataclass(kw_only=True)
class Trial:
    """A challenger that is being tried against a champion.

    Attributes:
        setting: who is tried against whom, and by which rules.
        challenger: the process; None once the service itself answers by it, as the champion.
        state: where the experiment is.
        deadline_ms: of the challenger; at most half of what a request has left.
        seen: by its training; None where that is as much as the champion's.
        num_moves: of the experiment, that are in `state`.
        num_failures: in a row, up to now.
        ban: why nobody is to be answered by it any more, from this moment on.
        decision: on what was seen so far; None before the first look.
        unproven: why it may not become champion by itself; None where it may.
    """

    setting: Setting
    challenger: Challenger | None
    state: State
    deadline_ms: float
    seen: Seen | None = None
    num_moves: int = 0
    num_failures: int = 0
    ban: str | None = None
    decision: Decision | None = None
    unproven: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the challenger has nothing to do any more."""
        return self.state.stage.is_over and not self.state.weight

    @property
    def watched_s(self) -> float:
        """For how many seconds harm would still bring the old champion back."""
        now = time.time()
        return (self.state.until or 0) - now if self.state.is_watched(now) else 0.0

    def by(self, request: InferenceRequest, role: Role) -> Answer:
        """Make an answer of the challenger, without outputs yet."""
        odd_rows = request.odd_rows
        if self.seen is not None:
            odd_rows = self.seen.odd_rows(request.feeds, request.num_rows)
        return Answer(
            outputs={},
            model=self.setting.challenger.name,
            version=self.setting.challenger.version,
            artefact_sha256=self.setting.challenger.artefact_sha256,
            role=role,
            experiment=self.setting.experiment,
            stage=self.state.stage,
            odd_rows=odd_rows,
        )

    def counted(self, error: ChallengerError | None) -> None:
        """Count a failure, or that there was none; to be asked too much at once is neither."""
        if error is not None and error.kind == "busy":
            return  # one that hangs is ended by its watch
        self.num_failures = 0 if error is None else self.num_failures + 1
        if self.ban is None and self.num_failures >= self.setting.policy.max_consecutive_failures:
            self.ban = f"it failed {self.num_failures} times in a row; the last time: {error}"


def standing(trial: Trial) -> dict[str, Any]:
    """Tell where a trial is, for the dashboard and the metrics."""
    state, challenger, decision = trial.state, trial.challenger, trial.decision
    is_champion = challenger is None and not trial.is_over
    is_ready = challenger is not None and challenger.is_ready
    decided = state.stage is Stage.DECIDED and trial.ban is None
    estimate = None if decision is None else decision.estimate
    return {
        "name": trial.setting.experiment,
        "champion": str(trial.setting.champion),
        "challenger": str(trial.setting.challenger),
        "stage": state.name,
        "phase": str(state.stage),
        "weight": 0.0 if trial.ban else state.weight,
        "is_paused": state.is_paused,
        "is_over": trial.is_over,
        "why": trial.ban or state.why,
        "verdict": _verdict(trial),
        "difference": None if estimate is None or not estimate.count else estimate.estimate,
        "standing": _named(trial, is_champion=is_champion, is_ready=is_ready),
        "next": take_over(trial.setting, trial.unproven) if decided else None,
        "watched_s": trial.watched_s,
        "is_champion": is_champion,
        "is_ready": is_ready,
        "num_starts": 0 if challenger is None else challenger.num_starts,
        "last_error": None if challenger is None else challenger.last_error,
    }


def _verdict(trial: Trial) -> str:
    if trial.ban is not None or trial.state.stage.is_failed:
        return "fail"
    if trial.state.stage.is_over:
        return "pass"
    return "inconclusive" if trial.decision is None else str(trial.decision.outcome)


def _named(trial: Trial, *, is_champion: bool, is_ready: bool) -> str:
    if trial.ban is None and trial.state.stage is Stage.DECIDED:
        return "may take over"
    if is_champion:
        return "champion"
    if is_ready:
        return "ready"
    if trial.is_over:
        return "sent away"
    last_error = None if trial.challenger is None else trial.challenger.last_error
    return f"not running: {last_error or 'it starts'}"
