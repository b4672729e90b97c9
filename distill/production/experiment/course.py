"""The course of an experiment as its log has it: what it was set out to be, and every move since.

Knows nothing of evidence, nor of pages.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from distill.files import from_json
from distill.production.experiment.policy import Setting
from distill.production.experiment.rollout import Stage, State
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.moves import Move, experiments, moves_of


@dataclass(frozen=True, kw_only=True)
class Step:
    """A move as it was: when, and where to."""

    time: float
    state: State


@dataclass(frozen=True, kw_only=True)
class Course:
    """All moves of one experiment.

    Attributes:
        name: of the experiment.
        setting: what it was set out to be, with the versions that its two files have had of late.
        steps: the first one is the beginning.
        findings: on which each of them rests, as plain values; none where a person moved it.
    """

    name: str
    setting: Setting
    steps: tuple[Step, ...]
    findings: tuple[tuple[Mapping[str, Any], ...], ...]

    @property
    def identity(self) -> str:
        """Tell it from one of the same name in another log, such as one that was begun anew."""
        return f"{self.name} of {datetime.fromtimestamp(self.steps[0].time, UTC).isoformat()}"

    @property
    def state(self) -> State:
        """Where it is."""
        return self.steps[-1].state

    @property
    def running(self) -> State:
        """Where it is, or was last while it was not over."""
        return [step.state for step in self.steps if not step.state.stage.is_over][-1]

    @property
    def over(self) -> float | None:
        """When it was over, UTC seconds; None while it is not."""
        return next((step.time for step in self.steps if step.state.stage.is_over), None)

    @property
    def begun(self) -> float | None:
        """When the challenger first answered somebody; None where it never did."""
        state = self._first(Stage.CANARY)
        return None if state is None else state.since

    @property
    def promoted(self) -> float | None:
        """When it became champion; None where it did not."""
        return None if self.promotion is None else self.promotion.since

    @property
    def promotion(self) -> State | None:
        """How it became champion; None where it did not."""
        return self._first(Stage.PROMOTED)

    def _first(self, stage: Stage) -> State | None:
        states = (step.state for step in self.steps)
        return next((state for state in states if state.stage is stage), None)


def read_course(engine: Engine, name: str) -> Course:
    """Read it.

    Args:
        engine: an open log.
        name: of an experiment that is there.

    Raises:
        UserError: its moves are not ours.
        LogUnavailableError: the log cannot be read now.
    """
    moves = moves_of(engine, name)
    first, *others = (json.loads(move.evidence) or {} for move in moves)
    settings = [first, *(one["setting"] for one in others if "setting" in one)]
    return Course(
        name=name,
        setting=from_json(Setting, settings[-1], where="setting"),
        steps=tuple(map(step_of, moves)),
        findings=tuple(tuple(one.get("findings", ())) for one in (first, *others)),
    )


def step_of(move: Move) -> Step:
    """Read one move."""
    return Step(time=move.time, state=from_json(State, json.loads(move.state), where="state"))


def latest_of(engine: Engine, model: str, *, but: str | None = None) -> Course | None:
    """Find the latest experiment about a model.

    Args:
        engine: an open log.
        model: name of the champion.
        but: an experiment that is not meant.

    Raises:
        UserError: its moves are not ours.
        LogUnavailableError: the log cannot be read now.
    """
    for name in experiments(engine):
        if name != but:
            course = read_course(engine, name)
            if course.setting.champion.name == model:
                return course
    return None
