import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
import sqlalchemy as sa
from onnx import numpy_helper
from served import make_service, make_table, table_task

from distill.errors import UsageError, UserError
from distill.production.experiment.policy import Policy
from distill.production.experiment.rollout import Stage
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.moves import moves_of
from distill.production.prediction_log.reader import stream
from distill.production.prediction_log.records import Feedback, Prediction
from distill.production.prediction_log.writer import LogWriter, WriterOptions
from distill.production.routing.challenger import ChallengerError, Limits
from distill.production.routing.conducting import Conducting
from distill.production.routing.conductor import Conductor
from distill.production.routing.mover import Mover
from distill.production.routing.router import TrialRouter
from distill.production.serving.catalogue import FileSource
from distill.production.serving.editions import artefact_at
from distill.production.serving.log import KeptLog
from distill.production.serving.service import Asker, Service
from distill.production.serving.signature import Checked
from distill.tasks import TaskKind

RIGHT, WRONG, NOTHING = (-0.02, 0.02), (0.01, -0.01), (np.nan, np.nan)
QUICK = Policy(steps=(0.2, 0.5), min_units=50, guardrail_margin=0.1, margin=0.03)


def variant(folder: Path, weights: tuple[float, float]) -> Path:
    """Copy the model of a folder, with other weights: `RIGHT` answers 1 to all that is above 0."""
    model = onnx.load(folder / "model.onnx")
    for constant in model.graph.initializer:
        if constant.name == "weights":
            constant.CopyFrom(numpy_helper.from_array(np.array([weights], np.float32), "weights"))
    path = folder / f"challenger {weights[0]}.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The champion, which answers as `RIGHT` does."""
    return make_table(tmp_path_factory.mktemp("champion"))


@dataclass
class World:
    """A service, an experiment and their log."""

    service: Service
    conductor: Conductor
    log: KeptLog
    engine: sa.Engine
    asked: list[str] = field(default_factory=list)

    @property
    def trial(self):
        assert isinstance(self.service.router, TrialRouter)
        assert self.service.router.trial is not None
        return self.service.router.trial

    async def ask(self, unit: str | None = None, age: float = 30.0) -> int:
        """Ask for one row; the class that is answered."""
        feeds = {
            "age": np.array([[age]]),
            "member": np.array([[1.0]]),
            "city": np.array([["Bern"]], object),
            "since": np.array([[0]], np.int64),
        }
        asker = Asker(endpoint="infer", unit=unit, started=time.perf_counter())
        edition = self.service.catalogue.current
        ids, answer = await self.service.ask(edition, Checked(feeds=feeds, num_rows=1), asker)
        self.asked.append(ids[0])
        return int(answer.outputs["logits"].argmax())

    async def traffic(self, count: int, truth: int | None = None) -> None:
        """Ask for many units, say what was true, and look."""
        start = len(self.asked)
        for at in range(count):
            await self.ask(f"unit {start + at}")
        await asyncio.sleep(0)
        assert isinstance(self.service.router, TrialRouter)
        await self.service.router.close()
        await asyncio.to_thread(self.written)
        if truth is not None:
            for one in self.asked[start:]:
                self.log.feedback(Feedback(prediction=one, label=truth))
        await self.conductor.tick()

    def written(self) -> None:
        while self.log.writer.health.num_pending:
            time.sleep(0.005)

    def rows(self) -> list[Prediction]:
        self.written()
        return [one.prediction for one in stream(self.engine)]

    def moves(self) -> list[str]:
        return [move.state for move in moves_of(self.engine, self.trial.setting.experiment)]


def experiment(
    folder: Path,
    tmp_path: Path,
    weights: tuple[float, float],
    use: Callable[[World], Awaitable[None]],
    *,
    policy: Policy = QUICK,
    limits: Limits | None = None,
) -> None:
    async def main() -> None:
        engine = open_log(f"sqlite:///{tmp_path}/log.db")
        log = KeptLog(engine=engine, writer=LogWriter(engine, WriterOptions(flush_ms=5)))
        service = make_service(folder, log=log)
        router = service.router = TrialRouter(service.recorder)
        conductor = Conductor(
            router=router,
            mover=Mover(engine=engine),
            catalogue=service.catalogue,
            challengers=FileSource(artefact=artefact_at(variant(folder, weights))),
            policy=policy,
            conducting=Conducting(
                deadline_ms=20_000, slow_ms=20_000, limits=limits or Limits(hang_seconds=20)
            ),
        )
        try:
            await conductor.tick()
            await use(World(service, conductor, log, engine))
        finally:
            await conductor.close()
            await router.close()
            service.catalogue.close()
            log.close()

    asyncio.run(main())


@pytest.mark.slow
def test_a_good_challenger_goes_from_its_shadow_to_production(folder, tmp_path):
    async def use(world: World) -> None:
        stages = []
        for _ in range(12):
            await world.traffic(150, truth=1)
            if not stages or stages[-1] != world.trial.state.name:
                stages.append(world.trial.state.name)
        assert stages[-3:] == ["canary 20%", "canary 50%", "promoted"], world.trial.state.why
        before = len(world.rows())
        await world.traffic(20)
        assert {row.role for row in world.rows()[before:]} == {"challenger"}
        assert len(world.moves()) == 4

    experiment(folder, tmp_path, RIGHT, use)


def test_a_shadow_answers_nobody_and_every_answer_of_it_is_kept(folder, tmp_path):
    async def use(world: World) -> None:
        assert [await world.ask(f"unit {n}") for n in range(20)] == [1] * 20
        await world.traffic(0)
        rows = world.rows()
        roles = Counter((row.role, row.label) for row in rows)
        assert roles == {("champion", 1): 20, ("shadow", 0): 20}
        assert {row.request for row in rows} == set(world.asked)

    experiment(folder, tmp_path, WRONG, use)


@pytest.mark.parametrize("fails", [False, True], ids=["answers", "fails"])
def test_many_rows_of_a_shadow_keep_nobody_waiting_while_they_are_recorded(folder, tmp_path, fails):
    async def use(world: World) -> None:
        threads, put = {}, world.log.writer.put

        def noted(record):
            threads.setdefault(record.role, set()).add(threading.get_ident())
            return put(record)

        async def ask(*_: object) -> None:
            raise ChallengerError("error", "it raises")

        world.log.writer.put = noted
        if fails:
            world.trial.challenger.ask = ask
        feeds = {
            "age": np.full((100, 1), 30.0),
            "member": np.ones((100, 1)),
            "city": np.full((100, 1), "Bern", object),
            "since": np.zeros((100, 1), np.int64),
        }
        asker = Asker(endpoint="infer", started=time.perf_counter())
        edition = world.service.catalogue.current
        await world.service.ask(edition, Checked(feeds=feeds, num_rows=100), asker)
        await world.service.router.close()
        assert threads.keys() == {"champion", "shadow"}
        assert threading.get_ident() not in threads["shadow"] | threads["champion"]
        rows = [row for row in world.rows() if row.role == "shadow"]
        assert [row.outcome for row in rows] == ["error" if fails else "ok"] * 100

    experiment(folder, tmp_path, RIGHT, use)


@pytest.mark.slow
def test_a_challenger_that_is_wrong_is_sent_away_from_its_shadow(folder, tmp_path):
    async def use(world: World) -> None:
        for _ in range(5):
            await world.traffic(100, truth=1)
        assert world.trial.state.stage is Stage.ABORTED
        assert "worse" in world.trial.state.why
        assert not world.trial.challenger.is_ready
        assert await world.ask("anybody") == 1

    experiment(folder, tmp_path, WRONG, use)


@pytest.mark.slow
def test_without_labels_it_waits_and_says_so(folder, tmp_path):
    async def use(world: World) -> None:
        for _ in range(4):
            await world.traffic(150)
        assert world.trial.state.stage is Stage.SHADOW
        assert world.trial.state.is_paused
        assert "/feedback" in world.trial.state.why

    experiment(folder, tmp_path, RIGHT, use)


AT_ONCE = Policy(steps=(0.5,), starts_in_shadow=False, max_consecutive_failures=3)


def test_units_stay_with_their_model(folder, tmp_path):
    async def use(world: World) -> None:
        first = [await world.ask(f"unit {n}") for n in range(100)]
        assert [await world.ask(f"unit {n}") for n in range(100)] == first
        assert 25 < sum(first) < 75

    experiment(folder, tmp_path, WRONG, use, policy=AT_ONCE)


def test_the_champion_answers_where_the_challenger_gives_nonsense_and_it_is_gone(folder, tmp_path):
    async def use(world: World) -> None:
        assert [await world.ask(f"unit {n}") for n in range(40)] == [1] * 40
        assert world.trial.ban is not None
        await world.traffic(0)
        assert world.trial.state.stage is Stage.ABORTED
        assert "3 times in a row" in world.trial.state.why
        roles = Counter((row.role, row.outcome) for row in world.rows())
        fallbacks = roles[("fallback", "ok")]
        assert roles[("challenger", "error")] == fallbacks
        assert fallbacks + roles[("shadow", "error")] >= 3
        assert roles[("champion", "ok")] == 40 - fallbacks

    experiment(folder, tmp_path, NOTHING, use, policy=AT_ONCE)


@pytest.mark.parametrize(("kind", "is_banned"), [("busy", False), ("error", True)])
def test_a_burst_bans_nobody_and_failures_in_a_row_do(folder, tmp_path, kind, is_banned):
    async def use(world: World) -> None:
        for _ in range(20):
            world.trial.counted(ChallengerError(kind, "why"))
        assert (world.trial.ban is not None) == is_banned

    experiment(folder, tmp_path, RIGHT, use)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_every_request_is_answered_while_the_challenger_dies(folder, tmp_path, number):
    policy = Policy(steps=(0.5,), starts_in_shadow=False, max_consecutive_failures=1000)

    async def use(world: World) -> None:
        pid = world.trial.challenger.pid
        assert pid is not None
        world.trial.deadline_ms = 50
        os.kill(pid, number)
        assert len([await world.ask(f"unit {n}") for n in range(60)]) == 60
        await world.traffic(0)
        rows = world.rows()
        given = Counter(row.request for row in rows if row.role in ("champion", "fallback"))
        own = {row.request for row in rows if row.role == "challenger" and row.outcome == "ok"}
        assert set(given) | own == set(world.asked)
        assert Counter(row.role for row in rows)["fallback"] > 0

    experiment(folder, tmp_path, RIGHT, use, policy=policy, limits=Limits(hang_seconds=600))


@pytest.mark.slow
def test_a_restarted_service_goes_on_where_the_experiment_was(folder, tmp_path):
    names: list[str] = []

    async def first(world: World) -> None:
        for _ in range(6):
            await world.traffic(150, truth=1)
        names.append(world.trial.state.name)

    async def second(world: World) -> None:
        names.append(world.trial.state.name)

    experiment(folder, tmp_path, RIGHT, first)
    experiment(folder, tmp_path, RIGHT, second)
    assert names[0] == names[1] != "shadow"


def test_of_two_who_move_at_once_one_is_right_and_the_other_follows(folder, tmp_path):
    async def use(world: World) -> None:
        other = Conductor(
            router=TrialRouter(world.service.recorder),
            mover=Mover(engine=world.engine),
            catalogue=world.service.catalogue,
            challengers=world.conductor.challengers,
            policy=QUICK,
            conducting=world.conductor.conducting,
        )
        try:
            await other.tick()
            world.trial.ban = "it is of no use"
            await world.conductor.tick()
            assert other.router.trial is not None
            assert other.router.trial.state.stage is Stage.SHADOW
            await other.tick()
            assert other.router.trial.state == world.trial.state
            assert world.trial.state.stage is Stage.ABORTED
        finally:
            await other.close()

    experiment(folder, tmp_path, RIGHT, use)


@pytest.mark.slow
def test_after_one_was_sent_away_the_next_is_tried_when_the_cooldown_is_over(folder, tmp_path):
    policy = Policy(steps=(), cooldown_seconds=3600)

    async def first(world: World) -> None:
        world.trial.ban = "it is of no use"
        await world.conductor.tick()

    async def second(world: World) -> None:
        assert isinstance(world.service.router, TrialRouter)
        assert world.service.router.trial is None
        assert "tried in" in str(world.service.router.problem)
        await world.conductor.tick()
        assert "tried in" in str(world.service.router.problem)

    async def third(world: World) -> None:
        assert world.trial.state.stage is Stage.SHADOW

    experiment(folder, tmp_path, RIGHT, first, policy=policy)
    experiment(folder, tmp_path, WRONG, second, policy=policy)
    (tmp_path / "other").mkdir()
    over = Policy(steps=(), cooldown_seconds=0)
    experiment(folder, tmp_path / "other", RIGHT, first, policy=over)
    experiment(folder, tmp_path / "other", WRONG, third, policy=over)


def test_one_with_other_classes_is_not_tried(folder, tmp_path):
    other = make_table(tmp_path / "other", table_task(TaskKind.REGRESSION))

    async def use(world: World) -> None:
        world.conductor.challengers = FileSource(artefact=artefact_at(other))
        world.conductor._wanted = None
        await world.conductor.tick()
        assert isinstance(world.service.router, TrialRouter)
        assert world.service.router.trial is None
        assert "classes" in str(world.service.router.problem)

    experiment(folder, tmp_path, RIGHT, use)


@pytest.mark.slow
def test_the_same_two_by_other_rules_are_another_experiment(folder, tmp_path):
    names: list[str] = []

    async def use(world: World) -> None:
        names.append(world.trial.setting.experiment)

    for policy in (QUICK, AT_ONCE, QUICK):
        experiment(folder, tmp_path, RIGHT, use, policy=policy)
    assert names[0] == names[2] != names[1]


def test_a_move_that_nobody_can_be_told_of_is_told_at_the_next_look(folder, tmp_path):
    told: list[str] = []

    async def use(world: World) -> None:
        def refuse(*_: object) -> None:
            raise UserError("the registry is held")

        world.conductor._settling.told = refuse
        world.trial.ban = "it is of no use"
        await world.conductor.tick()
        assert "held" in str(world.service.router.problem)
        assert world.trial.state.stage is Stage.ABORTED
        world.conductor._settling.told = lambda course: told.append(course.state.stage)
        await world.conductor.tick()
        assert told == [Stage.ABORTED]
        assert world.service.router.problem is None

    experiment(folder, tmp_path, RIGHT, use)


def test_a_look_that_fails_by_a_defect_is_taken_again(folder, tmp_path, monkeypatch):
    async def use(world: World) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("distill.production.routing.mover.gather", lambda *_: 1 / 0)
            await world.conductor.tick()
        assert "division" in str(world.service.router.problem)
        await world.conductor.tick()
        assert world.service.router.problem is None

    experiment(folder, tmp_path, RIGHT, use)


def test_a_log_that_could_not_be_read_is_no_problem_once_it_can(folder, tmp_path, monkeypatch):
    async def use(world: World) -> None:
        world.conductor.challengers = FileSource(artefact=artefact_at(folder))  # the champion
        world.conductor._wanted = None
        await world.conductor.tick()
        assert world.service.router.status() is None
        with monkeypatch.context() as patch:
            patch.setattr("distill.production.routing.conductor.latest_of", lambda *_: 1 / 0)
            await world.conductor.tick()
        assert world.service.router.status() is not None
        await world.conductor.tick()
        assert world.service.router.status() is None

    experiment(folder, tmp_path, RIGHT, use)


@pytest.mark.parametrize("knobs", [{"tick_seconds": 0}, {"slow_ms": -1}, {"holdout": 1}])
def test_ways_to_lead_that_make_no_sense_are_refused(knobs):
    with pytest.raises(UsageError, match="Expected"):
        Conducting(**knobs)
