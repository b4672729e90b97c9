"""The log is right: while the registry cannot be told, and after a kill before it was told."""

import contextlib
import errno
import fcntl
import os
import time
from types import SimpleNamespace

import pytest
from test_rollback_registry import Process, serving
from test_rollback_registry import two as two

from distill.production.experiment.rollout import Stage
from distill.production.registry import rollout
from distill.production.routing import conductor
from distill.production.serving.catalogue import Catalogue


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Wait for nobody who holds the registry: it is told at the next look."""
    monkeypatch.setattr(rollout, "_TRIES", 1)


@contextlib.contextmanager
def held(home):
    """Hold the registry, as `promote register` does while it uploads."""
    with (home.ledger_path.parent / ".lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def actions(home):
    """What was done about champions, in order."""
    return [(one.action, one.version) for one in home.read().entries if one.alias == "champion"]


def test_the_old_champion_answers_at_once_while_the_registry_is_held(home, tmp_path, two):
    async def use(own: Process, other: Process) -> None:
        await own.promoted()
        for one in (own, other):
            await one.conductor.tick()
            await one.catalogue.reload()
            await one.conductor.tick()
            assert (await one.ask())[1].version == 2
        with held(home):
            await own.harmed()
            await other.conductor.tick()
            for one in (own, other):
                assert (await one.ask())[1].version == 1
                await one.catalogue.reload()  # as its watch would: the ledger names the other
                assert (await one.ask())[1].version == 1
                assert "held by" in str(one.conductor.router.problem)
                assert "pets version 2" in str(one.catalogue.problem)
                assert "has done harm and answers nobody" in str(one.catalogue.problem)
            assert home.read().state.champion == 2
        for one in (own, other):
            await one.conductor.tick()
            await one.catalogue.reload()
            assert (await one.ask())[1].version == 1
            assert one.conductor.router.problem is None
            assert one.catalogue.problem is None

    serving(home, tmp_path, use, count=2)
    assert actions(home) == [("promote", 1), ("promote", 2), ("rollback", 1)]
    evidence = home.read().entries[-1].evidence
    assert {one["rule"]: one["outcome"] for one in evidence}["failures"] == "fail"


def test_a_promotion_that_the_registry_was_not_told_of_is_judged_all_the_same(home, tmp_path, two):
    async def use(own: Process) -> None:
        with held(home):
            await own.promoted()
            assert (await own.ask())[1].version == 2
            own.trial.ban = "it fails"
            await own.look()
            assert own.trial.state.stage is Stage.ROLLED_BACK
            assert (await own.ask())[1].version == 1
        await own.look()
        assert own.conductor.router.problem is None
        await own.catalogue.reload()
        assert (await own.ask())[1].version == 1

    serving(home, tmp_path, use)
    assert home.read().state.champion == 1


def test_the_old_champion_answers_at_once_while_the_ledger_cannot_be_read(
    home, tmp_path, two, monkeypatch
):
    def due(course):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def use(own: Process) -> None:
        await own.promoted()
        await own.conductor.tick()
        with monkeypatch.context() as patch:
            patch.setattr(own.conductor._settling, "due", due)
            own.trial.ban = "it fails"
            await own.look()
            assert "Input/output error" in str(own.conductor.router.problem)
            assert (await own.ask())[1].version == 1
        await own.look()
        assert own.conductor.router.problem is None

    serving(home, tmp_path, use)
    assert actions(home) == [("promote", 1), ("promote", 2), ("rollback", 1)]


def test_a_registry_that_cannot_be_written_stops_no_experiment(home, tmp_path, two, monkeypatch):
    def exclusive(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async def use(own: Process) -> None:
        await own.promoted()
        assert "Read-only file system" in str(own.conductor.router.problem)
        own.trial.ban = "it fails"
        await own.look()
        assert own.trial.state.stage is Stage.ROLLED_BACK
        assert (await own.ask())[1].version == 1

    before = len(home.read().entries)
    monkeypatch.setattr(rollout, "exclusive", exclusive)
    serving(home, tmp_path, use)
    assert len(home.read().entries) == before


@pytest.fixture
def clock(monkeypatch):
    """A clock of the conductor's own, which goes on by what takes long."""
    clock = SimpleNamespace(now=0.0, time=time.time)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(conductor, "time", clock)
    return clock


def test_waiting_for_the_registry_puts_off_no_look(home, tmp_path, two, clock):
    def tell():
        clock.now += 5.0

    async def use(own: Process) -> None:
        own.conductor._settling.tell = tell
        assert await own.conductor.tick() == 0.0  # nine times as long it sleeps
        assert clock.now == 5.0

    serving(home, tmp_path, use)


def test_waiting_for_a_challenger_puts_off_no_look_and_reading_does(
    home, tmp_path, two, clock, monkeypatch
):
    async def ready(self, seconds):
        clock.now += 60.0
        return False

    async def use(own: Process) -> None:
        read = own.conductor.mover.advance

        def advance(trial):
            clock.now += 2.0
            read(trial)

        monkeypatch.setattr(own.conductor.mover, "advance", advance)
        monkeypatch.setattr(conductor.Challenger, "ready", ready)
        await own.conductor._end_trial()
        assert await own.conductor.tick() == 2.0
        assert clock.now == 62.0

    serving(home, tmp_path, use)


def test_a_long_rest_tells_the_registry_as_soon_as_it_can_be_told(home, tmp_path, two, monkeypatch):
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            lock.close()

    async def use(own: Process) -> None:
        own.trial.ban = "it fails"
        await own.look()
        assert "held by" in str(own.conductor._untold)
        with monkeypatch.context() as patch:
            patch.setattr(conductor.asyncio, "sleep", sleep)
            await own.conductor._rest(540.0)
        assert own.conductor._untold is None
        assert slept == [1.0, 1.0, 538.0]

    with contextlib.ExitStack() as lock:
        lock.enter_context(held(home))
        serving(home, tmp_path, use)


def test_a_rollback_that_a_kill_kept_from_the_registry_is_made_up_for(home, tmp_path, two):
    async def killed(own: Process) -> None:
        await own.promoted()
        await own.conductor.tick()
        with held(home):
            await own.harmed()

    async def restarted(own: Process, other: Process) -> None:
        assert (await own.ask())[1].version == 1
        await other.catalogue.reload()  # which it follows at its own pace
        assert (await other.ask())[1].version == 1

    async def answers(own: Process) -> None:
        assert (await own.ask())[1].version == 1

    serving(home, tmp_path, killed)
    with held(home):
        serving(home, tmp_path, answers)
    assert home.read().state.champion == 2
    serving(home, tmp_path, restarted, count=2)
    serving(home, tmp_path, restarted, count=2)
    assert actions(home) == [("promote", 1), ("promote", 2), ("rollback", 1)]
    assert "requests failed" in str(home.read().entries[-1].reason)


def test_a_promotion_that_a_kill_kept_from_the_registry_is_made_up_for(home, tmp_path, two):
    async def killed(own: Process) -> None:
        with held(home):
            await own.promoted()

    async def restarted(own: Process) -> None:
        await own.conductor.tick()
        assert own.catalogue.current.version == 2
        assert own.trial.challenger is None
        assert own.trial.state.stage is Stage.PROMOTED

    serving(home, tmp_path, killed)
    assert home.read().state.champion == 1
    for _ in range(2):
        serving(home, tmp_path, restarted)
    assert actions(home) == [("promote", 1), ("promote", 2)]


def test_a_restart_leaves_alone_what_a_person_made_champion_again(
    home, tmp_path, two, promote, monkeypatch
):
    async def harmed(own: Process) -> None:
        await own.promoted()
        await own.conductor.tick()
        await own.harmed()

    async def restarted(own: Process) -> None:
        await own.conductor.tick()
        assert (await own.ask())[1].version == 2

    def unwanted(*_):
        raise AssertionError("another one answers, if only for a moment")

    serving(home, tmp_path, harmed)
    promote(version=2, force=True, reason="it was the network")
    monkeypatch.setattr(Catalogue, "_swap", unwanted)
    serving(home, tmp_path, restarted)
    assert home.read().state.champion == 2
