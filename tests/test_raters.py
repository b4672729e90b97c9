"""Claims about people's agreement, against scikit-learn and Fleiss' own table worked by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from distill.people.agreement import cohen_kappa, fleiss_kappa, majority_vote
from distill.people.annotations import Annotations
from distill.people.raters import gain_of_single, score_humans
from distill.statistics.metrics import compare_paired

# Fleiss, 1971, table 1: 30 patients, six raters each, five diagnoses.
FLEISS_1971 = np.array(
    [
        [0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0],
        [2, 0, 4, 0, 0], [0, 0, 4, 0, 2], [2, 0, 3, 1, 0], [2, 0, 0, 4, 0], [0, 0, 0, 0, 6],
        [1, 0, 0, 5, 0], [1, 1, 0, 4, 0], [0, 3, 3, 0, 0], [1, 0, 0, 5, 0], [0, 2, 0, 3, 1],
        [0, 0, 5, 0, 1], [3, 0, 0, 1, 2], [5, 1, 0, 0, 0], [0, 2, 0, 4, 0], [1, 0, 2, 0, 3],
        [0, 0, 0, 0, 6], [0, 1, 0, 5, 0], [0, 2, 0, 1, 3], [2, 0, 0, 4, 0], [1, 0, 0, 4, 1],
        [0, 5, 0, 1, 0], [4, 0, 0, 0, 2], [0, 2, 0, 4, 0], [1, 0, 5, 0, 0], [0, 0, 0, 0, 6],
    ]
)  # fmt: skip


def long_form(counts):
    sample, label = np.nonzero(counts)
    return Annotations(samples=sample, labels=label, counts=counts[sample, label])


def by_people(answers):
    """Answers [people, N] as annotations; -1 is none."""
    who, sample = np.nonzero(answers >= 0)
    return Annotations(
        samples=sample, labels=answers[who, sample], counts=np.ones(len(who), np.int64),
        annotators=np.array([f"p{i}" for i in who]),
    )  # fmt: skip


def test_fleiss_kappa_of_fleiss_table_is_what_his_formulas_give_by_hand():
    shares = FLEISS_1971.sum(axis=0) / 180
    by_chance = sum(share * share for share in shares)
    pairs = [sum(n * (n - 1) for n in row) / (6 * 5) for row in FLEISS_1971.tolist()]
    observed = sum(pairs) / 30
    assert fleiss_kappa(FLEISS_1971) == pytest.approx((observed - by_chance) / (1 - by_chance))
    assert observed == pytest.approx(0.5556, abs=1e-4)  # the paper: 0.555, 0.220 and 0.430
    assert by_chance == pytest.approx(0.220, abs=1e-3)
    assert fleiss_kappa(FLEISS_1971) == pytest.approx(0.430, abs=1e-3)


def test_unequal_numbers_of_raters_weigh_samples_alike():
    # Shares [2/3, 1/3], [1, 0], [1/2, 1/2]: classes 13/18 and 5/18. Agreement 1/3, 1 and 0.
    counts = np.array([[2, 1], [4, 0], [1, 1]])
    by_chance = (13 / 18) ** 2 + (5 / 18) ** 2
    expected = ((1 / 3 + 1 + 0) / 3 - by_chance) / (1 - by_chance)
    assert fleiss_kappa(counts) == pytest.approx(expected)


def test_a_sample_with_one_answer_tells_of_classes_alone():
    counts = np.array([[2, 0], [0, 2], [0, 1]])
    by_chance = (1 / 3) ** 2 + (2 / 3) ** 2
    assert fleiss_kappa(counts) == pytest.approx((1 - by_chance) / (1 - by_chance))
    single = np.array([[2, 0], [1, 1], [0, 1]])
    by_chance = 2 * 0.5**2
    assert fleiss_kappa(single) == pytest.approx((0.5 - by_chance) / (1 - by_chance))


def test_cohen_kappa_is_scikit_learns(rng):
    first = rng.integers(0, 4, 200)
    second = np.where(rng.random(200) < 0.6, first, rng.integers(0, 4, 200))
    assert cohen_kappa(first, second, 4) == pytest.approx(cohen_kappa_score(first, second))


def test_one_class_alone_says_nothing_of_agreement():
    assert np.isnan(cohen_kappa(np.zeros(5, int), np.zeros(5, int), 3))
    assert np.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]])))
    score, _ = score_humans(long_form(np.array([[3, 0], [3, 0]])), np.zeros(2, int), 2,
                            confidence=0.95)  # fmt: skip
    assert score.fleiss_kappa is None


def test_a_vote_takes_the_most_and_breaks_ties_among_those_that_tie():
    votes, ties = majority_vote(np.array([[1, 3, 0]] * 500 + [[2, 0, 2]] * 500))
    assert (votes[:500] == 1).all()
    assert set(votes[500:]) == {0, 2}
    assert 200 < (votes[500:] == 0).sum() < 300
    assert ties.tolist() == [False] * 500 + [True] * 500


def test_figures_of_people_are_those_counted_by_hand():
    labels = np.array([0, 1, 2, 0, 1])
    answers = np.array([[0, 1, 2, 1, -1], [0, 1, 1, 1, -1], [0, 0, 2, 0, -1]])
    score, vote = score_humans(by_people(answers), labels, 3, confidence=0.95)
    assert vote.tolist() == [0, 1, 2, 1, -1]
    assert (score.num_samples, score.num_annotations, score.num_ties) == (4, 12, 0)
    assert score.majority.estimate == 3 / 4
    assert score.single.estimate == 8 / 12
    assert [who.accuracy.estimate for who in score.per_annotator] == [3 / 4, 2 / 4, 3 / 4]
    assert score.cohen_kappa is None  # of three
    low, high = score.single.interval
    assert 0 <= low < 8 / 12 < high <= 1


def test_two_people_have_cohens_kappa_on_what_both_answered(rng):
    answers = rng.integers(0, 3, (2, 60))
    answers[1, :30] = answers[0, :30]
    answers[0, 50:] = -1
    score, _ = score_humans(by_people(answers), answers[1], 3, confidence=0.95)
    expected = cohen_kappa_score(answers[0, :50], answers[1, :50])
    assert score.cohen_kappa.estimate == pytest.approx(expected)
    assert score.cohen_kappa.interval[0] < expected < score.cohen_kappa.interval[1]


def test_people_who_are_always_right_are_not_certain():
    score, _ = score_humans(long_form(np.array([[5, 0]] * 20)), np.zeros(20, int), 2,
                            confidence=0.95)  # fmt: skip
    assert score.single.estimate == score.majority.estimate == 1
    assert score.single.interval[0] < 0.9  # twenty samples, not a hundred answers


def test_the_gain_of_single_people_with_one_answer_each_is_that_of_pairs(rng):
    labels = rng.integers(0, 2, 400)
    person = np.where(rng.random(400) < 0.9, labels, 1 - labels)
    model = np.where(rng.random(400) < 0.8, labels, 1 - labels)
    gain = gain_of_single(by_people(person[None]), labels, model, 2, confidence=0.95)
    paired = compare_paired(person == labels, model == labels)
    assert gain.estimate == pytest.approx(paired.estimate)
    assert gain.interval == pytest.approx(paired.interval, abs=0.01)


@pytest.mark.parametrize("num_people", [2, 3])
def test_samples_that_repeat_each_other_tell_no_more_than_one_of_them(num_people, rng):
    labels = rng.integers(0, 3, 60)
    right = rng.random((num_people, 60)) < 0.8
    answers = np.where(right, labels, (labels + 1) % 3)
    model = np.where(rng.random(60) < 0.7, labels, 0)
    once, rows = np.arange(60), np.repeat(np.arange(60), 5)

    def intervals(picked, blocks):
        said = by_people(answers[:, picked])
        given = {"blocks": blocks, "confidence": 0.95}
        score, _ = score_humans(said, labels[picked], 3, **given)
        gain = gain_of_single(said, labels[picked], model[picked], 3, **given)
        # Two people tie, which luck decides; more than two have no kappa of Cohen.
        own = score.cohen_kappa if num_people == 2 else score.majority
        people = [who.accuracy for who in score.per_annotator]
        found = [score.single, own, *people, score.fleiss_kappa, gain]
        return np.array([estimate.interval for estimate in found])

    alone, together = intervals(once, once), intervals(rows, once[rows])
    np.testing.assert_allclose(together, alone, atol=1e-3)
    careless = intervals(rows, None)
    assert (np.ptp(careless, axis=1) < 0.6 * np.ptp(together, axis=1)).all()  # about 1 / sqrt(5)


def test_people_who_are_always_right_are_as_sure_as_the_number_of_groups_allows():
    counts, groups = np.array([[5, 0]] * 20), np.repeat(np.arange(4), 5)
    score, _ = score_humans(long_form(counts), np.zeros(20, int), 2, blocks=groups, confidence=0.95)
    # Wilson's end for n of n right is n / (n + z^2); four groups are fewer by Student's t.
    z, t = stats.norm.ppf(0.975), stats.t.ppf(0.975, df=3)
    n = 4 * (z / t) ** 2
    assert score.single.interval == pytest.approx((n / (n + z**2), 1))
    assert score.majority.interval == pytest.approx((n / (n + z**2), 1))


def test_a_kappa_that_some_draws_of_groups_leave_undefined_has_every_value_it_may_have():
    counts, groups = np.array([[2, 0], [2, 0], [0, 2], [1, 1]]), np.array([0, 0, 1, 1])
    score, _ = score_humans(long_form(counts), np.zeros(4, int), 2, blocks=groups, confidence=0.95)
    assert score.fleiss_kappa.interval == (-1, 1)


def test_of_a_single_group_nothing_is_known_of_others():
    answers, labels = np.array([[0, 1, 1, 0], [0, 1, 0, 0]]), np.array([0, 1, 1, 1])
    given = {"blocks": np.zeros(4), "confidence": 0.95}
    score, _ = score_humans(by_people(answers), labels, 2, **given)
    gain = gain_of_single(by_people(answers), labels, np.zeros(4, int), 2, **given)
    assert score.single.interval == score.majority.interval == (-np.inf, np.inf)
    assert {score.cohen_kappa.interval, score.fleiss_kappa.interval, gain.interval} == {(-1, 1)}
