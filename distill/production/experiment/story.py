"""An experiment told from its log: where it stands, on what evidence, and how that came about.

Knows nothing of pages and pictures.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

from distill.budget import Outcome
from distill.errors import UserError, nearest
from distill.files import from_json, to_json
from distill.production.experiment.decision import Decision, Evidence, decide, estimated
from distill.production.experiment.gathering import gather
from distill.production.experiment.policy import Setting
from distill.production.experiment.rollout import Stage, State
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.moves import Move, experiments, moves_of
from distill.sequential import Estimate

NUM_POINTS = 60
RESULTS = {
    Outcome.PASS: "Successful",
    Outcome.FAIL: "Failed",
    Outcome.INCONCLUSIVE: "Inconclusive",
}  # as Argo Rollouts' web metric reads them


@dataclass(frozen=True, kw_only=True)
class Step:
    """A move as it was: when, and where to."""

    time: float
    state: State


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was believed at a moment."""

    time: float
    estimate: Estimate


@dataclass(frozen=True, kw_only=True)
class Story:
    """All that there is to tell.

    Attributes:
        setting: what it was set out to be.
        steps: all moves, the first one the beginning.
        evidence: up to now, or to the end.
        decision: on it.
        points: what was believed of the outcome, in the order of time.
        time: of this account, UTC seconds.
    """

    setting: Setting
    steps: tuple[Step, ...]
    evidence: Evidence
    decision: Decision
    points: tuple[Point, ...]
    time: float

    @property
    def state(self) -> State:
        """Where it is."""
        return self.steps[-1].state

    @property
    def outcome(self) -> Outcome:
        """What has come of it: an end that is reached stays, whatever comes in later."""
        if self.state.stage is Stage.ABORTED:
            return Outcome.FAIL
        if self.state.stage.is_over:
            return Outcome.PASS
        return self.decision.outcome


def find(engine: Engine, name: str | None) -> str:
    """Find an experiment by its name; None takes the latest.

    Raises:
        UserError: there is none.
    """
    known = experiments(engine)
    if not known:
        raise UserError(
            "Expected an experiment in the log but found none. Run `serve challenger=...`."
        )
    if name is None:
        return known[0]
    if name not in known:
        raise UserError(
            f"Expected an experiment in the log but got `{name}`. {nearest(name, known)}"
        )
    return name


def tell(engine: Engine, name: str, *, num_points: int = NUM_POINTS) -> Story:
    """Read an experiment.

    Args:
        engine: an open log.
        name: of the experiment.
        num_points: at which what was believed is worked out again; 0 for none.

    Raises:
        UserError: its moves are not ours.
        LogUnavailableError: the log cannot be read now.
    """
    moves = moves_of(engine, name)
    setting = from_json(Setting, json.loads(moves[0].evidence), where="setting")
    steps = tuple(map(_step, moves))
    now = time.time()
    running = [step.state for step in steps if not step.state.stage.is_over][-1]
    end = steps[-1].time if steps[-1].state.stage.is_over else now
    end = max(end, steps[0].time)  # a clock may have gone back
    evidence, _ = gather(engine, setting, running, until=end)
    return Story(
        setting=setting,
        steps=steps,
        evidence=evidence,
        decision=decide(setting.policy, evidence),
        points=tuple(_path(engine, setting, steps, end, num_points)),
        time=now,
    )


def document(story: Story) -> dict[str, Any]:
    """Say it in plain values, also for Argo Rollouts and Flagger."""
    state, outcome = story.state, story.outcome
    return {
        "experiment": story.setting.experiment,
        "result": RESULTS[outcome],
        "verdict": str(outcome),
        "stage": str(state.stage),
        "weight": state.weight,
        "is_paused": state.is_paused,
        "why": story.decision.why if not state.stage.is_over else state.why,
        "champion": to_json(story.setting.champion),
        "challenger": to_json(story.setting.challenger),
        "estimate": to_json(story.decision.estimate) if story.decision.estimate else None,
        "findings": to_json(story.decision.findings),
        "evidence": to_json(story.evidence),
        "policy": to_json(story.setting.policy),
        "steps": to_json(story.steps),
    }


def _step(move: Move) -> Step:
    return Step(time=move.time, state=from_json(State, json.loads(move.state), where="state"))


def _path(
    engine: Engine, setting: Setting, steps: tuple[Step, ...], end: float, count: int
) -> list[Point]:
    start = steps[0].time
    points = []
    for place in range(1, count + 1):
        at = start + (end - start) * place / count
        state = [step.state for step in steps if step.time <= at and not step.state.stage.is_over]
        evidence, _ = gather(engine, setting, state[-1], until=at)
        estimate = estimated(setting.policy, evidence)
        if estimate is not None and estimate.count:
            points.append(Point(time=at, estimate=estimate))
    return points
