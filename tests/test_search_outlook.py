"""Claims about what short trainings promise, and who is dropped for it."""

import numpy as np
import pytest
from scipy.stats import norm

from distill.budget import AccuracyBudget
from distill.deployment.search.outlook import (
    POWER,
    Floor,
    Outlook,
    Trained,
    dropped,
    floors,
    in_full,
    next_attempt,
    outlooks,
    power,
)

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
    assert next_attempt(found, [], min_chance=0.5) == "a"


def outlook(chance, cheapest):
    return Outlook(
        accuracy=0.9, interval=(0.8, 0.95), needed=0.9, chance=chance, chance_cheapest=cheapest
    )


def answers(accuracy, n=1000):
    return np.arange(n) < accuracy * n


def test_what_a_cheaper_one_beats_beyond_noise_is_dropped_whatever_its_chance():
    found = {"cheap": outlook(0.9, 0.9), "dear": outlook(0.95, 0.09)}
    why = dropped(found, {"cheap": answers(0.95), "dear": answers(0.9)}, keep=1.0)
    assert set(why) == {"dear"}
    assert "cheap is cheaper and 5.0 points more accurate" in why["dear"]
    close = {"cheap": answers(0.951), "dear": answers(0.95)}
    assert dropped(found, close, keep=1.0) == {}


def test_those_go_on_that_are_likeliest_to_be_the_cheapest_that_holds():
    found = {
        "tiny": outlook(0.01, 0.01),
        "small": outlook(0.7, 0.69),
        "medium": outlook(0.9, 0.27),
        "large": outlook(0.99, 0.03),
    }
    alike = {name: answers(0.9) for name in found}
    why = dropped(found, alike, keep=0.5)
    assert set(why) == {"tiny", "large"}
    assert "unlikely to hold" in why["tiny"]
    assert "medium is cheaper and likely holds" in why["large"]
    assert len(dropped(found, alike, keep=0.01)) == 3


def test_the_next_attempt_is_the_cheapest_likely_one_dearer_than_what_was_tried():
    found = {"a": outlook(0.1, 0.1), "b": outlook(0.6, 0.5), "c": outlook(0.9, 0.4)}
    assert next_attempt(found, [], min_chance=0.25) == "b"
    assert next_attempt(found, ["b"], min_chance=0.25) == "c"
    assert next_attempt(found, ["b", "c"], min_chance=0.25) is None
    assert next_attempt(found, [], min_chance=0.95) == "c"  # the likeliest says what is missing
    assert next_attempt(found, ["c"], min_chance=0.95) is None
