"""Who is answered by whom while a challenger is tried, and what becomes of it."""

import os
import signal
import threading
import time
from collections import Counter

import numpy as np
import pytest
from tried import AT_ONCE, NOTHING, RIGHT, WRONG, World, experiment
from tried import folder as folder

from distill.production.experiment.policy import Policy
from distill.production.experiment.rollout import Stage
from distill.production.routing.challenger import ChallengerError, Limits
from distill.production.serving.service import Asker
from distill.production.serving.signature import Checked


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
