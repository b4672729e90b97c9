"""The course of an experiment as its log has it: what it was set out to be, and every move since.

Knows nothing of evidence, nor of pages.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
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
        setting: what it was set out to be.
        steps: the first one is the beginning.
        findings: on which the last one rests, as plain values; none where a person moved it.
    """

    name: str
    setting: Setting
    steps: tuple[Step, ...]
    findings: tuple[Mapping[str, Any], ...] = ()

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
        return self._since(Stage.CANARY)

    @property
    def promoted(self) -> float | None:
        """When it became champion; None where it did not."""
        return self._since(Stage.PROMOTED)

    def _since(self, stage: Stage) -> float | None:
        states = (step.state for step in self.steps)
        return next((state.since for state in states if state.stage is stage), None)


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
    setting = from_json(Setting, json.loads(moves[0].evidence), where="setting")
    return Course(
        name=name,
        setting=setting,
        steps=tuple(map(step_of, moves)),
        findings=tuple((json.loads(moves[-1].evidence) or {}).get("findings", ())),
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
