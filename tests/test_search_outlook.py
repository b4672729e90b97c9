"""Claims about what short trainings promise."""

import numpy as np
import pytest
from scipy.stats import norm

from distill.budget import AccuracyBudget
from distill.deployment.search.outlook import (
    POWER,
    Floor,
    Trained,
    floors,
    in_full,
    outlooks,
    power,
)
from distill.deployment.search.selection import next_attempt
from distill.files import write_json
from distill.verbs.searching.rungs import full_training

MANY = 1_000_000


def curve(error, exponent, *epochs, num_samples=MANY):
    """Trainings whose error falls as a power of the epochs, from `error` at one epoch."""
    return [
        Trained(epochs=e, num_wrong=error * e**-exponent * num_samples, num_samples=num_samples)
        for e in epochs
    ]


def test_the_power_moves_from_its_prior_to_that_of_the_curves():
    assert power([curve(0.5, 1.2, 4)])[0] == POWER
    few, many = power([curve(0.5, 1.2, 4, 16)])[0], power([curve(0.5, 1.2, 4, 16)] * 50)[0]
    assert POWER < few < many == pytest.approx(1.2, abs=0.05)


def test_two_trainings_of_one_length_say_nothing_of_the_power_and_their_order_does_not_count():
    again = curve(0.5, 1.2, 4) + curve(0.4, 1.2, 4)
    assert power([again]) == power([])
    assert power([curve(0.5, 1.2, 16, 4)]) == power([curve(0.5, 1.2, 4, 16)])
    found = outlooks({"a": again}, [], epochs=40, num_test=100, confidence=0.95)["a"]
    assert np.isfinite([found.accuracy, *found.interval, found.chance]).all()


@pytest.mark.parametrize("num_epochs", [2, 4, 10])
def test_a_full_training_that_stopped_early_is_no_shorter_one(tmp_path, num_epochs):
    """A short one of four epochs has promised less than the full one of ten came to."""
    write_json(tmp_path / "train/student.json", {"best_epoch": 1})
    history = [{"val/accuracy": 0.8}, {"val/accuracy": 0.9}, *[{"val/accuracy": 0.85}] * 8]
    write_json(tmp_path / "train/student/history.json", history[:num_epochs])
    done = full_training(tmp_path, 1000, 10)
    assert done == Trained(epochs=10, num_wrong=pytest.approx(100), num_samples=1000)
    short = Trained(epochs=4, num_wrong=200, num_samples=1000)
    assert power([[short, done]])[0] > power([])[0]  # of 0.6: ln 2 over ln 2.5 is 0.76


def test_a_curve_that_was_measured_twice_is_followed():
    mean, variance = power([])
    once, spread_once = in_full(curve(0.5, 1.0, 10), 40, mean, variance)
    twice, spread_twice = in_full(curve(0.5, 1.0, 10, 20), 40, mean, variance)
    truth = np.log(0.5 / 40)
    assert abs(twice - truth) < abs(once - truth) < 0.6
    assert spread_twice < spread_once


def test_a_full_training_is_believed_up_to_its_own_doubt():
    done = Trained(epochs=40, num_wrong=20, num_samples=1000)
    log_error, variance = in_full([done], 40, POWER, 1.0)
    assert log_error == pytest.approx(done.log_error, abs=1e-6)
    assert variance == pytest.approx(done.variance, rel=1e-6)


def test_the_budget_is_translated_to_validation_with_what_is_known():
    budget = AccuracyBudget(min=0.9, max_drop_vs_teacher=0.03, min_gain_vs_baseline=0.01)
    found = {
        f.name: f.accuracy for f in floors(budget, teacher=0.98, baseline=0.7, num_samples=100)
    }
    assert found == pytest.approx(
        {"accuracy": 0.9, "drop_vs_teacher": 0.95, "gain_vs_baseline": 0.71}
    )
    assert [f.name for f in floors(budget, teacher=None, baseline=None, num_samples=100)] == [
        "accuracy"
    ]


def test_the_chance_is_that_of_a_normal_and_of_nothing_cheaper():
    limit = Floor(name="accuracy", accuracy=0.9, reference_error=None)
    trainings = {name: [Trained(epochs=40, num_wrong=9, num_samples=100)] for name in "ab"}
    found = outlooks(trainings, [limit], epochs=40, num_test=10_000, confidence=0.95)
    first, second = found["a"], found["b"]
    spread = trainings["a"][0].variance ** 0.5
    expected = norm.cdf((np.log(1 - first.needed) - np.log(9.5 / 101)) / spread)
    assert first.chance == pytest.approx(expected, rel=1e-6)
    assert 0.9 < first.needed < 0.91
    assert second.chance_cheapest == pytest.approx(second.chance * (1 - first.chance))


def test_a_reference_seen_on_few_samples_leaves_more_doubt():
    budget = AccuracyBudget(max_drop_vs_teacher=0.01)
    trainings = {"a": curve(0.04, 0.0, 40)}
    chances = []
    for num_samples in (100, 100_000):
        limits = floors(budget, teacher=0.98, baseline=None, num_samples=num_samples)
        found = outlooks(trainings, limits, epochs=40, num_test=100_000, confidence=0.95)
        chances.append(found["a"].chance)
    assert 0.5 > chances[0] > chances[1]


def test_a_limit_near_all_right_leaves_no_chance_to_what_is_mostly_wrong():
    budget = AccuracyBudget(max_drop_vs_teacher=0.01)
    limits = floors(budget, teacher=0.994, baseline=None, num_samples=160)
    trainings = {"a": [Trained(epochs=20, num_wrong=95, num_samples=160)]}
    found = outlooks(trainings, limits, epochs=40, num_test=700, confidence=0.95)
    assert found["a"].chance < 1e-3


def test_the_chance_is_what_drawing_both_sides_at_random_says(rng):
    budget = AccuracyBudget(max_drop_vs_teacher=0.02)
    limits = floors(budget, teacher=0.96, baseline=None, num_samples=400)
    done = Trained(epochs=40, num_wrong=20, num_samples=400)
    found = outlooks({"a": [done]}, limits, epochs=40, num_test=5_000, confidence=0.95)["a"]
    errors = np.exp(rng.normal(done.log_error, done.variance**0.5, 200_000))
    allowed = rng.normal(1 - found.needed, limits[0].variance ** 0.5, 200_000)
    assert found.chance == pytest.approx(np.mean(errors <= allowed), abs=0.005)


def test_a_smaller_test_set_asks_for_more():
    limit = Floor(name="accuracy", accuracy=0.9, reference_error=None)
    needed = [
        outlooks({"a": curve(0.5, 0.5, 40)}, [limit], epochs=40, num_test=n, confidence=0.95)[
            "a"
        ].needed
        for n in (100, 10_000)
    ]
    assert needed[0] > needed[1] > 0.9


def test_without_a_limit_everything_holds_and_the_cheapest_is_the_answer():
    trainings = {"a": curve(0.9, 0.1, 4), "b": curve(0.1, 0.5, 4)}
    found = outlooks(trainings, [], epochs=40, num_test=100, confidence=0.95)
    assert found["a"].chance_cheapest == pytest.approx(1)
    assert next_attempt(found, {"a": 1.0, "b": 2.0}, [], min_chance=0.5, num_left=1) == "a"
