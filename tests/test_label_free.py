"""Accuracy without labels: right where it can be, and how wrong where it cannot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from distill.production.monitoring.label_free import (
    agreement_bounds,
    chance_of,
    confidence_based,
    disagreement_based,
    threshold_based,
)


def answers(rng, count, *, sharpness=1.0, sureness=1.0):
    """Draw logits, and whether they are right with the chance that they would state untempered."""
    logits = rng.normal(size=(count, 5)) * 3 * sharpness
    chances = special.softmax(logits, axis=1)
    labels = (rng.random((count, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    return logits * sureness, logits.argmax(axis=1) == labels


@pytest.mark.parametrize("estimate", [confidence_based, threshold_based])
@pytest.mark.parametrize("sureness", [1.0, 3.0])
def test_in_the_reference_world_both_are_right(rng, estimate, sureness):
    reference, right = answers(rng, 4000, sureness=sureness)
    now, truth = answers(rng, 4000, sureness=sureness)
    found = estimate(reference, right, now)
    assert found.estimate == pytest.approx(truth.mean(), abs=0.025)
    assert found.interval[0] < truth.mean() < found.interval[1]
    assert found.count == 4000


def test_where_answers_are_less_clear_the_first_follows_and_the_second_overdoes_it(rng):
    reference, right = answers(rng, 4000)
    now, truth = answers(rng, 4000, sharpness=0.4)
    assert right.mean() - truth.mean() > 0.2
    found = confidence_based(reference, right, now).estimate
    assert found == pytest.approx(truth.mean(), abs=0.05)
    assert threshold_based(reference, right, now).estimate < found


def test_a_model_that_is_too_sure_is_calibrated_first(rng):
    reference, right = answers(rng, 4000, sureness=4.0)
    now, truth = answers(rng, 4000, sureness=4.0)
    stated = special.softmax(now, axis=1).max(axis=1).mean()
    assert stated - truth.mean() > 0.1
    found = confidence_based(reference, right, now).estimate
    assert found == pytest.approx(truth.mean(), abs=0.025)


def test_the_disagreement_estimate_is_exact_where_errors_in_common_stay_as_they_were(rng):
    right, agreed = np.ones(1000, bool), np.ones(1000, bool)
    right[:100], agreed[50:120] = False, False
    agree = np.arange(1000) >= 270  # 200 more on which the two differ
    found = disagreement_based(right, agreed, agree)
    assert found.estimate == pytest.approx(0.9 - 0.2)


def test_its_interval_holds_what_chance_does(rng):
    inside = 0
    for _ in range(400):
        student = rng.random(300) < 0.9
        agreed = np.where(rng.random(300) < 0.95, student, ~student)
        now = rng.random(300) < 0.9
        agree = np.where(rng.random(300) < 0.95, now, ~now)
        low, high = disagreement_based(student, agreed, agree).interval
        inside += low <= 0.9 <= high
    assert 0.92 <= inside / 400 <= 0.99


def test_a_teacher_that_knows_that_it_is_lost_is_taken_at_its_word(rng):
    """Labels follow the teacher's probabilities; the student mostly says its likeliest class."""

    def world(sharpness):
        logits = rng.normal(size=(20_000, 5)) * sharpness
        chances = special.softmax(logits, axis=1)
        labels = (rng.random((len(logits), 1)) > chances.cumsum(axis=1)).sum(axis=1)
        said = np.where(rng.random(len(logits)) < 0.9, logits.argmax(axis=1), 0)
        return logits, said, said == labels

    (before, known, right), (now, said, truth) = world(4.0), world(1.0)
    assert right.mean() - truth.mean() > 0.2
    expected = special.softmax(now, axis=1)[np.arange(len(said)), said]
    np.testing.assert_allclose(chance_of(now, said), expected)
    found = disagreement_based(right, chance_of(before, known), chance_of(now, said))
    assert found.interval[0] < truth.mean() < found.interval[1]
    counted = disagreement_based(right, before.argmax(1) == known, now.argmax(1) == said)
    assert counted.estimate - truth.mean() > 0.2


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1))
def test_the_bounds_hold_whatever_the_three_say(rows):
    student, teacher, label = np.array(rows).T
    low, high = agreement_bounds(student == teacher, float((teacher != label).mean()))
    assert low - 1e-12 <= (student == label).mean() <= high + 1e-12
