import io
import time

import pytest
from registered import agree, rollback
from rich.console import Console

from distill.errors import UserError
from distill.production.registry import rollout
from distill.production.registry.history import periods
from distill.production.registry.registry import open_registry
from distill.verbs.production.history import show_history

EVIDENCE = ({"rule": "errors", "outcome": "pass", "measured": 0.0},)


@pytest.fixture
def two(register, promote):
    """A champion, version 1, and its challenger, version 2."""
    register()
    promote()
    register(seed=1)
    promote("challenger")


def test_steps_of_a_rollout_do_not_bury_promotions_in_what_history_shows(home, two):
    ratio = {"rule": "sample_ratio", "outcome": "pass", "note": "as it should be", "limit": 0.01}
    rollout.note(home, 2, "canary 5%: no worse", ({**ratio, "measured": 1.0, "interval": None},))
    shown = io.StringIO()
    show_history(Console(file=shown, width=150), "pets", home.read(), None)
    assert "canary 5%: no worse" in shown.getvalue()
    assert "sample ratio" not in shown.getvalue()
    assert "()" not in shown.getvalue()


def test_a_step_is_in_the_history_with_its_evidence_and_changes_nobody(home, two):
    before = home.read().state
    entry = rollout.note(home, 2, "canary 5%: no worse", EVIDENCE)
    after = home.read()
    assert after.state.aliases == before.aliases
    assert after.entries[-1] == entry
    assert (entry.action, entry.reason, entry.evidence) == (
        "rollout",
        "canary 5%: no worse",
        EVIDENCE,
    )


def test_a_promotion_by_an_experiment_is_one_and_mlflow_follows(home, two):
    rollout.promote(home, 2, 1, "promoted: it is better", EVIDENCE)
    assert home.read().state.aliases == {"champion": 2, "fallback": 1}
    assert [period.version for period in periods(home.read().entries)] == [1, 2]
    with open_registry(home) as registry:
        registry.synchronise()
    assert agree(home)
    rollback(home)
    assert home.read().state.champion == 1


def test_a_step_of_an_unknown_version_is_refused(home, two):
    with pytest.raises(UserError, match="no version 7"):
        rollout.note(home, 7, "shadow")


def test_a_held_registry_is_waited_for_and_then_said(home, two, monkeypatch):
    monkeypatch.setattr(rollout, "_TRIES", 2)
    monkeypatch.setattr(rollout, "_PAUSE_S", 0.01)
    with open_registry(home), pytest.raises(UserError, match="held by process"):
        rollout.note(home, 2, "shadow")
    assert rollout.note(home, 2, "shadow").action == "rollout"


def test_a_promotion_is_taken_back_once_with_its_evidence_and_mlflow_follows(home, two):
    rollout.promote(home, 2, 1, "promoted: it is better")
    entry = rollout.take_back(home, 2, 1, "rolled back: it failed", EVIDENCE)
    assert entry is not None
    assert (entry.action, entry.version, entry.evidence) == ("rollback", 1, EVIDENCE)
    assert home.read().state.aliases == {"champion": 1}
    assert rollout.take_back(home, 2, 1, "rolled back: it failed") is None
    assert home.read().entries[-1] == entry
    assert [period.version for period in periods(home.read().entries)] == [1, 2, 1]
    with open_registry(home) as registry:
        registry.synchronise()
    assert agree(home)


def test_a_version_that_somebody_promoted_meanwhile_is_left_alone(home, two, register, promote):
    rollout.promote(home, 2, 1, "promoted: it is better")
    register(seed=2)
    promote(version=3)
    assert rollout.take_back(home, 2, 1, "rolled back: it failed") is None
    assert home.read().state.champion == 3


def test_who_replaced_a_champion_is_told_from_a_promotion_that_is_not_written_yet(home, two):
    now = time.time()
    assert rollout.replaced(home, 2, now) is None
    rollout.promote(home, 2, 1, "promoted: it is better")
    assert rollout.replaced(home, 2, now) is None
    rollback(home, None, "the shop complains")
    assert rollout.replaced(home, 2, now) == home.read().entries[-1]
    assert rollout.replaced(home, 2, now + 3600) is None  # of an earlier time as champion
    rollout.promote(home, 2, 1, "promoted again")
    assert rollout.replaced(home, 2, now) is None


def test_a_promotion_that_is_told_again_is_written_once(home, two):
    now = time.time()
    first = rollout.promote(home, 2, 1, "promoted: it is better", EVIDENCE, since=now)
    assert first is not None
    assert (first.action, first.alias, first.evidence) == ("promote", "champion", EVIDENCE)
    assert rollout.promote(home, 2, 1, "promoted: it is better", since=now) is None
    rollback(home, None, "the shop complains")
    assert rollout.promote(home, 2, 1, "promoted: it is better", since=now) is None
    assert home.read().state.champion == 1


def test_a_promotion_that_is_told_late_leaves_whom_a_person_chose_since(
    home, two, register, promote
):
    register(seed=2)
    promote(version=3)
    now = time.time()
    assert rollout.promote(home, 2, 1, "promoted: it is better", since=now) is None
    replaced = rollout.replaced(home, 2, now, former=1)
    assert replaced is not None
    assert replaced.version == 3
    rollback(home)  # to the champion that it was tried against, and a day after
    assert rollout.promote(home, 2, 1, "promoted", since=now - 86_400) is None
    assert rollout.replaced(home, 2, now - 86_400, former=1) == home.read().entries[-1]
    assert rollout.replaced(home, 2, now, former=1) is None
    assert rollout.promote(home, 2, 1, "promoted", since=now) is not None


def test_whoever_makes_it_champion_again_after_it_was_taken_back_knows_why(home, two, promote):
    now = time.time()
    rollout.promote(home, 2, 1, "promoted: it is better", since=now)
    assert rollout.is_behind(home, 2, 1, now, is_back=True)
    rollout.take_back(home, 2, 1, "rolled back: it failed", since=now)
    promote(version=2, force=True, reason="it was the network")
    assert not rollout.is_behind(home, 2, 1, now, is_back=True)
    assert rollout.take_back(home, 2, 1, "rolled back: it failed", since=now) is None
    assert home.read().state.champion == 2


def test_what_a_person_tried_a_moment_before_is_not_the_experiments(home, two, promote):
    promote(version=2, force=True, reason="to have a look")
    rollback(home)
    now = time.time() + 2.0  # the person was there two seconds ago
    assert rollout.replaced(home, 2, now, former=1) is None
    assert rollout.promote(home, 2, 1, "promoted: it is better", since=now) is not None
    assert rollout.take_back(home, 2, 1, "rolled back: it failed", since=now) is not None
    assert home.read().state.champion == 1


def test_nobody_is_waited_for_where_there_is_nothing_to_write(home, two):
    with open_registry(home):
        assert rollout.take_back(home, 2, 1, "rolled back: it failed") is None
