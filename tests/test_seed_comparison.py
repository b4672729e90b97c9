"""Claims about two ways of training over several seeds: over the seeds, and over the samples."""

import numpy as np
import pytest
from scipy import stats

from distill.statistics.scoring import Classes, Labels, Numbers, Truth
from distill.statistics.seed_comparison import compare_over_seeds
from distill.tasks import Task, TaskKind

PRICE = Task(kind=TaskKind.REGRESSION, outputs=("price",), mean=(0.0,), scale=(1.0,))


def right(rng, shares, n=400):
    """Which samples each seed's model has right, at these shares of all."""
    return [rng.random(n) < share for share in shares]


def errors(rng, sizes, n=400):
    """Errors of each seed's model, of these sizes; some samples are hard for all."""
    hard = rng.uniform(0.5, 1.5, n)
    return [(size * hard * rng.normal(size=n))[:, None] for size in sizes]


def cases(rng):
    """Of each scoring, two ways of training with three seeds and each seed's gain by hand."""
    first, second = right(rng, (0.9, 0.92, 0.88)), right(rng, (0.85, 0.86, 0.87))
    shares = [a.mean() - b.mean() for a, b in zip(first, second, strict=True)]
    yield Classes(10), first, second, shares
    wide = [[own.reshape(100, 4) for own in way] for way in (first, second)]
    yield Labels(), *wide, shares
    ours, theirs = errors(rng, (1.0, 1.1, 0.9)), errors(rng, (1.3, 1.2, 1.4))
    pairs = list(zip(ours, theirs, strict=True))
    roots = [1 - np.sqrt((a**2).mean() / (b**2).mean()) for a, b in pairs]
    yield Numbers(PRICE, "rmse"), ours, theirs, roots
    sizes = [1 - np.abs(a).mean() / np.abs(b).mean() for a, b in pairs]
    yield Numbers(PRICE, "mae"), ours, theirs, sizes


@pytest.fixture(params=range(4), ids=["accuracy", "label_accuracy", "rmse", "mae"])
def case(request, rng):
    return list(cases(rng))[request.param]


def test_the_gain_over_seeds_is_the_mean_of_each_seeds_with_students_interval(case):
    scoring, first, second, gains = case
    found = compare_over_seeds(scoring, first, second, confidence=0.9)
    assert found.estimate == pytest.approx(np.mean(gains))
    expected = stats.ttest_1samp(gains, 0.0)
    low, high = expected.confidence_interval(0.9)
    assert found.seed_interval == pytest.approx((low, high))
    assert found.seed_p_value == pytest.approx(expected.pvalue)
    assert (found.num_seeds, found.num_samples) == (3, len(first[0]))


def test_the_interval_over_samples_is_of_each_samples_marks_of_all_seeds(case):
    scoring, first, second, _ = case
    pooled = [scoring.pooled(np.stack(way)) for way in (first, second)]
    expected = scoring.compare(*pooled, blocks=None, confidence=0.95)
    found = compare_over_seeds(scoring, first, second)
    assert found.sample_interval == expected.interval
    assert found.sample_interval[0] < found.estimate < found.sample_interval[1]


def test_more_seeds_leave_the_samples_interval_and_narrow_that_of_the_seeds(case):
    scoring, first, second, gains = case
    few = compare_over_seeds(scoring, first, second)
    many = compare_over_seeds(scoring, first * 4, second * 4)  # other seeds that say the same
    assert many.estimate == pytest.approx(np.mean(gains))
    assert many.sample_interval == pytest.approx(few.sample_interval)
    assert np.ptp(many.seed_interval) < 0.5 * np.ptp(few.seed_interval)


def test_one_seed_says_nothing_of_others_but_all_of_its_samples(case):
    scoring, (first, *_), (second, *_), gains = case
    found = compare_over_seeds(scoring, [first], [second])
    alone = scoring.compare(first, second, blocks=None, confidence=0.95)
    assert found.estimate == pytest.approx(gains[0])
    assert found.sample_interval == alone.interval
    assert (found.seed_interval, found.seed_p_value, found.num_seeds) == (None, None, 1)


def test_samples_that_depend_on_each_other_widen_their_interval_alone(case):
    scoring, first, second, _ = case
    five = [[np.repeat(own, 5, axis=0) for own in way] for way in (first, second)]
    blocks = np.repeat(np.arange(len(first[0])), 5)
    careless, careful = (compare_over_seeds(scoring, *five, blocks=b) for b in (None, blocks))
    assert careful.seed_interval == careless.seed_interval
    assert np.ptp(careful.sample_interval) > 1.8 * np.ptp(careless.sample_interval)


def test_two_ways_that_never_differ_are_not_told_apart(case):
    scoring, first, _, _ = case
    found = compare_over_seeds(scoring, first, first)
    assert found.estimate == 0
    assert found.seed_interval == (0, 0)
    assert found.seed_p_value == 1
    assert found.sample_interval[0] <= 0 <= found.sample_interval[1]


def test_seeds_that_all_gain_alike_leave_no_doubt():
    worse = np.arange(100) >= 10
    found = compare_over_seeds(Classes(2), [np.ones(100, bool)] * 3, [worse] * 3)
    assert found.estimate == pytest.approx(0.1)
    assert found.seed_interval == pytest.approx((0.1, 0.1))
    assert found.seed_p_value == pytest.approx(0, abs=1e-12)
    assert found.sample_interval[0] > 0


def test_nothing_is_gained_over_a_model_without_any_error_by_another():
    exact, wrong = np.zeros((40, 1)), np.ones((40, 1))
    scoring = Numbers(PRICE, "rmse")
    assert compare_over_seeds(scoring, [exact] * 2, [exact] * 2).estimate == 0
    found = compare_over_seeds(scoring, [wrong] * 2, [exact] * 2)
    assert found.estimate == -np.inf
    assert found.seed_interval is None
    assert compare_over_seeds(scoring, [exact] * 2, [wrong] * 2).estimate == 1


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        truth = 0.02
        gains = truth + 0.05 * rng.normal(size=3)
        pairs = [(rng.random(60) < 0.7 + gain, rng.random(60) < 0.7) for gain in gains]
        found = compare_over_seeds(Classes(2), *zip(*pairs, strict=True))
        held += found.seed_interval[0] <= truth <= found.seed_interval[1]
    assert stats.binomtest(held, 400, 0.95).pvalue > 0.001


def test_errors_are_compared_in_units_of_their_own_over_seeds_too(rng):
    units = np.array([1.0, 1000.0])
    kind, truth = TaskKind.REGRESSION, Truth(labels=np.zeros((300, 2)))
    task = Task(kind=kind, outputs=("a", "b"), mean=(0.0, 0.0), scale=tuple(units))
    scoring = Numbers(task, "rmse")
    noise = rng.normal(size=(2, 3, 300, 2)) * np.array([1.0, 1.5])[:, None, None, None]
    first, second = ([scoring.marks(own * units, truth) for own in way] for way in noise)
    gains = [1 - np.sqrt((a**2).mean() / (b**2).mean()) for a, b in zip(*noise, strict=True)]
    assert compare_over_seeds(scoring, first, second).estimate == pytest.approx(np.mean(gains))
