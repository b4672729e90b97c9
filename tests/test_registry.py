import shutil

import numpy as np
import pytest
from registered import RULES, agree, artefact_in_store
from registry_runs import NUM_TEST

from distill.budget import Outcome
from distill.errors import UsageError, UserError
from distill.production.registry.place import fetch
from distill.production.registry.promotion import Request
from distill.tasks import TaskKind


def test_the_first_champion_needs_a_pass_and_no_comparison(home, register, promote):
    register()
    decision = promote()
    assert decision.outcome is Outcome.PASS
    assert [finding.rule for finding in decision.findings] == ["verdict"]
    assert home.champion().version == 1
    assert agree(home)


def test_a_win_and_a_tie_become_champion(home, register, promote):
    register(seed=0, num_wrong=200)
    promote()
    register(seed=1, num_wrong=100)
    won = promote()
    assert won.outcome is Outcome.PASS
    assert won.findings[-1].measured == pytest.approx((100 - 200) / NUM_TEST)
    register(seed=2, num_wrong=101)
    assert promote().outcome is Outcome.PASS
    assert home.read().state.champions == (1, 2, 3)
    assert home.store.aliases() == {"champion": 3, "fallback": 2}


def test_a_loss_fails_and_what_is_unsure_is_inconclusive(home, register, promote):
    register(seed=0, num_wrong=100)
    promote()
    register(seed=1, num_wrong=200)
    lost = promote()
    assert lost.outcome is Outcome.FAIL
    assert lost.findings[-1].interval[0] > RULES.max_drop_vs_champion
    register(seed=2, num_wrong=118)
    unsure = promote()
    assert unsure.outcome is Outcome.INCONCLUSIVE
    low, high = unsure.findings[-1].interval
    assert low < RULES.max_drop_vs_champion < high
    assert home.champion().version == 1
    assert len(home.read().entries) == 4


def test_numbers_become_champion_by_the_share_of_the_error_that_is_gone(home, register, promote):
    numbers = {"kind": TaskKind.REGRESSION}
    register(seed=0, num_wrong=200, **numbers)
    promote()
    register(seed=1, num_wrong=100, **numbers)
    won = promote().findings[-1]
    assert won.outcome is Outcome.PASS
    assert won.measured == pytest.approx(1 - np.sqrt(200 / 100))  # RMSE is their share's root
    assert "has RMSE 0.316 and the candidate has RMSE 0.224" in won.note
    register(seed=2, num_wrong=150, **numbers)
    lost = promote().findings[-1]
    assert (lost.rule, lost.outcome) == ("drop_vs_champion", Outcome.FAIL)
    assert lost.measured == pytest.approx(1 - np.sqrt(100 / 150))
    assert home.champion().version == 2


def test_a_champion_that_the_candidates_run_asked_is_compared_in_numbers_too(
    home, register, promote
):
    numbers = {"kind": TaskKind.REGRESSION}
    register(seed=0, num_wrong=100, **numbers)
    promote()
    production = home.champion().artefact_sha256
    register(seed=1, num_wrong=80, test="another", incumbent=(production, 160), **numbers)
    (*_, found) = promote().findings
    assert (found.rule, found.outcome) == ("drop_vs_champion", Outcome.PASS)
    assert found.measured == pytest.approx(1 - np.sqrt(2))


def test_numbers_are_no_champion_where_classes_are_asked_for(register, promote):
    register(seed=0)
    promote()
    register(seed=1, num_wrong=0, kind=TaskKind.REGRESSION)
    (*_, found) = promote().findings
    assert (found.rule, found.outcome) == ("same_classes", Outcome.FAIL)
    assert found.note == "regression where the champion answers for classification"


@pytest.mark.parametrize(
    ("verdict", "champion", "challenger"),
    [
        ("pass", Outcome.PASS, Outcome.PASS),
        ("inconclusive", Outcome.INCONCLUSIVE, Outcome.PASS),
        ("fail", Outcome.FAIL, Outcome.FAIL),
    ],
)
def test_a_verdict_decides_what_a_version_may_become(
    home, register, promote, verdict, champion, challenger
):
    register(verdict=verdict)
    assert promote("challenger").outcome is challenger
    assert promote("champion").outcome is champion
    assert agree(home)


def test_another_order_of_classes_is_refused_and_so_are_other_classes(home, register, promote):
    register()
    promote()
    register(seed=1, classes=("dog", "cat", "owl"))
    found = promote().findings[-1]
    assert (found.rule, found.outcome) == ("same_classes", Outcome.FAIL)
    assert "another order" in found.note
    register(seed=2, classes=("cat", "dog", "owl", "rat"))
    found = promote().findings[-1]
    assert "new rat; gone none" in found.note
    assert home.champion().version == 1


def test_without_a_common_test_set_nothing_is_decided(home, register, promote):
    register()
    promote()
    register(seed=1, test="another")
    decision = promote()
    assert decision.outcome is Outcome.INCONCLUSIVE
    assert "pipeline against=champion" in decision.findings[-1].note


def test_a_run_that_asked_the_champion_is_compared_on_its_own_test_set(home, register, promote):
    champion = register().artefact_sha256
    promote()
    register(seed=1, test="another", num_wrong=100, incumbent=(champion, 300))
    decision = promote()
    assert decision.outcome is Outcome.PASS
    assert decision.findings[-1].measured == pytest.approx((100 - 300) / NUM_TEST)
    assert "the candidate's test set" in decision.findings[-1].note


def test_a_run_that_asked_somebody_else_says_nothing_of_the_champion(home, register, promote):
    register()
    promote()
    register(seed=1, test="another", num_wrong=100, incumbent=("b" * 64, 300))
    assert promote().outcome is Outcome.INCONCLUSIVE


def audit_of(seed, num_samples=1000):
    """Data on which the model of a seed is right, and others are as often as chance."""
    images = np.random.default_rng(5).integers(0, 256, (num_samples, 2, 2, 1), dtype=np.uint8)
    weights = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
    labels = (images.reshape(num_samples, 4).astype(np.float32) @ weights).argmax(axis=1)
    return lambda contract: (images, labels)


def test_after_a_drift_audited_data_decides_and_the_old_test_set_guards(home, register, promote):
    register(seed=0, num_wrong=100)
    promote()
    register(seed=1, num_wrong=140)  # loses on the old test set, but within the guardrail
    assert promote().outcome is not Outcome.PASS
    decision = promote(audit=audit_of(seed=1))
    assert [f.rule for f in decision.findings[-2:]] == ["drop_vs_champion", "drop_on_old_test"]
    assert decision.outcome is Outcome.PASS
    assert decision.findings[-2].measured < -0.2
    register(seed=2, num_wrong=400)
    decision = promote(audit=audit_of(seed=2))
    assert [f.outcome for f in decision.findings[-2:]] == [Outcome.PASS, Outcome.FAIL]
    assert promote(audit=audit_of(seed=1)).findings[-2].outcome is Outcome.FAIL
    assert home.champion().version == 2


def test_force_needs_a_reason_and_the_ledger_keeps_both(home, register, promote):
    register()
    promote()
    register(seed=1, num_wrong=400, verdict="fail")
    for reason in (None, "", "  "):
        with pytest.raises(UsageError, match="reason="):
            Request(alias="champion", force=True, reason=reason)
    decision = promote(force=True, reason="the old one is broken")
    assert decision.entry.forced
    assert decision.entry.reason == "the old one is broken"
    outcomes = [finding["outcome"] for finding in decision.entry.evidence]
    assert outcomes == ["fail", "pass", "fail"]
    assert home.champion().version == 2


def test_force_is_not_noted_where_all_rules_hold(home, register, promote):
    register()
    assert not promote(force=True, reason="to be sure").entry.forced


def test_no_force_promotes_what_is_not_whole(home, register, promote):
    register()
    path = artefact_in_store(home)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="it was changed"):
        promote(force=True, reason="now")
    path.unlink()
    with pytest.raises(UserError, match="it is missing"):
        promote(force=True, reason="now")
    assert home.read().state.champion is None


def test_a_version_replaced_in_the_store_by_a_whole_other_one_is_refused(home, register, promote):
    register()
    path = artefact_in_store(home).parent.parent
    register(seed=1)
    other = fetch(home, 2).root
    shutil.rmtree(path)
    shutil.copytree(other, path)
    with pytest.raises(UserError, match="it was replaced"):
        promote(version=1)


def test_an_artefact_that_answers_otherwise_than_its_golden_samples_is_refused(home, register):
    with pytest.raises(UserError, match="golden samples"):
        register(golden_error=0.1)
    assert home.store.versions() == {}


def test_what_is_champion_already_is_left_and_is_no_challenger(home, register, promote):
    register()
    promote()
    again = promote()
    assert again.entry is None
    assert "is the champion already" in again.why
    with pytest.raises(UserError, match="another version than the champion"):
        promote("challenger", 1)
    with pytest.raises(UserError, match="no version 7"):
        promote(version=7)


def test_a_challenger_is_what_becomes_champion_by_default(home, register, promote):
    for seed in range(3):
        register(seed=seed)
    promote(version=1)
    promote("challenger", 2)
    assert promote().version == 2
    assert home.store.aliases() == {"champion": 2, "fallback": 1}
