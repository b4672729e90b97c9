"""Leads an experiment: reads what was seen, decides, moves on, and tells everybody.

Every process of a service has one. What they decide they decide from the same log, and of two who
move at once the first is right: the others follow. A challenger of the registry that was promoted
goes on answering until the catalogue has it, and is watched until its window ends. Knows nothing of
HTTP.
"""

import asyncio
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from distill.errors import UsageError, UserError
from distill.files import sha256, to_json
from distill.production.experiment.course import latest_of, read_course, step_of
from distill.production.experiment.decision import Decision, decide
from distill.production.experiment.gathering import aftermath, gather, usual
from distill.production.experiment.policy import Contender, Policy, Setting
from distill.production.experiment.rollout import (
    Stage,
    State,
    advance,
    begin,
    rolled_back,
    sent_away,
    watch,
)
from distill.production.experiment.watch import Share, decide_aftermath
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.moves import Move, add_move, moves_of
from distill.production.registry.ledger import Entry
from distill.production.routing.announcer import Announcer
from distill.production.routing.challenger import Challenger, Limits
from distill.production.routing.entrance import contract_beside, seen_otherwise, why_not
from distill.production.routing.router import Trial, TrialRouter
from distill.production.serving.catalogue import Catalogue, Source
from distill.production.serving.editions import Artefact, Edition
from distill.runtime import ModelError

log = logging.getLogger(__name__)

_CHAMPIONS = (Stage.PROMOTED, Stage.ROLLED_BACK)  # who is champion changes with them


@dataclass(frozen=True, kw_only=True)
class Conducting:
    """How an experiment is led.

    Attributes:
        tick_seconds: between looks at the log.
        slow_ms: above which an answer is slow: the budget's p99.
        deadline_ms: of the challenger.
        holdout: share of the units that is in no experiment, ever.
        limits: of the challenger's process.
    """

    tick_seconds: float = 1.0
    slow_ms: float = 100.0
    deadline_ms: float = 250.0
    holdout: float = 0.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in ("tick_seconds", "slow_ms", "deadline_ms"):
            if not getattr(self, name) > 0:
                raise UsageError(f"Expected `{name}` above 0 but got {getattr(self, name)}.")
        if not 0 <= self.holdout < 1:
            raise UsageError(
                f"Expected `holdout` from 0 to below 1, a share of the units, but got "
                f"{self.holdout}."
            )


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
        engine: the log.
        catalogue: who is champion.
        challengers: says who is to be tried.
        policy: the rules.
        conducting: the rest.
        on_move: told of each move of ours, with what it rests on: the registry's history.
        replaced: finds what has put another in the place of a champion that was promoted at a
            moment; None while nothing has.
        old: finds the champion before, to be kept warm; None where it answers anyway.
        unproven: says why a challenger may not become champion by itself; None where it may.
    """

    router: TrialRouter
    engine: Engine
    catalogue: Catalogue
    challengers: Source
    policy: Policy
    conducting: Conducting
    on_move: Callable[[Setting, State, Decision | None], None] = lambda *_: None
    replaced: Callable[[Setting, float], Entry | None] = lambda *_: None
    old: Callable[[Setting], Artefact | None] = lambda _: None
    unproven: Callable[[Setting], str | None] = lambda _: None
    _announcer: Announcer = field(default_factory=Announcer)
    _nobody: str = ""
    _number: int = 0
    _mark: Any = None
    _wanted: Artefact | None = None
    _usual: tuple[str, dict[str, Share]] | None = None  # of which experiment
    _untold: list[tuple[Setting, State, Decision | None]] = field(default_factory=list)

    async def run(self) -> None:
        """Lead until cancelled."""
        try:
            while True:
                started = time.monotonic()
                await self.tick()
                # A long log takes long to read: at most a tenth of the time goes to it.
                spent = time.monotonic() - started
                await asyncio.sleep(max(self.conducting.tick_seconds, 9 * spent))
        finally:
            await self.close()

    async def close(self) -> None:
        """End the challenger's process; the experiment goes on when somebody leads it again."""
        await self._end_trial()

    async def tick(self) -> None:
        """Look once."""
        try:
            await asyncio.to_thread(self._tell)
            await self._follow_challenger()
            trial = self.router.trial
            if trial is None:
                return
            self.router.problem = None
            before = trial.state.stage
            await asyncio.get_running_loop().run_in_executor(_ASIDE, self._advance, trial)
            if trial.is_over and trial.challenger is not None:
                await trial.challenger.stop()
            after = trial.state.stage
            if after is not before and after in _CHAMPIONS and _is_registered(trial.setting):
                await self.catalogue.reload()  # before it would look by itself
        except (UserError, ModelError, OSError) as error:
            self.router.problem = str(error)
            log.warning("The experiment does not move: %s", error)
        except Exception as error:  # it must be looked at again, whatever it was
            self.router.problem = f"The experiment does not move: {error}"
            log.exception("The experiment does not move.")

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
        if trial is not None and trial.setting.experiment == setting.experiment:
            return
        await self._end_trial()
        contracts = champion.contract, contract_beside(wanted.path)
        hindrance = await asyncio.to_thread(why_not, self.engine, setting, *contracts)
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
        self._number = 0
        await asyncio.to_thread(self._catch_up, trial)
        if not self._number:
            await asyncio.to_thread(self._move, trial, trial.state, setting)
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
            return trial.state.stage is Stage.ROLLED_BACK and self._wanted is None
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
        course = latest_of(self.engine, self.catalogue.current.model)
        if course is None or not course.state.is_watched(time.time()):
            return None
        setting = course.setting
        if setting.challenger.artefact_sha256 != self.catalogue.current.artefact_sha256:
            return None
        self._number = len(course.steps)
        deadline_ms = self.conducting.deadline_ms
        return Trial(setting=setting, challenger=None, state=course.state, deadline_ms=deadline_ms)

    def _stands(self, trial: Trial) -> bool:
        """Tell whether a promotion stands, or is about to; note who has undone it."""
        self._catch_up(trial)
        if trial.state.stage is not Stage.PROMOTED:
            return False
        entry = self.replaced(trial.setting, trial.state.since)
        if entry is None:
            return True
        if entry.action == "rollback":
            why = (
                f"{entry.who} rolled back to version {entry.version}: {entry.reason or 'no reason'}"
            )
            self._move(trial, rolled_back(trial.state, why, time.time()), None)
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

    def _advance(self, trial: Trial) -> None:
        self._catch_up(trial)
        if trial.is_over:
            return
        if trial.ban is not None:
            policy = trial.setting.policy
            self._move(trial, sent_away(policy, trial.state, trial.ban, time.time()), None)
        elif trial.state.is_watched(time.time()):
            self._watch(trial)
        elif not trial.state.stage.is_over:
            self._judge(trial)

    def _catch_up(self, trial: Trial) -> None:
        """Take over the moves that other processes made."""
        for move in moves_of(self.engine, trial.setting.experiment, after=self._number):
            trial.state = step_of(move).state
            self._number = move.number

    def _judge(self, trial: Trial) -> None:
        evidence, units = gather(self.engine, trial.setting, trial.state)
        before, decision = trial.state, decide(self.policy, evidence)
        trial.decision = decision
        following = advance(
            self.policy,
            before,
            decision,
            challenger_units=units,
            now=time.time(),
            unproven=lambda: trial.unproven,
        )
        if (following.stage, following.step) != (before.stage, before.step):
            self._move(trial, following, decision)
        else:
            trial.state = following

    def _watch(self, trial: Trial) -> None:
        setting, since = trial.setting, trial.state.since
        if self._usual is None or self._usual[0] != setting.experiment:
            begun = read_course(self.engine, setting.experiment).begun
            self._usual = setting.experiment, usual(self.engine, setting, begun, since)
        found = aftermath(self.engine, setting, self._usual[1], since)
        decision = trial.decision = decide_aftermath(setting.policy, found)
        following = watch(setting.policy, trial.state, decision, now=time.time())
        if following is not trial.state:
            self._move(trial, following, decision)

    def _move(self, trial: Trial, state: State, why: Decision | Setting | None) -> None:
        """Write a move down; where another process was faster, its move counts."""
        move = Move(
            experiment=trial.setting.experiment,
            number=self._number + 1,
            time=time.time(),
            state=json.dumps(to_json(state)),
            evidence=json.dumps(None if why is None else to_json(why)),
        )
        if not add_move(self.engine, move):
            self._catch_up(trial)
            return
        self._number, trial.state = move.number, state
        log.info("%s: %s, because %s.", trial.setting.experiment, state.name, state.why)
        self._untold.append((trial.setting, state, why if isinstance(why, Decision) else None))
        self._tell()

    def _tell(self) -> None:
        """Tell of our moves, in order; of one that nobody can be told of now, at the next look."""
        while self._untold:
            self.on_move(*self._untold[0])
            self._untold.pop(0)


def _is_registered(setting: Setting) -> bool:
    """Tell whether a promotion is the registry's: of a plain file it is a weight of 1."""
    return setting.challenger.version is not None
