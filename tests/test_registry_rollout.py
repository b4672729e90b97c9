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

BETTER = "promoted: it is better"
FAILED = "rolled back: it failed"
EVIDENCE = ({"rule": "errors", "outcome": "pass", "measured": 0.0},)


@pytest.fixture
def two(register, promote):
    """A champion, version 1, and its challenger, version 2."""
    register()
    promote()
    register(seed=1)
    promote("challenger")


@pytest.fixture
def decided(home, two):
    """Say what an experiment's log has decided: version 2 for version 1."""

    def call(since=None, **other):
        first, second = (home.read().state.registered[version] for version in (1, 2))
        facts = {
            "experiment": "pets of today",
            "version": 2,
            "artefact_sha256": second.artefact_sha256,
            "former_sha256": first.artefact_sha256,
            "since": time.time() if since is None else since,
            "reason": BETTER,
        }
        return rollout.Promotion(**(facts | other))

    return call


def champions(home):
    """What was done about champions, in order."""
    return [(one.action, one.version) for one in home.read().entries if one.alias == "champion"]


def test_steps_of_a_rollout_do_not_bury_promotions_in_what_history_shows(home, two):
    ratio = {"rule": "sample_ratio", "outcome": "pass", "note": "as it should be", "limit": 0.01}
    evidence = ({**ratio, "measured": 1.0, "interval": None},)
    rollout.note(home, "pets of today", 2, [("canary 5%: no worse", evidence)])
    shown = io.StringIO()
    show_history(Console(file=shown, width=150), "pets", home.read(), None)
    assert "canary 5%: no worse" in shown.getvalue()
    assert "sample ratio" not in shown.getvalue()
    assert "()" not in shown.getvalue()


def test_a_step_is_in_the_history_with_its_evidence_and_changes_nobody(home, two):
    before = home.read().state
    (entry,) = rollout.note(home, "pets of today", 2, [("canary 5%: no worse", EVIDENCE)])
    after = home.read()
    assert after.state.aliases == before.aliases
    assert after.entries[-1] == entry
    assert (entry.action, entry.reason, entry.evidence) == (
        "rollout",
        "canary 5%: no worse",
        EVIDENCE,
    )


def test_steps_that_are_there_are_not_added_again(home, two):
    shadow, canary = ("shadow: the experiment begins", ()), ("canary 5%: no worse", EVIDENCE)
    rollout.note(home, "pets of today", 2, [shadow])
    (added,) = rollout.note(home, "pets of today", 2, [shadow, canary])
    assert added.reason == canary[0]
    with open_registry(home):  # nobody is waited for
        assert rollout.note(home, "pets of today", 2, [shadow, canary]) == []
    # The same two by the same rules, from another log.
    assert len(rollout.note(home, "pets of tomorrow", 2, [shadow, canary])) == 2


def test_a_promotion_by_an_experiment_is_one_and_mlflow_follows(home, decided):
    rollout.promote(home, decided(), EVIDENCE)
    assert home.read().state.aliases == {"champion": 2, "fallback": 1}
    assert [period.version for period in periods(home.read().entries)] == [1, 2]
    with open_registry(home) as registry:
        registry.synchronise()
    assert agree(home)
    rollback(home)
    assert home.read().state.champion == 1


def test_a_step_of_an_unknown_version_is_refused(home, two):
    with pytest.raises(UserError, match="no version 7"):
        rollout.note(home, "pets of today", 7, [("shadow", ())])


def test_a_held_registry_is_waited_for_and_then_said(home, two, monkeypatch):
    monkeypatch.setattr(rollout, "_TRIES", 2)
    monkeypatch.setattr(rollout, "_PAUSE_S", 0.01)
    with open_registry(home), pytest.raises(UserError, match="held by process"):
        rollout.note(home, "pets of today", 2, [("shadow", ())])
    (entry,) = rollout.note(home, "pets of today", 2, [("shadow", ())])
    assert entry.action == "rollout"


def test_a_promotion_is_taken_back_once_with_its_evidence_and_mlflow_follows(home, decided):
    rollout.promote(home, decided())
    entry = rollout.take_back(home, decided(), FAILED, EVIDENCE)
    assert entry is not None
    assert (entry.action, entry.version, entry.evidence) == ("rollback", 1, EVIDENCE)
    assert home.read().state.aliases == {"champion": 1}
    assert rollout.take_back(home, decided(), FAILED) is None
    assert home.read().entries[-1] == entry
    assert [period.version for period in periods(home.read().entries)] == [1, 2, 1]
    with open_registry(home) as registry:
        registry.synchronise()
    assert agree(home)


def test_a_version_that_somebody_promoted_meanwhile_is_left_alone(home, decided, register, promote):
    rollout.promote(home, decided())
    register(seed=2)
    promote(version=3)
    assert rollout.take_back(home, decided(), FAILED) is None
    assert home.read().state.champion == 3


def test_who_replaced_a_champion_is_told_from_a_promotion_that_is_not_written_yet(
    home, decided, promote
):
    own = decided()
    assert rollout.replaced(home, own) is None
    rollout.promote(home, own)
    assert rollout.replaced(home, own) is None
    rollback(home, None, "the shop complains")
    undone = home.read().entries[-1]
    assert rollout.replaced(home, own) == undone
    other = decided(own.since + 3600, experiment="pets of tomorrow")
    assert rollout.replaced(home, other) is None  # of an earlier time as champion
    promote(version=2, force=True, reason="it was the network")
    assert rollout.replaced(home, own) == undone  # what a person promotes is not the experiment's


def test_a_promotion_that_is_told_again_is_written_once(home, decided):
    own = decided()
    first = rollout.promote(home, own, EVIDENCE)
    assert first is not None
    assert (first.action, first.alias, first.evidence) == ("promote", "champion", EVIDENCE)
    assert rollout.promote(home, own) is None
    rollback(home, None, "the shop complains")
    assert rollout.promote(home, own) is None
    assert home.read().state.champion == 1


def test_a_promotion_that_is_told_late_leaves_whom_a_person_chose_since(
    home, decided, register, promote
):
    register(seed=2)
    promote(version=3)
    now = time.time()
    assert rollout.promote(home, decided(now)) is None
    replaced = rollout.replaced(home, decided(now))
    assert replaced is not None
    assert replaced.version == 3
    rollback(home)  # to the champion that it was tried against, and a day after
    assert rollout.promote(home, decided(now - 86_400)) is None
    assert rollout.replaced(home, decided(now - 86_400)) == home.read().entries[-1]
    assert rollout.replaced(home, decided(now)) is None
    assert rollout.promote(home, decided(now)) is not None


def test_whoever_makes_it_champion_again_after_it_was_taken_back_knows_why(home, decided, promote):
    own = decided()
    rollout.promote(home, own)
    assert rollout.pending(home, own, back=FAILED) is not None
    rollout.take_back(home, own, FAILED)
    promote(version=2, force=True, reason="it was the network")
    assert rollout.pending(home, own, back=FAILED) is None
    assert rollout.take_back(home, own, FAILED) is None
    assert home.read().state.champion == 2


def test_what_a_person_tried_a_moment_before_is_not_the_experiments(home, decided, promote):
    promote(version=2, force=True, reason="to have a look")
    rollback(home)
    own = decided()
    assert rollout.replaced(home, own) is None
    assert rollout.promote(home, own) is not None
    assert rollout.take_back(home, own, FAILED) is not None
    assert home.read().state.champion == 1


def test_nobody_is_waited_for_where_there_is_nothing_to_write(home, decided):
    with open_registry(home):
        assert rollout.take_back(home, decided(), FAILED) is None


def test_what_is_lacking_is_found_before_it_is_written(home, decided):
    own = decided()
    assert rollout.pending(home, own, back=FAILED) is None
    write = rollout.pending(home, own, EVIDENCE)
    assert write is not None
    write()
    assert rollout.pending(home, own, EVIDENCE) is None
    write = rollout.pending(home, own, EVIDENCE, back=FAILED)
    assert write is not None
    write()
    assert rollout.pending(home, own, EVIDENCE, back=FAILED) is None
    assert champions(home) == [("promote", 1), ("promote", 2), ("rollback", 1)]


def test_the_file_is_what_was_tried_and_not_the_number_that_it_had(
    home, decided, register, promote
):
    register(num_wrong=99)  # another report on the champion's file
    promote(version=3, force=True, reason="the report is right now")
    own = decided()
    assert rollout.promote(home, own) is not None
    assert rollout.take_back(home, own, FAILED) is not None
    assert champions(home)[2:] == [("promote", 2), ("rollback", 3)]


def test_a_log_of_another_registry_promotes_nobody(home, decided):
    assert rollout.pending(home, decided(artefact_sha256="0" * 64)) is None
    assert rollout.pending(home, decided(former_sha256="0" * 64)) is None


def test_a_version_whose_verdict_is_open_is_promoted_by_no_experiment(home, decided, register):
    register(seed=1, verdict="inconclusive")
    with pytest.raises(UserError, match="version 3 the verdict is inconclusive"):
        rollout.promote(home, decided(version=3))
    assert champions(home) == [("promote", 1)]


def test_a_history_from_before_entries_named_their_experiment_is_read(home, decided):
    own = decided()
    old = rollout.promote(home, own)
    lines = home.ledger_path.read_bytes().splitlines(keepends=True)
    assert old is not None
    home.ledger_path.write_bytes(b"".join(lines[:-1]))
    ledger = home.read()
    facts = {"content": old.content, "artefact": old.artefact}
    facts |= {"artefact_sha256": old.artefact_sha256, "alias": "champion"}
    ledger.append("promote", 2, reason=BETTER, **facts)
    assert rollout.promote(home, own) is None
    assert rollout.replaced(home, own) is None
    assert rollout.take_back(home, own, FAILED) is not None
