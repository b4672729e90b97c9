"""Accuracy by few labels: unbiased, tighter with a teacher, and as sure as it says."""

import numpy as np
import pytest
from scipy import stats

from distill.production.monitoring.audit import MIN_LABELS, audited, labels_alone

WORLDS = {  # accuracy; the chance that the teacher says the same where the student is right, or not
    "usual": (0.9, 0.97, 0.3),
    "nearly perfect": (0.98, 0.99, 0.3),
    "useless teacher": (0.8, 0.9, 0.9),
    "both are wrong alike": (0.72, 0.95, 0.9),
    "teacher that contradicts": (0.8, 0.3, 0.9),
}


def drawn(rng, world, count):
    accuracy, where_right, where_wrong = WORLDS[world]
    right = rng.random(count) < accuracy
    agree = rng.random(count) < np.where(right, where_right, where_wrong)
    return right, agree


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("num_labels", [50, 100, 300])
def test_intervals_hold_the_truth_as_often_as_they_say(world, num_labels):
    rng, inside, estimates = np.random.default_rng(1), 0, []
    for _ in range(1000):
        right, agreed = drawn(rng, world, num_labels)
        found = audited(right, agreed, drawn(rng, world, 1000)[1])
        inside += found.interval[0] <= WORLDS[world][0] <= found.interval[1]
        estimates.append(found.estimate)
    # a nominal 95 % that were 93 % would pass this in 1 of 500 cases
    assert inside / 1000 >= 0.95 - 2.9 * np.sqrt(0.95 * 0.05 / 1000)
    error = np.mean(estimates) - WORLDS[world][0]
    assert abs(error) < 4 * np.std(estimates) / np.sqrt(1000) + 1e-3  # clipped at 1: hardly biased


def test_a_good_teacher_saves_labels_and_a_useless_one_costs_none(rng):
    good, useless = (
        audited(*drawn(rng, world, 200), drawn(rng, world, 5000)[1])
        for world in ("usual", "useless teacher")
    )
    assert good.saving > 1.5
    assert good.weight > 0.3
    assert useless.saving == pytest.approx(1, abs=0.15)
    alone = labels_alone(drawn(rng, "useless teacher", 200)[0])
    width = np.diff(useless.interval)[0] / np.diff(alone.interval)[0]
    assert width == pytest.approx(1, abs=0.1)


def test_the_estimate_is_the_papers(rng):
    right, agreed = drawn(rng, "usual", 400)
    agree = drawn(rng, "usual", 2000)[1]
    found = audited(right, agreed, agree)
    weight = np.cov(right, agreed, bias=True)[0, 1] / (agreed.var() * (1 + 400 / 2000))
    assert found.weight == pytest.approx(weight, abs=0.02)
    by_hand = found.weight * agree.mean() + right.mean() - found.weight * agreed.mean()
    assert found.estimate == pytest.approx(by_hand)


@pytest.mark.parametrize("num_labels", [1, MIN_LABELS - 1])
def test_of_few_labels_or_no_teacher_labels_stand_alone(rng, num_labels):
    right, agreed = drawn(rng, "usual", num_labels)
    few = audited(right, agreed, drawn(rng, "usual", 100)[1])
    assert few == labels_alone(right)
    none = audited(*drawn(rng, "usual", 100), np.zeros(0, bool))
    assert (none.num_answers, none.saving) == (0, 1)


def test_labels_alone_have_wilsons_interval():
    right = np.arange(50) < 45
    expected = stats.binomtest(45, 50).proportion_ci(0.9, method="wilson")
    assert labels_alone(right, confidence=0.9).interval == pytest.approx(tuple(expected))
