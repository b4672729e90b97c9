"""What an operator reads on the terminal and the dashboard while nobody is tried, or no longer."""

import dataclasses
import logging

import pytest
from test_rollback_registry import EAGER, Process, serving

from distill.production.experiment.rollout import Stage
from distill.production.prediction_log.records import Feedback
from distill.production.registry.rollout import unproven


@pytest.fixture
def told(caplog):
    """What was logged, each line once it is there."""
    logger = logging.getLogger("distill")
    before = logger.level, logger.propagate
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.removeHandler(caplog.handler)
    logger.level, logger.propagate = before


@pytest.fixture
def two(register, promote):
    """A champion, version 1, and its challenger, version 2."""
    register()
    promote()
    register(seed=1)
    promote("challenger")


async def decided(own: Process) -> None:
    """Ask, and say what was true, until the experiment is over."""
    for _ in range(4):
        asked = [(await own.ask())[0] for _ in range(60)]
        await own.look()
        for one in asked:
            own.log.feedback(Feedback(prediction=one, label=1))
        await own.look()
        if own.trial.state.stage.is_over:
            return
    raise AssertionError(own.trial.state.why)


def nobody(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("Nobody is tried")]


def test_that_there_is_no_challenger_is_told_once_with_the_remedy(
    home, tmp_path, register, promote, told
):
    register()
    promote()

    async def use(own: Process) -> None:
        await own.look()
        (line,) = nobody(told())
        assert "`promote to=challenger`" in line

    serving(home, tmp_path, use)


def test_a_cooldown_is_told_once_with_its_seconds_and_how_to_lift_it(
    home, tmp_path, two, told, register, promote
):
    async def away(own: Process) -> None:
        own.trial.ban = "it is of no use"
        await own.look()

    async def waiting(own: Process) -> None:
        await own.look()
        await own.look()
        (line,) = nobody(told())
        assert "sent away: it is of no use. The next one is tried in 3" in line
        assert "`rollout.cooldown_seconds`" in line

    async def lifted(own: Process) -> None:
        assert own.trial.state.stage is not Stage.ABORTED

    serving(home, tmp_path, away)
    register(seed=2)
    promote("challenger")
    serving(home, tmp_path, waiting)
    serving(home, tmp_path, lifted, dataclasses.replace(EAGER, cooldown_seconds=0))


def test_a_challenger_that_was_sent_away_by_the_same_rules_is_told_with_the_reason(
    home, tmp_path, two, told
):
    async def away(own: Process) -> None:
        own.trial.ban = "it is of no use"
        await own.look()
        assert not nobody(told())

    async def again(own: Process) -> None:
        (line,) = nobody(told())
        assert "by the same rules before" in line
        assert "it is of no use" in line

    serving(home, tmp_path, away)
    serving(home, tmp_path, again)


def test_a_challenger_that_is_decided_for_may_take_over_by_the_command_that_is_told(
    home, tmp_path, two, promote
):
    policy = dataclasses.replace(EAGER, promotes=False)

    async def use(own: Process) -> None:
        assert own.conductor.router.status()["standing"] == "ready"
        await decided(own)
        status = own.conductor.router.status()
        assert (status["stage"], status["standing"]) == ("decided", "may take over")
        assert status["next"] == "Run `python scripts/promote.py to=champion version=2`."
        promote(version=2)
        await own.catalogue.reload()
        await own.look()
        assert own.conductor.router.trial is None
        status = own.conductor.router.status()
        assert (status["standing"], status["next"]) == ("champion", None)

    serving(home, tmp_path, use, policy)


def test_a_rollout_promotes_nobody_whose_verdict_is_open_and_says_so(
    home, tmp_path, register, promote, told
):
    register()
    promote()
    register(seed=1, verdict="inconclusive")
    promote("challenger")
    assert unproven(home, 1) is None

    async def use(own: Process) -> None:
        assert any("will not become champion by itself" in line for line in told())
        await decided(own)
        state = own.trial.state
        assert state.stage is Stage.DECIDED
        assert state.weight == 0
        assert "the verdict is inconclusive" in state.why
        assert "force=true" in own.conductor.router.status()["next"]
        assert home.read().state.champion == 1

    serving(home, tmp_path, use)
