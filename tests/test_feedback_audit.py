"""The audit is the same whoever draws it; thresholds hold what they claim; people keep a share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distill.audit import Audit, Share, check_share, evenly, place_of
from distill.errors import UsageError
from distill.production.feedback.precision import GRID, lower_bound, prove
from distill.production.feedback.tiers import Tier, capped, confidences, counted, tiers
from distill.production.prediction_log.records import new_id


def audit(*shares):
    return Audit(shares=tuple(Share(since=since, share=share) for since, share in shares))


def test_the_place_of_an_id_is_for_ever():
    # printf "distill audit:%030d" 0 | sha256sum | head -c16, over 2**64
    assert place_of("0" * 30) == pytest.approx(0.8413025, abs=1e-7)


def test_places_are_uniform_and_know_nothing_of_time():
    ids = [new_id(1_700_000_000 + i) for i in range(5000)]
    places = np.array([place_of(one) for one in ids])
    assert stats.kstest(places, "uniform").pvalue > 1e-4
    assert abs(stats.pearsonr(places, np.arange(5000)).statistic) < 0.06


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_share_holds_all_of_a_smaller_one(one, other):
    small, large = sorted((one, other))
    ids = [f"{i:030x}" for i in range(200)]
    drawn = {i for i in ids if audit((0.0, small)).has(i, 1.0)}
    assert drawn <= {i for i in ids if audit((0.0, large)).has(i, 1.0)}


def test_a_new_share_changes_nothing_of_what_came_before():
    before, after = audit((0.0, 0.1)), audit((0.0, 0.1), (100.0, 0.9))
    ids = [f"{i:030x}" for i in range(500)]
    assert [before.has(i, 99.0) for i in ids] == [after.has(i, 99.0) for i in ids]
    assert (after.probability(99.9), after.probability(100.0)) == (0.1, 0.9)
    assert audit((50.0, 0.1)).probability(49.0) == 0.0


@pytest.mark.parametrize("share", [0, -0.1, 1.5, None, float("nan")])
def test_a_loop_without_an_audit_is_refused(share):
    with pytest.raises(UsageError, match="audit_share"):
        check_share(share)


def test_a_thinned_audit_is_a_simple_random_sample_of_all_rows():
    ids = np.array([f"{i:030x}" for i in range(20_000)])
    easy = np.arange(20_000) < 10_000  # all easy rows came while the share was large
    probabilities = np.where(easy, 0.5, 0.1)
    drawn = np.array([place_of(i) < p for i, p in zip(ids, probabilities, strict=True)])
    kept = evenly(ids[drawn].tolist(), probabilities[drawn])
    assert easy[drawn].mean() > 0.8  # what looking at all of them would say
    assert stats.binomtest(int(easy[drawn][kept].sum()), int(kept.sum()), 0.5).pvalue > 1e-4
    assert len(evenly([], np.zeros(0))) == 0


@given(st.integers(1, 300), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_bound_is_clopper_and_pearsons(num_audited, data, confidence):
    num_right = data.draw(st.integers(0, num_audited))
    exact = stats.binomtest(num_right, num_audited, alternative="greater")
    expected = exact.proportion_ci(confidence, method="exact").low
    found = lower_bound(num_right, num_audited, confidence=confidence)
    assert found == pytest.approx(expected, abs=1e-9)


def test_nothing_audited_proves_nothing():
    assert lower_bound(0, 0, confidence=0.95) == 0.0
    proof = prove(np.zeros(0), np.zeros(0, bool), np.zeros(0, bool), target=0.9)
    assert (proof.threshold, proof.level, proof.may_teach) == (None, None, False)


def test_the_smallest_threshold_that_is_proven_is_taken():
    confidences = np.repeat([0.55, 0.99], [200, 400])
    right = np.concatenate([np.arange(200) % 2 == 0, np.ones(400, bool)])
    proof = prove(confidences, right, np.zeros(600, bool), target=0.95)
    assert proof.threshold == 0.6  # nothing lies between, so it costs nothing
    each = 1 - 0.05 / len(GRID)
    assert proof.level.lower_bound == pytest.approx(lower_bound(400, 400, confidence=each))
    assert [own.num_audited for own in proof.levels][:2] == [600, 400]


def test_it_stops_when_the_bound_falls_below_the_target():
    confidences, right, alike = np.full(300, 0.995), np.ones(300, bool), np.zeros(300, bool)
    assert prove(confidences, right, alike, target=0.97).threshold == 0.5
    right[:10] = False
    assert prove(confidences, right, alike, target=0.97).threshold is None


def test_a_teacher_that_is_right_where_all_is_easy_may_not_teach_where_it_differs():
    confidences, differs = np.full(1000, 0.995), np.arange(1000) < 20
    right = ~differs
    right[:10] = True  # a coin where they differ, and never wrong elsewhere
    proof = prove(confidences, right, differs, target=0.95)
    assert proof.threshold == 0.5
    assert (proof.level.num_differing, proof.level.num_differing_right) == (20, 10)
    assert not proof.may_teach
    right[:20] = True
    assert prove(confidences, right, differs, target=0.95).may_teach


def test_a_teacher_just_below_the_target_is_let_through_no_oftener_than_claimed(rng):
    wrongly = 0
    for _ in range(1000):
        confidences = rng.uniform(0.5, 1, 400)
        right = rng.random(400) < 0.899
        proof = prove(confidences, right, right, target=0.9, confidence=0.9)
        wrongly += proof.threshold is not None
    assert stats.binomtest(wrongly, 1000, 0.1, alternative="greater").pvalue > 1e-4


@pytest.mark.parametrize("wrong", [{"target": 1.0}, {"target": 0.9, "confidence": 0}])
def test_a_target_that_is_none_is_refused(wrong):
    with pytest.raises(UsageError, match="between 0 and 1"):
        prove(np.ones(1), np.ones(1, bool), np.ones(1, bool), **wrong)


LOGITS = np.array([[9.0, 0, 0], [0, 9.0, 0], [0.1, 0, 0], [np.nan] * 3])


def test_each_prediction_is_in_the_tier_that_its_teacher_earns():
    found = tiers(LOGITS, np.array([0, 0, 0, 0]), threshold=0.9)
    assert found == [Tier.AGREE, Tier.SOFT_LABEL, Tier.UNSURE, Tier.UNSURE]
    assert counted(found) == {"agree": 1, "soft_label": 1, "unsure": 2}


def test_where_a_teacher_may_not_teach_people_say():
    found = tiers(LOGITS, np.array([0, 0, 0, 0]), threshold=0.9, may_teach=False)
    assert found == [Tier.AGREE, Tier.UNSURE, Tier.UNSURE, Tier.UNSURE]


def test_without_proof_people_say_everything():
    assert set(tiers(LOGITS, np.zeros(4, np.int64), threshold=None)) == {Tier.UNSURE}


def test_confidence_is_the_largest_probability_or_unknown():
    expected = [np.exp(9) / (np.exp(9) + 2)] * 2 + [np.exp(0.1) / (np.exp(0.1) + 2), np.nan]
    np.testing.assert_allclose(confidences(LOGITS), expected)


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(0, 40), st.floats(0, 0.95))
def test_a_teacher_never_has_more_than_its_share_and_gives_its_surest(sure, num_others, share):
    kept = capped(np.array(sure), num_others, share)
    assert len(kept) <= share * (len(kept) + num_others) + 1e-6
    if len(kept) < len(sure):  # one more would be too many
        assert len(kept) + 1 > share * (len(kept) + 1 + num_others) - 1e-6
        left = np.delete(np.array(sure), kept)
        assert not len(kept) or np.array(sure)[kept].min() >= left.max()


def test_a_share_of_one_is_refused():
    with pytest.raises(UsageError, match="max_teacher_share"):
        capped(np.ones(1), 1, 1.0)
