"""A model that stands still: its half-life and the day it is beaten, with what is not known."""

import numpy as np
import pytest

from distill.production.monitoring.decay import MIN_WINDOWS, Window, fit_decay

AGES = np.arange(12) * 7 + 3.5
FLOOR, START = 0.1, 0.95


def windows(rng, half_life, count=150):
    chances = FLOOR + (START - FLOOR) * 2 ** (-AGES / half_life)
    return [
        Window(age_days=float(age), estimate=share, interval=(0, 1), count=count)
        for age, share in zip(AGES, rng.binomial(count, chances) / count, strict=True)
    ]


@pytest.mark.slow
def test_intervals_of_half_life_and_crossing_hold_the_truth(rng):
    crossing = 100 * np.log2((START - FLOOR) / (0.6 - FLOOR))
    inside = np.zeros(2)
    for seed in range(120):
        found = fit_decay(windows(rng, 100), floor=FLOOR, baseline=0.6, seed=seed)
        for at, (interval, truth) in enumerate(
            [(found.half_life_interval, 100), (found.crossing_interval, crossing)]
        ):
            low, high = interval
            inside[at] += low <= truth <= (np.inf if high is None else high)
    assert (inside / 120 >= 0.89).all()


def test_many_labels_give_the_curve_itself(rng):
    found = fit_decay(windows(rng, 60, count=200_000), floor=FLOOR, baseline=0.5)
    assert found.half_life_days == pytest.approx(60, rel=0.03)
    assert found.start == pytest.approx(START, abs=0.01)
    assert found.at(60) == pytest.approx((START + FLOOR) / 2, abs=0.01)
    assert found.crossing_day == pytest.approx(60 * np.log2(0.85 / 0.4), rel=0.04)


def test_a_model_that_does_not_wear_out_is_not_said_to(rng):
    found = fit_decay(windows(rng, np.inf, count=2000), floor=FLOOR, baseline=0.5)
    assert found.half_life_interval[1] is None or found.half_life_interval[1] > 10 * AGES[-1]
    assert found.half_life_interval[0] > 3 * AGES[-1]
    assert found.crossing_interval[0] > 2 * AGES[-1]


def test_one_that_was_never_better_is_beaten_from_the_first_day(rng):
    found = fit_decay(windows(rng, 100), floor=FLOOR, baseline=0.99)
    assert found.crossing_day == 0


def test_without_a_baseline_nothing_is_crossed(rng):
    found = fit_decay(windows(rng, 20), floor=FLOOR)
    assert found.crossing_day is None
    assert found.crossing_interval == (None, None)


def test_a_baseline_at_the_floor_is_never_reached(rng):
    assert fit_decay(windows(rng, 20), floor=FLOOR, baseline=FLOOR).crossing_day is None


def test_a_curve_wants_more_than_a_few_points(rng):
    assert fit_decay(windows(rng, 20)[: MIN_WINDOWS - 1], floor=FLOOR) is None


@pytest.fixture
def errors(rng):
    """An RMSE that rises from 1 to that of knowing nothing, 5, of which half is reached by day."""

    def call(half_life, count=400):
        truth = 5 - 4 * 2 ** (-AGES / half_life)
        found = truth * np.sqrt(rng.chisquare(count, len(AGES)) / count)
        half = 1.96 * found / np.sqrt(2 * count)
        return [
            Window(age_days=float(age), estimate=own, interval=(own - off, own + off), count=count)
            for age, own, off in zip(AGES, found, half, strict=True)
        ]

    return call


def test_errors_rise_to_the_baselines(errors):
    found = fit_decay(errors(60, count=100_000), floor=5.0, baseline=2.0, is_error=True)
    assert found.half_life_days == pytest.approx(60, rel=0.05)
    assert found.start == pytest.approx(1, abs=0.03)
    assert found.at(60) == pytest.approx(3, abs=0.05)
    assert found.crossing_day == pytest.approx(60 * np.log2(4 / 3), rel=0.05)


@pytest.mark.slow
def test_intervals_of_errors_hold_the_truth(errors):
    inside = np.zeros(2)
    for seed in range(100):
        found = fit_decay(errors(60), floor=5.0, baseline=2.0, is_error=True, seed=seed)
        known = (found.half_life_interval, 60), (found.crossing_interval, 60 * np.log2(4 / 3))
        for at, ((low, high), truth) in enumerate(known):
            inside[at] += low <= truth <= (np.inf if high is None else high)
    assert (inside / 100 >= 0.89).all()


def test_errors_that_stay_are_not_said_to_rise(errors):
    found = fit_decay(errors(np.inf), floor=5.0, baseline=2.0, is_error=True)
    assert found.crossing_interval[0] > AGES[-1]


def test_a_model_that_always_erred_more_is_beaten_from_the_first_day(errors):
    found = fit_decay(errors(60), floor=5.0, baseline=0.5, is_error=True)
    assert found.crossing_day == 0
