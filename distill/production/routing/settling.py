"""Brings the registry to what the log says of experiments, and answers by that at once.

A move stands in the log before the registry has it: that may be held for minutes, its disk may be
full, or a kill comes in between. So what is missing there is found from the log, at the start and
after each such move, until it is written. Knows nothing of why an experiment moves on.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distill.errors import UserError
from distill.production.experiment.course import Course, latest_of, read_course
from distill.production.experiment.policy import Contender, Setting
from distill.production.experiment.rollout import Stage
from distill.production.prediction_log.connection import Engine
from distill.production.routing.trial import Trial
from distill.production.serving.catalogue import Catalogue, Name
from distill.production.serving.editions import Artefact

Write = Callable[[], Any]
Due = Callable[[Course], Write | None]
Told = Callable[[Course], Any]


@dataclass(kw_only=True)
class Settling:
    """Of the experiments of one process; every process of a service has one, and any may write.

    Attributes:
        engine: the log.
        catalogue: who answers.
        due: finds what the registry has yet to be told of an experiment's end; None where nothing.
        told: writes down the moves of an experiment that changed nobody, where they are lacking.
        old: finds the champion before.
    """

    engine: Engine
    catalogue: Catalogue
    due: Due
    told: Told
    old: Callable[[Setting], Artefact | None]
    has_begun: bool = False
    _open: str | None = None  # the experiment whose end the registry may not have yet
    _seen: tuple[str, Stage] | None = None  # the last end that was, or is, in `_open`
    _moved: tuple[str, int] | None = None  # the last move that was, or is, in `_untold`
    _untold: list[str] = field(default_factory=list)  # experiments whose moves it may not have

    def is_settled(self, trial: Trial) -> bool:
        """Tell whether the registry has the end of a trial."""
        return self._open is None and self._seen == _end(trial)

    async def find(self, trial: Trial | None) -> Write | None:
        """Find what is to be written, and let the old champion answer where it is to again.

        Raises:
            UserError: log or ledger cannot be read.
        """
        course = await asyncio.to_thread(self._unsettled, trial)
        if course is None:
            return None
        try:
            write = await asyncio.to_thread(self.due, course)
        except (UserError, OSError):  # what did harm a moment ago goes, whatever the ledger says
            if self._seen == (course.name, Stage.ROLLED_BACK):
                await self._bring_back(course.setting)
            raise
        if write is None:
            self._open = None
            if self.catalogue.release():
                await self.catalogue.reload()
        elif course.state.stage is Stage.ROLLED_BACK:
            await self._bring_back(course.setting)
        return write

    async def _bring_back(self, setting: Setting) -> None:
        former, harmful = _name(setting.champion), _name(setting.challenger)
        await self.catalogue.bring_back(former, harmful, lambda: self._former(setting))

    def tell(self) -> None:
        """Write down the moves that changed nobody.

        Raises:
            UserError: log or ledger cannot be read, or the registry is held or cannot be written;
                what is lacking is found again.
        """
        while self._untold:
            self.told(read_course(self.engine, self._untold[0]))
            self._untold.pop(0)

    async def settle(self, write: Write | None) -> None:
        """Write it, and follow it before the catalogue would look by itself.

        Raises:
            UserError: the registry is held or cannot be written; it is found again.
        """
        if write is not None:
            await asyncio.to_thread(write)
            self._open = None
            self.catalogue.release()
            await self.catalogue.reload()

    def _unsettled(self, trial: Trial | None) -> Course | None:
        if not self.has_begun:  # what a service before this one left
            course = latest_of(self.engine, self.catalogue.current.model)
            if course is not None:
                self._untold.append(course.name)
                if course.state.stage.changes_champion:
                    self._open = course.name
            self.has_begun = True
        if trial is not None:
            self._look_at(trial)
        return None if self._open is None else read_course(self.engine, self._open)

    def _look_at(self, trial: Trial) -> None:
        name = trial.setting.experiment
        moved, end = (name, trial.num_moves), _end(trial)
        if moved != self._moved:
            self._moved = moved
            if name not in self._untold:
                self._untold.append(name)
        if end is not None and end != self._seen:
            self._open, self._seen = name, end

    def _former(self, setting: Setting) -> Artefact:
        found = self.old(setting)
        if found is None:
            raise UserError(
                f"Expected {setting.champion} in the registry, to answer again, but it is not "
                "known there. Start `serve` with the registry that the log is about."
            )
        return found


def _end(trial: Trial) -> tuple[str, Stage] | None:
    stage = trial.state.stage
    return (trial.setting.experiment, stage) if stage.changes_champion else None


def _name(contender: Contender) -> Name:
    return contender.version, contender.artefact_sha256
