"""A promoted challenger of a plain file is watched; if it does harm its weight goes back to 0."""

import asyncio
import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from served import make_table, with_run
from tried import RIGHT, World, experiment

from distill.contract import load_contract, save_contract
from distill.production.experiment.policy import Policy
from distill.production.experiment.rollout import Stage
from distill.production.routing.challenger import Limits
from distill.production.routing.conductor import Conductor
from distill.production.routing.mover import Mover
from distill.production.routing.router import TrialRouter
from distill.production.serving.catalogue import FileSource
from distill.production.serving.editions import artefact_at
from distill.production.serving.refusals import RefusedError
from distill.production.serving.service import Asker
from distill.production.serving.signature import Checked

pytestmark = pytest.mark.slow

EAGER = Policy(
    steps=(0.5,),
    starts_in_shadow=False,
    margin=1.5,
    guardrail_margin=0.3,
    skew_margin=None,
    min_units=10,
    max_consecutive_failures=1000,
    sample_ratio_alpha=1e-9,  # units are others in every run: chance decides no test
)
PATIENT = Limits(hang_seconds=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_table(tmp_path_factory.mktemp("champion"))


async def promoted(world: World) -> None:
    for _ in range(4):
        if world.trial.state.stage is not Stage.PROMOTED:
            await world.traffic(60, truth=1)
    assert world.trial.state.stage is Stage.PROMOTED, world.trial.state.why


async def harmed(world: World) -> None:
    """Stop the process that answers everybody, and ask on."""
    pid = world.trial.challenger.pid
    assert pid is not None
    world.trial.deadline_ms = 20
    os.kill(pid, signal.SIGSTOP)
    await world.traffic(60)


def test_harm_after_a_promotion_brings_the_champion_back_and_says_why(folder, tmp_path):
    async def use(world: World) -> None:
        await promoted(world)
        before = len(world.rows())
        await world.traffic(20)
        assert {row.role for row in world.rows()[before:]} == {"challenger"}
        await harmed(world)
        state = world.trial.state
        assert (state.stage, state.weight) == (Stage.ROLLED_BACK, 0.0)
        assert "had no answer in time since the promotion" in state.why
        assert state.until == pytest.approx(state.since + EAGER.cooldown_seconds)
        assert not world.trial.challenger.is_ready
        before = len(world.rows())
        await world.traffic(20)
        assert {row.role for row in world.rows()[before:]} == {"champion"}
        told = world.service.router.status()
        assert told is not None
        assert (told["stage"], told["weight"], told["is_over"]) == ("rolled back", 0.0, True)
        assert told["why"] == state.why

    experiment(folder, tmp_path, RIGHT, use, policy=EAGER, limits=PATIENT)


def test_a_restarted_service_goes_on_watching(folder, tmp_path):
    experiment(folder, tmp_path, RIGHT, promoted, policy=EAGER)

    async def use(world: World) -> None:
        assert world.trial.state.stage is Stage.PROMOTED
        assert world.trial.watched_s > 0
        await harmed(world)
        assert world.trial.state.stage is Stage.ROLLED_BACK

    experiment(folder, tmp_path, RIGHT, use, policy=EAGER, limits=PATIENT)


def test_failures_in_a_row_need_no_look_at_the_log(folder, tmp_path):
    policy = dataclasses.replace(EAGER, max_consecutive_failures=3)

    async def use(world: World) -> None:
        await promoted(world)
        await harmed(world)
        assert world.trial.state.stage is Stage.ROLLED_BACK
        assert "3 times in a row" in world.trial.state.why

    experiment(folder, tmp_path, RIGHT, use, policy=policy, limits=PATIENT)


def test_without_a_window_nobody_watches(folder, tmp_path):
    policy = dataclasses.replace(EAGER, rollback_window_seconds=0.0)

    async def use(world: World) -> None:
        await promoted(world)
        await harmed(world)
        assert world.trial.state.stage is Stage.PROMOTED

    experiment(folder, tmp_path, RIGHT, use, policy=policy, limits=PATIENT)


def test_another_process_follows_a_rollback(folder, tmp_path):
    async def use(world: World) -> None:
        await promoted(world)
        other = Conductor(
            router=TrialRouter(world.service.recorder),
            mover=Mover(engine=world.engine),
            catalogue=world.service.catalogue,
            challengers=world.conductor.challengers,
            policy=EAGER,
            conducting=world.conductor.conducting,
        )
        try:
            await other.tick()
            assert other.router.trial is not None
            assert other.router.trial.state == world.trial.state
            await harmed(world)
            await other.tick()
            assert other.router.trial.state == world.trial.state
            assert other.router.trial.state.stage is Stage.ROLLED_BACK
            assert len(world.moves()) == 3
        finally:
            await other.close()

    experiment(folder, tmp_path, RIGHT, use, policy=EAGER, limits=PATIENT)


def other_training(folder: Path, cities: list[str]) -> Path:
    """Copy a model whose training has seen other cities."""
    contract = load_contract(make_table(folder))
    assert contract.table is not None
    table = dataclasses.replace(contract.table, categories={"city": cities})
    save_contract(dataclasses.replace(contract, table=table), folder)
    (folder / "model.onnx").rename(folder / "challenger.onnx")
    with (folder / "challenger.onnx").open("ab") as file:
        file.write(
            b"\x0a\x00"
        )  # a field of protobuf that is there twice: another file, no other model
    return folder / "challenger.onnx"


@pytest.mark.parametrize(
    ("cities", "stage"),
    [(["Oslo", "Rome"], Stage.ABORTED), (["Bern", "Oslo", "Rome"], Stage.SHADOW)],
    ids=["has not seen Bern", "has seen more"],
)
def test_inputs_are_judged_by_the_challengers_own_contract(folder, tmp_path, cities, stage):
    path = other_training(tmp_path / "other", cities)

    async def use(world: World) -> None:
        world.conductor.challengers = FileSource(artefact=artefact_at(path))
        world.conductor._wanted = None
        await world.conductor.tick()
        await world.traffic(150)
        assert world.trial.state.stage is stage, world.trial.state.why
        odd = {row.odd for row in world.rows() if row.role == "shadow"}
        assert odd == ({"own"} if stage is Stage.ABORTED else {None})
        if stage is Stage.ABORTED:
            assert "150 of 150 units sent values new to the challenger's" in world.trial.state.why

    every = Limits(hang_seconds=600, max_in_flight=1000)  # no shadow is left out
    experiment(folder, tmp_path, RIGHT, use, policy=Policy(steps=()), limits=every)


def test_a_champion_that_fails_counts_against_the_champion(folder, tmp_path):
    async def use(world: World) -> None:
        def fail(feeds):
            raise ValueError("nothing to say")

        with_run(world.service, fail)
        for at in range(40):
            try:
                await world.ask(f"unit {at}")
            except RefusedError:
                continue
        await world.traffic(0)
        own = [row for row in world.rows() if row.role == "champion"]
        assert len(own) > 5
        assert {(row.outcome, row.stage) for row in own} == {("error", "canary")}
        assert {row.experiment for row in own} == {world.trial.setting.experiment}

    experiment(folder, tmp_path, RIGHT, use, policy=EAGER)


def test_rows_that_nobody_named_are_one_unit_if_they_came_together(folder, tmp_path):
    async def use(world: World) -> None:
        feeds = {
            "age": np.full((3, 1), 20.0),
            "member": np.ones((3, 1)),
            "city": np.full((3, 1), "Bern", object),
            "since": np.zeros((3, 1), np.int64),
        }
        service, asker = world.service, Asker(endpoint="infer", started=0.0)
        edition = service.catalogue.current
        service.deadline_ms = 1e12
        ids, _ = await service.ask(edition, Checked(feeds=feeds, num_rows=3), asker)
        await world.traffic(0)
        await asyncio.sleep(0)
        assert {row.unit for row in world.rows()} == {ids[0]}

    experiment(folder, tmp_path, RIGHT, use, policy=Policy(steps=()))
