"""An experiment told from its log: where it stands, on what evidence, and how that came about.

Knows nothing of pages and pictures.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

from distill.budget import Outcome
from distill.errors import UserError, nearest
from distill.files import to_json
from distill.production.experiment.course import Course, Step, read_course
from distill.production.experiment.decision import Decision, Evidence, decide, estimated
from distill.production.experiment.gathering import aftermath, gather, usual
from distill.production.experiment.policy import Setting
from distill.production.experiment.rollout import State, advance
from distill.production.experiment.watch import decide_aftermath
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.moves import experiments
from distill.statistics.sequential import Estimate

NUM_POINTS = 60
RESULTS = {
    Outcome.PASS: "Successful",
    Outcome.FAIL: "Failed",
    Outcome.INCONCLUSIVE: "Inconclusive",
}  # as Argo Rollouts' web metric reads them


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
        aftermath: on what was seen since a promotion that is, or was, watched; else None.
        points: what was believed of the outcome, in the order of time.
        challenger_units: that the challenger has answered since its stage and step began.
        time: of this account, UTC seconds.
    """

    setting: Setting
    steps: tuple[Step, ...]
    evidence: Evidence
    decision: Decision
    aftermath: Decision | None
    points: tuple[Point, ...]
    challenger_units: int
    time: float

    @property
    def state(self) -> State:
        """Where it is."""
        return self.steps[-1].state

    @property
    def standing(self) -> State:
        """Where it is, and whether and why it waits there, as whoever serves it says."""
        now = advance(
            self.setting.policy,
            self.state,
            self.decision,
            challenger_units=self.challenger_units,
            now=self.state.since,  # whether time is up is for whoever serves it to say
        )
        return now if now.stage is self.state.stage and now.step == self.state.step else self.state

    @property
    def outcome(self) -> Outcome:
        """What has come of it: an end that is reached stays, whatever comes in later."""
        if self.state.stage.is_failed:
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
    course, now = read_course(engine, name), time.time()
    setting, steps = course.setting, course.steps
    end = max(course.over or now, steps[0].time)  # a clock may have gone back
    evidence, challenger_units = gather(engine, setting, course.running, until=end)
    return Story(
        setting=setting,
        steps=steps,
        evidence=evidence,
        decision=decide(setting.policy, evidence),
        aftermath=_aftermath(engine, course),
        points=tuple(_path(engine, setting, steps, end, num_points)),
        challenger_units=challenger_units,
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
        "is_paused": story.standing.is_paused,
        "until": state.until,
        "why": story.decision.why if not state.stage.is_over else state.why,
        "champion": to_json(story.setting.champion),
        "challenger": to_json(story.setting.challenger),
        "estimate": _estimate(story),
        "findings": to_json(story.decision.findings),
        "aftermath": to_json(story.aftermath.findings) if story.aftermath else None,
        "evidence": to_json(story.evidence),
        "policy": to_json(story.setting.policy),
        "steps": to_json(story.steps),
    }


def _estimate(story: Story) -> dict[str, Any] | None:
    """Say what is known of the outcome, by names that cannot be taken for what decides.

    Whether there is enough for a limit theorem is in the interval already: until then it is
    endless, or exact, as that of pairs is.
    """
    found, policy = story.decision.estimate, story.setting.policy
    if found is None:
        return None
    return {
        "challenger_minus_champion": found.estimate,
        "interval": list(found.interval) if math.isfinite(found.interval[1]) else None,
        "count": found.count,
        "p_value_of_no_difference": found.p_value,
        "reading": (
            f"It passes once the whole interval is above -{policy.margin:g}, the margin. The "
            "p-value is of no difference at all: it may be large for one that is no worse."
        ),
    }


def _aftermath(engine: Engine, course: Course) -> Decision | None:
    promoted, policy = course.promoted, course.setting.policy
    if promoted is None or not policy.rollback_window_seconds:
        return None
    until = course.state.since if course.state.stage.is_failed else course.state.until
    before = usual(engine, course.setting, course.begun, promoted)
    found = aftermath(engine, course.setting, before, promoted, until=until)
    return decide_aftermath(policy, found)


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
