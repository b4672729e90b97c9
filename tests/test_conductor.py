"""How experiments are led: over restarts, by several at once, through what fails."""

import pytest
from served import make_table, table_task
from tried import AT_ONCE, QUICK, RIGHT, WRONG, World, experiment
from tried import folder as folder

from distill.errors import UsageError, UserError
from distill.production.experiment.policy import Policy
from distill.production.experiment.rollout import Stage
from distill.production.routing.conducting import Conducting
from distill.production.routing.conductor import Conductor
from distill.production.routing.mover import Mover
from distill.production.routing.router import TrialRouter
from distill.production.serving.catalogue import FileSource
from distill.production.serving.editions import artefact_at
from distill.tasks import TaskKind


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
