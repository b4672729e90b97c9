"""A promotion through the registry is watched, and taken back there: by itself, or by a person."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from registered import agree, rollback

from distill.production.experiment.policy import Policy
from distill.production.experiment.rollout import Stage
from distill.production.experiment.story import document, tell
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.records import Feedback
from distill.production.prediction_log.writer import LogWriter, WriterOptions
from distill.production.registry.registry import open_registry
from distill.production.routing.conducting import Conducting
from distill.production.routing.conductor import Conductor
from distill.production.routing.mover import Mover
from distill.production.routing.router import TrialRouter
from distill.production.serving.batcher import Batcher, Batching
from distill.production.serving.catalogue import Catalogue, ChallengerSource, RegistrySource
from distill.production.serving.editions import Loading
from distill.production.serving.exchange import Answer
from distill.production.serving.log import KeptLog
from distill.production.serving.recording import Recorder
from distill.production.serving.refusals import RefusedError
from distill.production.serving.service import Asker, Service
from distill.production.serving.signature import Checked
from distill.production.serving.telemetry import Telemetry
from distill.verbs.production.trials import _due, _old, _replaced, _told, _unproven

EAGER = Policy(
    steps=(0.5,),
    starts_in_shadow=False,
    margin=1.5,
    guardrail_margin=0.3,
    skew_margin=0.3,
    min_units=10,
    sample_ratio_alpha=1e-9,  # units are others in every run: chance decides no test
)
IMAGE = {"image": np.full((1, 2, 2, 1), 7, np.uint8)}


@pytest.fixture
def two(register, promote):
    """A champion, version 1, and its challenger, version 2."""
    register()
    promote()
    register(seed=1)
    promote("challenger")


@dataclass
class Process:
    """One process of a service on a registry."""

    service: Service
    conductor: Conductor
    log: KeptLog
    num_units: int = 0

    @property
    def catalogue(self) -> Catalogue:
        return self.service.catalogue

    @property
    def trial(self):
        assert self.conductor.router.trial is not None, self.conductor.router.problem
        return self.conductor.router.trial

    async def ask(self) -> tuple[str, Answer]:
        self.num_units += 1
        asker = Asker(endpoint="infer", unit=f"unit {self.num_units}", started=time.perf_counter())
        checked = Checked(feeds=IMAGE, num_rows=1)
        ids, answer = await self.service.ask(self.catalogue.current, checked, asker)
        return ids[0], answer

    async def look(self) -> None:
        await self.conductor.router.close()
        while self.log.writer.health.num_pending:
            await asyncio.sleep(0.005)
        await self.conductor.tick()

    async def promoted(self) -> None:
        for _ in range(4):
            if self.trial.state.stage is Stage.PROMOTED:
                return
            asked = [(await self.ask())[0] for _ in range(60)]
            await self.look()
            for one in asked:
                self.log.feedback(Feedback(prediction=one, label=1))
            await self.look()
        raise AssertionError(self.trial.state.why)

    async def harmed(self) -> None:
        """Let the champion fail whoever asks."""

        def fail(feeds):
            raise ValueError("nothing to say")

        own = self.catalogue
        broken = replace(own.current, batcher=Batcher(fail, Batching()))
        own.warm = [*(one for one in own.warm if one is not own.current), broken]
        own.current = broken
        for _ in range(8):
            with pytest.raises(RefusedError):
                await self.ask()
        await self.look()


def serving(
    home, tmp_path, use: Callable[..., Awaitable[None]], policy: Policy = EAGER, count: int = 1
) -> None:
    """Run processes of one service, each with an experiment's conductor."""

    def process() -> Process:
        engine = open_log(f"sqlite:///{tmp_path}/log.db")
        log = KeptLog(engine=engine, writer=LogWriter(engine, WriterOptions(flush_ms=5)))
        recorder = Recorder(log=log)
        router = TrialRouter(recorder)
        catalogue = Catalogue.open(RegistrySource(place=home), Loading())
        service = Service(
            catalogue=catalogue,
            recorder=recorder,
            telemetry=Telemetry(),
            router=router,
            deadline_ms=30_000.0,
        )
        conductor = Conductor(
            router=router,
            mover=Mover(engine=engine),
            catalogue=catalogue,
            challengers=ChallengerSource(place=home),
            policy=policy,
            conducting=Conducting(deadline_ms=20_000.0, slow_ms=20_000.0),
            replaced=_replaced(home),
            old=_old(home),
            due=_due(home),
            told=_told(home),
            unproven=_unproven(home),
        )
        return Process(service, conductor, log)

    async def main() -> None:
        processes = [process() for _ in range(count)]
        try:
            for one in processes:
                await one.conductor.tick()
            await use(*processes)
        finally:
            for one in processes:
                await one.conductor.close()
                one.catalogue.close()
                one.log.close()

    asyncio.run(main())


def test_a_promotion_is_answered_with_at_once_and_never_by_the_old_one_again(home, tmp_path, two):
    async def use(own: Process) -> None:
        answers = []

        async def asking() -> None:
            while True:
                is_promoted = own.trial.state.stage is Stage.PROMOTED
                _, answer = await own.ask()
                if is_promoted:
                    answers.append(answer.version)
                await asyncio.sleep(0)

        task = asyncio.create_task(asking())
        await own.promoted()
        for _ in range(3):
            await own.conductor.tick()
        while len(answers) < 50:
            await asyncio.sleep(0.005)
        task.cancel()
        assert set(answers) == {2}
        assert own.catalogue.current.version == 2
        assert own.trial.challenger is None
        status = own.service.router.status()
        assert status is not None
        assert (status["stage"], status["is_champion"]) == ("promoted", True)
        assert status["watched_s"] > 0

    serving(home, tmp_path, use)
    assert home.read().state.champion == 2


def test_harm_is_taken_back_in_the_registry_with_its_evidence(home, tmp_path, two):
    async def use(own: Process) -> None:
        await own.promoted()
        await own.conductor.tick()
        await own.harmed()
        assert own.trial.state.stage is Stage.ROLLED_BACK
        assert own.catalogue.current.version == 1
        assert (await own.ask())[1].version == 1
        status = own.service.router.status()
        assert status is not None
        assert "requests failed" in status["why"]
        told = document(tell(own.log.engine, own.trial.setting.experiment, num_points=0))
        assert (told["verdict"], told["stage"], told["weight"]) == ("fail", "rolled_back", 0)
        assert "requests failed" in told["why"]
        assert {one["rule"]: one["outcome"] for one in told["aftermath"]}["failures"] == "fail"
        for _ in range(2):
            await own.conductor.tick()
        assert own.trial.state.stage is Stage.ROLLED_BACK

    serving(home, tmp_path, use)
    entry = home.read().entries[-1]
    assert (entry.action, entry.version, home.read().state.champion) == ("rollback", 1, 1)
    assert "requests failed" in str(entry.reason)
    assert {one["rule"]: one["outcome"] for one in entry.evidence}["failures"] == "fail"
    with open_registry(home) as registry:
        registry.synchronise()
    assert agree(home)


def test_a_restarted_service_goes_on_watching_with_the_old_one_warm(home, tmp_path, two):
    async def first(own: Process) -> None:
        await own.promoted()

    async def second(own: Process) -> None:
        assert own.trial.state.stage is Stage.PROMOTED
        assert [one.version for one in own.catalogue.warm] == [1, 2]
        old = own.catalogue.warm[0]
        await own.harmed()
        assert own.trial.state.stage is Stage.ROLLED_BACK
        assert own.catalogue.current is old

    serving(home, tmp_path, first)
    serving(home, tmp_path, second)
    assert home.read().state.champion == 1


def test_a_rollback_by_a_person_ends_the_watch(home, tmp_path, two):
    async def use(own: Process) -> None:
        await own.promoted()
        await own.conductor.tick()
        rollback(home, None, "the shop complains")
        count = len(home.read().entries)
        await own.catalogue.reload()
        assert (await own.ask())[1].version == 1
        await own.conductor.tick()
        state = own.trial.state
        assert (state.stage, state.until) == (Stage.ROLLED_BACK, None)
        assert "rolled back to version 1: the shop complains" in state.why
        assert len(home.read().entries) == count

    serving(home, tmp_path, use)


def test_a_version_that_a_person_promotes_ends_the_watch_and_blames_nobody(
    home, tmp_path, two, register, promote
):
    async def use(own: Process) -> None:
        await own.promoted()
        name = own.trial.setting.experiment
        register(seed=2)
        promote(version=3)
        await own.conductor.tick()
        await own.catalogue.reload()
        await own.conductor.tick()
        assert own.conductor.router.trial is None
        assert (await own.ask())[1].version == 3
        assert document(tell(own.log.engine, name, num_points=0))["verdict"] == "pass"

    serving(home, tmp_path, use)


def test_of_two_processes_one_takes_back_and_the_other_follows(home, tmp_path, two):
    async def use(own: Process, other: Process) -> None:
        await own.promoted()
        for _ in range(2):
            await other.conductor.tick()
            assert other.catalogue.current.version == 1  # which it follows at its own pace
            assert {(await other.ask())[1].version for _ in range(10)} == {2}
        await other.catalogue.reload()
        await other.conductor.tick()
        assert other.trial.state == own.trial.state
        assert other.trial.challenger is None
        await own.harmed()
        await other.conductor.tick()
        assert other.trial.state == own.trial.state
        await other.catalogue.reload()
        assert (await other.ask())[1].version == 1

    serving(home, tmp_path, use, count=2)
    assert [entry.action for entry in home.read().entries].count("rollback") == 1


def test_without_a_window_the_experiment_is_over_once_the_new_one_answers(home, tmp_path, two):
    async def use(own: Process) -> None:
        await own.promoted()
        await own.conductor.tick()
        assert own.conductor.router.trial is None
        assert (await own.ask())[1].version == 2

    serving(home, tmp_path, use, policy=replace(EAGER, rollback_window_seconds=0.0))


def test_the_next_challenger_waits_until_the_window_ends(home, tmp_path, two, register, promote):
    async def use(own: Process) -> None:
        await own.promoted()
        register(seed=2)
        promote("challenger")
        await own.conductor.tick()
        assert own.trial.setting.challenger.version == 2

    async def restarted(own: Process) -> None:
        assert own.trial.setting.challenger.version == 2

    serving(home, tmp_path, use)
    serving(home, tmp_path, restarted)


def test_an_operator_who_sends_a_watched_champion_away_rolls_back(home, tmp_path, two):
    async def use(own: Process) -> None:
        await own.promoted()
        await own.conductor.tick()
        own.trial.ban = "an operator sent it away"
        await own.conductor.tick()
        assert own.catalogue.current.version == 1

    serving(home, tmp_path, use)
    assert "an operator" in str(home.read().entries[-1].reason)
