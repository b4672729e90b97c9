"""Claims about rows that depend on each other: together they tell as much as one of them does."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from scored import EVERY

from distill.statistics.class_metrics import per_class_regressions
from distill.statistics.comparison import compare_right_labels
from distill.statistics.resampling import share
from distill.statistics.scoring import Truth


@pytest.mark.parametrize("name", EVERY)
def test_rows_that_are_there_three_times_over_tell_no_more_than_once(name, rng):
    scoring, make = EVERY[name]
    first, second, truth = make(rng)
    once = dataclasses.replace(truth, blocks=np.arange(len(first)))
    rows = np.repeat(np.arange(len(first)), 3)
    thrice = once.take(rows)
    expected = scoring.score(first, once, confidence=0.95)
    found = scoring.score(first[rows], thrice, confidence=0.95)
    for figure in expected:
        assert_no_narrower(found[figure].interval, expected[figure].interval)
    agreements = [
        scoring.agreement(*pair, blocks=own.blocks, confidence=0.95).interval
        for pair, own in (((first, second), once), ((first[rows], second[rows]), thrice))
    ]
    assert_no_narrower(agreements[1], agreements[0])


def assert_no_narrower(found, expected):
    """Hold an interval of rows three times over against that of each once."""
    assert found == pytest.approx(expected, rel=1e-3)
    slack = 1e-12
    assert found[0] <= expected[0] + slack
    assert found[1] >= expected[1] - slack


@pytest.mark.parametrize("name", EVERY)
def test_rows_that_repeat_each_other_tell_no_more_than_one_of_them(name, rng):
    scoring, make = EVERY[name]
    first, second, truth = make(rng)
    marks = [scoring.marks(answers, truth) for answers in (first, second)]
    once = np.arange(len(truth.labels))
    alone = scoring.compare(*marks, blocks=once, confidence=0.95)
    five = [np.repeat(own, 5, axis=0) for own in marks]
    together = scoring.compare(*five, blocks=np.repeat(once, 5), confidence=0.95)
    careless = scoring.compare(*five, blocks=None, confidence=0.95)
    width, wide, narrow = (np.ptp(c.interval) for c in (alone, together, careless))
    assert together.estimate == pytest.approx(alone.estimate)
    assert wide == pytest.approx(width, rel=0.1)
    assert narrow < 0.6 * width


@pytest.mark.parametrize("name", EVERY)
def test_a_single_stretch_of_rows_tells_nothing_of_others(name, rng):
    scoring, make = EVERY[name]
    first, second, truth = make(rng)
    alone = Truth(labels=truth.labels, blocks=np.zeros(len(first)), naive_error=truth.naive_error)
    for figure in scoring.score(first, alone, confidence=0.95).values():
        assert np.isfinite(figure.estimate)
        assert figure.interval == (-np.inf, np.inf)
    marks = (scoring.marks(answers, alone) for answers in (first, second))
    low, high = scoring.compare(*marks, blocks=alone.blocks, confidence=0.95).interval
    assert (low, high) == ((-np.inf, 1) if scoring.is_error else (-1, 1))


@pytest.mark.parametrize("num_groups", [5, 10, 40])
@pytest.mark.parametrize("mean", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("alike", [0, 0.05, 0.3])
def test_a_share_in_few_groups_is_covered_as_often_as_it_says(num_groups, mean, alike):
    """The share of groups yet to come, which differ by a beta distribution."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        sizes = rng.integers(20, 60, num_groups)
        rest = 1 / alike - 1 if alike else 0
        means = rng.beta(mean * rest, (1 - mean) * rest, num_groups) if alike else mean
        hits = rng.uniform(size=sizes.sum()) < np.repeat(np.broadcast_to(means, num_groups), sizes)
        low, high = share(hits, blocks=np.repeat(np.arange(num_groups), sizes)).interval
        covered += low <= mean <= high
    assert covered >= stats.binom.ppf(0.01, 200, 0.95)


@pytest.mark.parametrize("num_groups", [5, 50])
def test_one_error_more_never_makes_a_share_or_a_difference_much_surer(num_groups):
    groups = np.repeat(np.arange(num_groups), 200)
    right = np.ones(len(groups), bool)
    wrong = right.copy()
    wrong[0] = False
    sure, less = (share(hits, blocks=groups).interval for hits in (right, wrong))
    assert less[0] < sure[0] + 0.5 * (1 - sure[0])
    alone = share(right[:num_groups]).interval
    assert sure[0] <= alone[0]  # 200 rows that are alike may be one row
    same, other = (
        compare_right_labels(right[:, None], hits[:, None], blocks=groups)
        for hits in (right, wrong)
    )
    assert np.ptp(other.interval) > 0.5 * np.ptp(same.interval)
    one_each = compare_right_labels(right[:num_groups, None], right[:num_groups, None])
    assert np.ptp(same.interval) >= np.ptp(one_each.interval)


def test_groups_whose_rows_do_not_depend_cost_little(rng):
    hits, groups = rng.uniform(size=20_000) < 0.9, np.repeat(np.arange(1000), 20)
    free, held = (np.ptp(share(hits, blocks=own).interval) for own in (None, groups))
    assert held == pytest.approx(free, rel=0.1)


def test_each_of_a_thousand_classes_can_be_found_to_have_lost(rng):
    labels, groups = np.repeat(np.arange(1000), 20), np.arange(20_000)
    control, student = np.ones(20_000, bool), np.ones(20_000, bool)
    student[:20] = False
    names = tuple(map(str, range(1000)))
    found = per_class_regressions(student, control, labels, names, blocks=groups)
    assert [own.label for own in found if own.regressed] == ["0"]
