"""Leads experiments: says who is tried, starts and ends its process, and looks again and again.

Every process of a service has one; what they decide they decide from the same log. A challenger of
the registry that was promoted goes on answering until the catalogue has it, and is watched until
its window ends. Knows nothing of HTTP, nor of what decides.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from distill.errors import UserError
from distill.files import sha256
from distill.production.experiment.course import Course, latest_of, read_course
from distill.production.experiment.policy import Contender, Policy, Setting
from distill.production.experiment.rollout import (
    Stage,
    begin,
    rolled_back,
)
from distill.production.registry.ledger import Entry
from distill.production.routing.announcer import Announcer
from distill.production.routing.challenger import Challenger
from distill.production.routing.conducting import Conducting
from distill.production.routing.entrance import contract_beside, seen_otherwise, why_not
from distill.production.routing.mover import Mover
from distill.production.routing.router import TrialRouter
from distill.production.routing.settling import Due, Settling, Told
from distill.production.routing.trial import Trial
from distill.production.serving.catalogue import Catalogue, Source
from distill.production.serving.editions import Artefact, Edition
from distill.runtime import ModelError

log = logging.getLogger(__name__)


def _stand_back() -> None:
    """Give way to whoever answers requests: what is read takes long, and nobody waits for it."""
    with contextlib.suppress(OSError, AttributeError):  # of threads, on Linux alone
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


_ASIDE = ThreadPoolExecutor(1, "conductor", _stand_back)


@dataclass(kw_only=True)
class Conductor:
    """Leads the trial of one challenger after another.

    Attributes:
        router: whose trial it sets.
        mover: moves its trials on; it has the log.
        catalogue: who is champion.
        challengers: says who is to be tried.
        policy: the rules.
        conducting: the rest.
        replaced: finds what has put another in the place of a champion by an experiment; None
            while nothing has.
        old: finds the champion before, to be kept warm; None where it answers anyway.
        due: finds what the registry has yet to be told of who is champion.
        told: writes the moves that changed nobody into the registry's history.
        unproven: says why a challenger may not become champion by itself; None where it may.
    """

    router: TrialRouter
    mover: Mover
    catalogue: Catalogue
    challengers: Source
    policy: Policy
    conducting: Conducting
    replaced: Callable[[Course], Entry | None] = lambda _: None
    old: Callable[[Setting], Artefact | None] = lambda _: None
    due: Due = lambda _: None
    told: Told = lambda _: None
    unproven: Callable[[Setting], str | None] = lambda _: None
    _settling: Settling = field(init=False)
    _untold: str | None = None  # why the registry does not have our moves
    _read_s: float = 0.0  # that the last look took to read the log
    _announcer: Announcer = field(default_factory=Announcer)
    _nobody: str = ""
    _mark: Any = None
    _wanted: Artefact | None = None

    def __post_init__(self) -> None:
        """Begin with what a service before this one left."""
        self._settling = Settling(
            engine=self.mover.engine,
            catalogue=self.catalogue,
            due=self.due,
            told=self.told,
            old=self.old,
        )

    async def run(self) -> None:
        """Lead until cancelled."""
        try:
            while True:
                # A long log takes long to read: at most a tenth of the time goes to it.
                await self._rest(9 * await self.tick())
        finally:
            await self.close()

    async def close(self) -> None:
        """End the challenger's process; the experiment goes on when somebody leads it again."""
        await self._end_trial()

    async def _rest(self, seconds: float) -> None:
        """Wait for the next look, a tick at least; what is untold is told as soon as it can be."""
        tick_s = self.conducting.tick_seconds
        while self._untold is not None and seconds > tick_s:
            await asyncio.sleep(tick_s)
            seconds -= tick_s
            await self._tell()
        await asyncio.sleep(max(tick_s, seconds))

    async def tick(self) -> float:
        """Look once, whether or not the registry can be told.

        Returns:
            The seconds that reading the log for a decision took.
        """
        if not self._settling.has_begun:
            await self._tell()
        self._read_s = 0.0
        await self._look()
        await self._tell()
        return self._read_s

    def _advance(self, trial: Trial) -> None:
        started = time.monotonic()
        try:
            self.mover.advance(trial)
        finally:
            self._read_s = time.monotonic() - started

    async def _look(self) -> None:
        try:
            await self._follow_challenger()
            trial = self.router.trial
            if trial is None:
                return
            self.router.problem = self._untold
            await asyncio.get_running_loop().run_in_executor(_ASIDE, self._advance, trial)
            if trial.is_over and trial.challenger is not None:
                await trial.challenger.stop()
        except (UserError, ModelError, OSError) as error:
            self.router.problem = str(error)
            log.warning("The experiment does not move: %s", error)
        except Exception as error:  # it must be looked at again, whatever it was
            self.router.problem = f"The experiment does not move: {error}"
            log.exception("The experiment does not move.")

    async def _tell(self) -> None:
        """Tell the registry what it does not know yet; where that fails, again at the next look."""
        before = self._untold
        try:
            write = await self._settling.find(self.router.trial)
            await asyncio.to_thread(self._settling.tell)
            await self._settling.settle(write)
            self._untold = None
        except (UserError, ModelError, OSError) as error:
            self._untold = str(error)
            if self._untold != before:  # it may be held for minutes
                log.warning("What the experiment did is told later: %s", error)
        except Exception as error:  # it must be told again, whatever it was
            self._untold = f"What the experiment did cannot be told: {error}"
            log.exception("What the experiment did cannot be told.")
        if self.router.problem in (None, before):  # what keeps the experiment comes first
            self.router.problem = self._untold

    async def _follow_challenger(self) -> None:
        """Begin a trial where there is somebody to try, and end one that is of the past."""
        mark = self.challengers.mark()
        if self._wanted is None or mark != self._mark:
            self._mark = mark
            self._wanted = await asyncio.to_thread(self._named)
        if await self._goes_on():
            return
        wanted, champion, trial = self._wanted, self.catalogue.current, self.router.trial
        if wanted is None or wanted.sha256 == champion.artefact_sha256:
            await self._end_trial()
            self.router.problem = None
            same = f"The challenger is the file of the champion, {champion}."
            self._announcer.say(self._nobody if wanted is None else same)
            return
        setting = self._setting(champion, wanted)
        if trial is not None and trial.setting == setting:  # other versions have other verdicts
            return
        await self._end_trial()
        contracts = champion.contract, contract_beside(wanted.path)
        hindrance = await asyncio.to_thread(why_not, self.mover.engine, setting, *contracts)
        self.router.problem = None if hindrance is None else str(hindrance)
        if hindrance is not None:
            self._announcer.say(hindrance.reason, str(hindrance))
            return
        challenger = Challenger(wanted.path, self.conducting.limits)
        trial = Trial(
            setting=setting,
            challenger=challenger,
            state=begin(self.policy, time.time()),
            deadline_ms=self.conducting.deadline_ms,
            seen=seen_otherwise(*contracts),
        )
        await asyncio.to_thread(self.mover.catch_up, trial)
        if not trial.num_moves:
            await asyncio.to_thread(self.mover.move, trial, trial.state, setting)
        if trial.state.stage is Stage.PROMOTED and _is_registered(setting):
            stands = await asyncio.to_thread(self._stands, trial)
            if not stands and trial.state.weight:
                return  # the registry names a third, which the catalogue is about to have
        trial.unproven = await asyncio.to_thread(self.unproven, setting)
        self._announcer.begun(setting, trial.state, trial.unproven)
        if not trial.is_over:
            await challenger.start()
            await challenger.ready(self.conducting.limits.start_seconds)
        self.router.trial = trial

    async def _goes_on(self) -> bool:
        """See to a promotion through the registry; tell whether it is still to be seen to.

        Until the catalogue has the new champion, its process answers; then it is watched.
        """
        trial = self.router.trial or await asyncio.to_thread(self._left_behind)
        if trial is None or not _is_registered(trial.setting):
            return False
        if not await asyncio.to_thread(self._stands, trial):
            is_back = trial.state.stage is Stage.ROLLED_BACK
            if trial.state.stage is Stage.PROMOTED and self.router.trial is not None:
                await self.catalogue.reload()  # nobody is answered by one that is not champion
                await self._end_trial()
            return is_back and (self._wanted is None or not self._settling.is_settled(trial))
        if self.router.trial is None:
            self.router.trial = trial
            await self._keep_old_warm(trial)
        if self.catalogue.current.artefact_sha256 != trial.setting.challenger.artefact_sha256:
            return True
        challenger, trial.challenger = trial.challenger, None
        if challenger is not None:
            await challenger.finish(trial.deadline_ms / 1000)
        return trial.state.is_watched(time.time())

    async def _keep_old_warm(self, trial: Trial) -> None:
        try:
            await self.catalogue.keep_warm(await asyncio.to_thread(self.old, trial.setting))
        except (UserError, ModelError, OSError) as error:  # a rollback will try again
            log.warning("The old champion is not warm: %s", error)

    def _left_behind(self) -> Trial | None:
        """Find the promotion of the model that answers, as a service before this one left it."""
        course = latest_of(self.mover.engine, self.catalogue.current.model)
        if course is None or not course.state.is_watched(time.time()):
            return None
        setting = course.setting
        if setting.challenger.artefact_sha256 != self.catalogue.current.artefact_sha256:
            return None
        return Trial(
            setting=setting,
            challenger=None,
            state=course.state,
            deadline_ms=self.conducting.deadline_ms,
            num_moves=len(course.steps),
        )

    def _stands(self, trial: Trial) -> bool:
        """Tell whether a promotion stands, or is about to; note who has undone it."""
        self.mover.catch_up(trial)
        if trial.state.stage is not Stage.PROMOTED:
            return False
        entry = self.replaced(read_course(self.mover.engine, trial.setting.experiment))
        if entry is None:
            return True
        if _is_undone(trial.setting, entry):
            did = "rolled back to" if entry.action == "rollback" else "promoted"
            why = f"{entry.who} {did} version {entry.version}: {entry.reason or 'no reason'}"
            self.mover.move(trial, rolled_back(trial.state, why, time.time()), None)
        return False

    def _named(self) -> Artefact | None:
        try:
            found = self.challengers.read()
        except UserError as error:  # nobody is to be tried
            self._nobody = str(error)
            return None
        return replace(found, sha256=found.sha256 or sha256(found.path))

    def _setting(self, champion: Edition, challenger: Artefact) -> Setting:
        return Setting(
            champion=Contender(
                name=champion.model,
                version=champion.version,
                artefact_sha256=champion.artefact_sha256,
            ),
            challenger=Contender(
                name=challenger.model,
                version=challenger.version,
                artefact_sha256=str(challenger.sha256),
            ),
            policy=self.policy,
            slow_ms=self.conducting.slow_ms,
        )

    async def _end_trial(self) -> None:
        trial = self.router.trial
        if trial is None:
            return
        self.router.end(self.catalogue.current.artefact_sha256)
        if trial.challenger is not None:
            await trial.challenger.stop()


def _is_undone(setting: Setting, entry: Entry) -> bool:
    """Tell whether an entry has undone a promotion: a third that is promoted blames nobody."""
    if entry.action == "rollback":
        return entry.artefact_sha256 != setting.challenger.artefact_sha256
    return entry.artefact_sha256 == setting.champion.artefact_sha256


def _is_registered(setting: Setting) -> bool:
    """Tell whether a promotion is the registry's: of a plain file it is a weight of 1."""
    return setting.challenger.version is not None
