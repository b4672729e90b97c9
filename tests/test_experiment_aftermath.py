"""What became of a promotion is told from the log: in the decision, and on the page."""

import dataclasses

import pytest
from prediction_logs import prediction, write
from test_experiment_story import SETTING, START, moved

from distill.production.experiment.page import page
from distill.production.experiment.rollout import Stage, State
from distill.production.experiment.story import document, tell
from distill.production.prediction_log.connection import open_log

PROMOTED = START + 1000
OLD, NEW = SETTING.champion.artefact_sha256, SETTING.challenger.artefact_sha256


def answered(artefact: str, start: float, outcomes: list[str], **facts):
    return [
        prediction(
            artefact_sha256=artefact,
            outcome=outcome,
            time=start + at,
            unit=f"unit {start} {at}",
            latency_ms=float(at),
            **facts,
        )
        for at, outcome in enumerate(outcomes)
    ]


@pytest.fixture
def engine(tmp_path):
    """A log of a challenger that was promoted, then failed every second one who asked."""
    engine = open_log(f"sqlite:///{tmp_path}/log.db")
    canary = State(stage=Stage.CANARY, step=0, weight=0.5, since=START)
    champion = State(
        stage=Stage.PROMOTED, weight=1.0, since=PROMOTED, until=PROMOTED + 3600, why="it is better"
    )
    moved(engine, 1, START, canary, SETTING)
    moved(engine, 2, PROMOTED, champion)
    write(engine, *answered(OLD, START, ["ok"] * 400 + ["error"] * 8))
    write(engine, *answered(OLD, START - 500, ["error"] * 50))  # before the experiment
    write(engine, *answered(NEW, PROMOTED, ["ok", "timeout"] * 30))
    yield engine
    engine.dispose()


def test_a_promotion_within_its_window_is_held_against_what_was_usual(engine):
    told = document(tell(engine, SETTING.experiment, num_points=0))
    rules = {one["rule"]: one for one in told["aftermath"]}
    assert "0 of 60 units met with an error since the promotion, and 8 of 408" in str(
        rules["errors"]["note"]
    )
    assert rules["timeouts"]["measured"] == 0.5
    assert rules["timeouts"]["outcome"] == "fail"
    assert rules["failures"]["measured"] == 1
    assert told["until"] == PROMOTED + 3600
    assert (told["verdict"], told["why"]) == ("pass", "it is better")


def test_a_rollback_is_a_failure_and_counts_nothing_that_came_later(engine):
    end = PROMOTED + 30
    rolled_back = State(stage=Stage.ROLLED_BACK, since=end, until=end + 60, why="it was late")
    moved(engine, 3, end, rolled_back)
    story = tell(engine, SETTING.experiment, num_points=0)
    told = document(story)
    assert (told["verdict"], told["result"], told["stage"]) == ("fail", "Failed", "rolled_back")
    assert (told["weight"], told["why"]) == (0.0, "it was late")
    assert {one["measured"] for one in told["aftermath"] if one["rule"] == "timeouts"} == {0.5}
    assert "15 of 30 units had no answer in time since the promotion" in str(told["aftermath"])
    text = page(story)
    assert "The challenger had taken over, and does not answer any more." in text
    assert "15 of 30 units had no answer in time" in text
    assert "It was late." in text
    assert "rolled back" in text


def test_a_page_says_how_long_a_promotion_is_watched(engine):
    assert "It was watched until 2023-11-14 23:30:00 UTC" in page(tell(engine, SETTING.experiment))
    moved(engine, 3, PROMOTED, State(stage=Stage.PROMOTED, since=PROMOTED, until=4e9, why="sure"))
    assert "back at once if one of these fails" in page(tell(engine, SETTING.experiment))


def test_an_experiment_without_a_promotion_has_no_aftermath(tmp_path):
    engine = open_log(f"sqlite:///{tmp_path}/other.db")
    moved(engine, 1, START, State(stage=Stage.SHADOW, since=START), SETTING)
    story = tell(engine, SETTING.experiment, num_points=0)
    assert document(story)["aftermath"] is None
    assert "Since it took over" not in page(story)
    assert "skew" in {one["rule"] for one in document(story)["findings"]}
    engine.dispose()


def test_experiments_from_before_a_rule_keep_their_name_and_other_rules_are_others():
    assert SETTING.experiment == "digits-aaaaaaaaaaaa-bbbbbbbbbbbb-9fbae390"  # as it was then
    for rules in ({"skew_margin": None}, {"rollback_window_seconds": 60.0}):
        policy = dataclasses.replace(SETTING.policy, **rules)
        assert dataclasses.replace(SETTING, policy=policy).experiment != SETTING.experiment
