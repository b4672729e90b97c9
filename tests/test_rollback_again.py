"""The same two meet again: after a rollback, and with files that were registered once more."""

from dataclasses import replace

import pytest
from registered import rollback
from test_rollback_registry import EAGER, Process, serving
from test_rollback_registry import two as two
from test_rollback_settling import actions, held
from test_rollback_settling import impatient as impatient

from distill.production.experiment.rollout import Stage

UNWATCHED = replace(EAGER, rollback_window_seconds=0.0)


async def promoted(own: Process) -> None:
    await own.promoted()
    await own.conductor.tick()


async def answered_by(own: Process, count: int = 10) -> set[int | None]:
    return {(await own.ask())[1].version for _ in range(count)}


@pytest.mark.parametrize("back", ["rollback", "promotion"])
@pytest.mark.parametrize("policy", [EAGER, UNWATCHED], ids=["watched", "unwatched"])
def test_who_was_rolled_back_while_nobody_looked_answers_nobody_when_tried_again(
    home, tmp_path, two, promote, back, policy
):
    async def again(own: Process) -> None:
        for _ in range(3):
            assert await answered_by(own) == {1}
            await own.conductor.tick()
        assert own.trial.state.stage is Stage.ROLLED_BACK
        assert own.trial.state.weight == 0
        assert "version 1" in own.trial.state.why
        assert own.trial.challenger is not None
        assert not own.trial.challenger.is_ready

    serving(home, tmp_path, promoted, policy=policy)
    if back == "rollback":
        rollback(home, None, "the shop complains")
    else:
        promote(version=1, force=True, reason="the shop complains")
    promote("challenger", version=2)
    for _ in range(2):
        serving(home, tmp_path, again, policy=policy)
    assert home.read().state.champion == 1


@pytest.mark.parametrize("restarts", [False, True], ids=["goes on", "restarted"])
def test_the_version_that_was_proven_is_promoted_and_not_the_same_file_before_it(
    home, tmp_path, register, promote, restarts
):
    register()
    promote()
    register(seed=1, verdict="inconclusive")
    promote("challenger")

    async def open_question(own: Process) -> None:
        assert own.trial.unproven is not None

    async def proven(own: Process) -> None:
        register(seed=1)
        promote("challenger", version=3)
        await own.conductor.tick()
        assert own.trial.setting.challenger.version == 3
        await promoted(own)

    if restarts:
        serving(home, tmp_path, open_question)
    serving(home, tmp_path, proven)
    assert actions(home) == [("promote", 1), ("promote", 3)]


def test_a_version_whose_verdict_is_open_is_not_promoted_for_the_same_file_before_it(
    home, tmp_path, two, register, promote
):
    async def use(own: Process) -> None:
        register(seed=1, verdict="inconclusive")
        promote("challenger", version=3)
        await own.conductor.tick()
        with pytest.raises(AssertionError, match="the verdict is inconclusive"):
            await own.promoted()
        assert own.trial.state.stage is Stage.DECIDED

    serving(home, tmp_path, use)
    assert actions(home) == [("promote", 1)]


@pytest.mark.parametrize("when", ["on trial", "promoted"])
def test_a_champion_that_is_registered_once_more_keeps_no_promotion_from_the_registry(
    home, tmp_path, two, register, promote, when
):
    def once_more() -> None:
        register(num_wrong=99)  # another report on the same file
        promote(version=3, force=True, reason="the report is right now")

    async def use(own: Process) -> None:
        if when == "on trial":
            once_more()
            await own.catalogue.reload()
            await promoted(own)
        else:
            with held(home):
                await own.promoted()
            once_more()
            await own.catalogue.reload()
            await own.conductor.tick()
        assert await answered_by(own) == {2}
        assert own.conductor.router.problem is None
        own.trial.ban = "it fails"
        await own.look()
        assert await answered_by(own) == {3}

    serving(home, tmp_path, use)
    assert actions(home) == [("promote", 1), ("promote", 3), ("promote", 2), ("rollback", 3)]


def test_a_restart_leaves_what_a_person_promoted_after_a_rollback_that_was_never_written(
    home, tmp_path, two, promote, monkeypatch
):
    async def harmed(own: Process) -> None:
        with held(home):
            await own.promoted()
            own.trial.ban = "it fails"
            await own.look()
            await own.conductor.close()

    async def restarted(own: Process) -> None:
        await own.conductor.tick()
        assert await answered_by(own) == {2}

    serving(home, tmp_path, harmed)
    promote(version=2, force=True, reason="it was the network")
    serving(home, tmp_path, restarted)
    assert actions(home) == [("promote", 1), ("promote", 2)]


def test_what_a_person_promotes_before_the_experiment_could_is_answered_with_and_theirs(
    home, tmp_path, two, promote
):
    async def use(own: Process) -> None:
        with held(home):
            await own.promoted()
        promote(version=2, force=True, reason="it is good")
        await own.conductor.tick()
        assert await answered_by(own) == {2}
        assert own.catalogue.current.version == 2
        assert own.conductor.router.trial is None

    serving(home, tmp_path, use)
    assert actions(home) == [("promote", 1), ("promote", 2)]
    assert home.read().entries[-1].reason == "it is good"


def notes(home) -> list[str]:
    """The steps that changed nobody."""
    return [
        str(one.reason).partition(":")[0] for one in home.read().entries if one.action == "rollout"
    ]


def test_steps_that_a_kill_kept_from_the_registry_are_made_up_for_once(home, tmp_path, two):
    async def killed(own: Process) -> None:
        own.trial.ban = "it fails"
        await own.look()

    async def restarted(own: Process, other: Process) -> None:
        for one in (own, other):
            await one.conductor.tick()

    with held(home):
        serving(home, tmp_path, killed)
    assert notes(home) == []
    for _ in range(2):
        serving(home, tmp_path, restarted, count=2)
    assert notes(home) == ["canary 50%", "aborted"]
