import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, log_loss

from distill.statistics.class_metrics import macro_f1, per_class_regressions, score
from distill.statistics.metrics import compare_paired, nll


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(5, 200), st.integers(0, 2**32 - 1))
def test_macro_f1_and_nll_agree_with_scikit_learn(num_classes, n, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, num_classes)) * 5
    labels = rng.integers(0, num_classes, n)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    everything = np.arange(num_classes)
    expected = f1_score(
        labels, logits.argmax(1), average="macro", labels=everything, zero_division=0
    )
    assert macro_f1(logits.argmax(1), labels, num_classes) == pytest.approx(expected)
    expected = log_loss(labels, probabilities, labels=everything)
    assert nll(logits, labels).mean() == pytest.approx(expected)


def test_nll_is_finite_at_huge_logits():
    assert nll(np.array([[1e4, -1e4]]), np.array([1]))[0] == pytest.approx(2e4)


def test_ece_by_hand():
    # Two samples at confidence 0.9, one of them right: |0.5 - 0.9|.
    logits = np.log(np.array([[0.9, 0.1], [0.9, 0.1]]))
    assert score(logits, np.array([0, 1]))["ece"].estimate == pytest.approx(0.4)


@pytest.mark.slow
def test_ece_of_a_calibrated_model_is_small(rng):
    confidence = rng.uniform(0.5, 1, 20_000)
    labels = (rng.uniform(size=20_000) > confidence).astype(int)
    logits = np.log(np.stack([confidence, 1 - confidence], axis=1))
    assert score(logits, labels)["ece"].estimate < 0.01


def test_bootstrap_interval_of_accuracy_is_near_the_normal_one(rng):
    n, p = 2000, 0.8
    labels = np.zeros(n, int)
    logits = np.where((rng.uniform(size=n) < p)[:, None], [[1.0, 0.0]], [[0.0, 1.0]])
    found = score(logits, labels)["accuracy"]
    half = 1.96 * np.sqrt(found.estimate * (1 - found.estimate) / n)
    assert found.interval == pytest.approx(
        (found.estimate - half, found.estimate + half), abs=half * 0.1
    )


def test_interval_without_errors_is_not_a_point():
    logits = np.tile([1.0, 0.0], (100, 1))
    low, high = score(logits, np.zeros(100, int))["accuracy"].interval
    expected = stats.binomtest(100, 100).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_every_interval_contains_its_estimate(rng):
    logits, labels = rng.normal(size=(60, 4)), rng.integers(0, 4, 60)
    for estimate in score(logits, labels).values():
        assert estimate.interval[0] <= estimate.estimate <= estimate.interval[1]


def test_mcnemar_agrees_with_the_binomial_tail():
    first = np.array([True] * 9 + [False] * 3 + [True] * 50)
    second = np.array([False] * 9 + [True] * 3 + [True] * 50)
    tail = sum(stats.binom.pmf(k, 12, 0.5) for k in (0, 1, 2, 3, 9, 10, 11, 12))
    assert compare_paired(first, second).p_value == pytest.approx(tail)


@pytest.mark.slow
def test_paired_interval_covers_the_truth_at_its_level():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        draws = rng.choice(4, p=[0.9, 0.04, 0.02, 0.04], size=300)
        first, second = np.isin(draws, (0, 1)), np.isin(draws, (0, 2))
        low, high = compare_paired(first, second).interval
        covered += low <= 0.02 <= high
    # 0.95 with three standard errors of 2,000 trials, and room for the interval being conservative
    assert 0.935 <= covered / 2000 <= 0.985


def test_models_that_never_disagree_still_have_an_interval():
    right = np.ones(100, bool)
    low, high = compare_paired(right, right).interval
    assert low < 0 < high


def test_paired_refuses_other_lengths():
    with pytest.raises(ValueError, match="paired"):
        compare_paired(np.ones(3, bool), np.ones(4, bool))


def test_a_class_that_collapses_is_a_regression_and_the_others_are_not(rng):
    labels = np.repeat([0, 1, 2], 100)
    control = rng.uniform(size=300) < 0.9
    student = np.where(labels == 1, rng.uniform(size=300) < 0.3, control)
    rows = per_class_regressions(student, control, labels, ("a", "b", "c"))
    assert [row.regressed for row in rows] == [False, True, False]


def test_a_class_whose_rows_are_of_few_groups_is_no_regression_by_their_number(rng):
    groups = np.repeat(np.arange(6), 50)  # three of each class, all of whose rows fare alike
    labels = np.repeat([0, 1], 150)
    control = np.ones(300, bool)
    student = ~np.isin(groups, [3, 4])
    alone, grouped = (
        per_class_regressions(student, control, labels, ("a", "b"), blocks=blocks, confidence=0.9)
        for blocks in (None, groups)
    )
    assert [row.regressed for row in alone] == [False, True]
    assert [row.regressed for row in grouped] == [False, False]
    assert grouped[1].difference.estimate == alone[1].difference.estimate == -100 / 150
    low, high = grouped[1].difference.interval
    assert high - low > 3 * (alone[1].difference.interval[1] - alone[1].difference.interval[0])
    wide = per_class_regressions(student, control, labels, ("a", "b"))[1].difference.interval
    assert wide[0] < alone[1].difference.interval[0]  # 95 %, where 90 % was asked above
