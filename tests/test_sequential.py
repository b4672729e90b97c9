import math

import numpy as np
import pytest
from scipy import integrate, stats

from distill.errors import UsageError
from distill.statistics.sequential import (
    Moments,
    half_width,
    log_e_value,
    mean_difference,
    p_value,
    paired_difference,
    planned_bounds,
    share_bounds,
)

NUM_EXPERIMENTS = 2000


def too_many(alpha: float) -> int:
    """Alarms that a chance of alpha gives in less than one of a thousand runs of the test."""
    return int(stats.binom.isf(0.001, NUM_EXPERIMENTS, alpha))


@pytest.mark.parametrize(("treated", "control", "share"), [(7, 2, 0.5), (3, 40, 0.1), (0, 0, 0.3)])
@pytest.mark.parametrize("harm_only", [False, True])
def test_an_e_value_is_the_mixture_of_likelihoods_that_it_says(treated, control, share, harm_only):
    prior = stats.beta(20 * share, 20 * (1 - share))
    lowest = share if harm_only else 0.0

    def ratio(theta: float) -> float:
        likelihoods = [stats.binom.pmf(treated, treated + control, one) for one in (theta, share)]
        return prior.pdf(theta) * likelihoods[0] / likelihoods[1]

    mixed = integrate.quad(ratio, lowest, 1, epsabs=1e-12)[0] / prior.sf(lowest)
    log_e = log_e_value(treated, control, share=share, harm_only=harm_only)
    assert float(log_e) == pytest.approx(math.log(mixed), abs=1e-6)


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("harm_only", [False, True])
def test_e_values_of_an_unchanged_world_are_one_on_average(share, harm_only):
    events = np.arange(13)
    mean = stats.binom.pmf(events, 12, share) @ np.exp(
        log_e_value(events, 12 - events, share=share, harm_only=harm_only)
    )
    assert mean == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_counts_looked_at_after_every_event_alarm_no_oftener_than_alpha(share):
    rng = np.random.default_rng(1)
    treated = np.cumsum(rng.random((NUM_EXPERIMENTS, 1000)) < share, axis=1)
    control = np.arange(1, 1001) - treated
    alarms = (log_e_value(treated, control, share=share) >= math.log(20)).any(axis=1).sum()
    peeked = np.abs(treated - share * (treated + control)) > 1.96 * np.sqrt(
        share * (1 - share) * (treated + control)
    )
    assert alarms <= too_many(0.05)
    assert peeked.any(axis=1).sum() > 5 * too_many(0.05)  # the control: what peeking costs


@pytest.mark.slow
def test_harm_is_told_and_a_better_arm_never_alarms():
    rng = np.random.default_rng(2)
    for rate, expected in ((0.05, 1.0), (0.001, 0.0)):
        errors = rng.binomial(1, [rate, 0.01], (500, 5000, 2)).cumsum(axis=1)
        log_e = log_e_value(errors[..., 0], errors[..., 1], harm_only=True)
        assert (log_e >= math.log(100)).any(axis=1).mean() == expected


@pytest.mark.slow
@pytest.mark.parametrize(("chance", "around"), [(0.2, 0.5), (0.03, 0.02), (0.5, 0.5)])
def test_bounds_of_a_share_hold_the_truth_at_every_look(chance, around):
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(200):
        happened = rng.binomial(1, chance, 400).cumsum()
        looks = ((int(s), n - int(s)) for n, s in enumerate(happened, 1) if n % 20 == 0)
        bounds = (share_bounds(*look, around=around) for look in looks)
        missed += any(not low <= chance <= high for low, high in bounds)
    assert missed <= stats.binom.isf(0.001, 200, 0.05)


@pytest.mark.parametrize(("treated", "control"), [(30, 30), (80, 12), (0, 40), (40, 0), (0, 0)])
def test_bounds_of_a_share_leave_out_one_half_where_its_test_alarms(treated, control):
    low, high = share_bounds(treated, control)
    alarms = float(log_e_value(treated, control)) >= math.log(20)
    assert alarms == (not low <= 0.5 <= high)
    assert treated or low == 0
    assert control or high == 1


@pytest.mark.parametrize(
    ("draw", "count"),
    [
        (lambda rng, shape: rng.random(shape) < 0.1, 4000),
        (lambda rng, shape: rng.lognormal(0, 1.5, shape), 4000),
    ],
    ids=["a tenth", "skewed"],
)
def test_means_looked_at_after_every_unit_alarm_no_oftener_than_alpha(draw, count):
    rng = np.random.default_rng(4)
    alarms = 0
    ns = np.arange(1, count // 2 + 1)
    for _ in range(NUM_EXPERIMENTS // 4):
        arms = draw(rng, (4, 2, count // 2)).astype(float)
        sums, squares = arms.cumsum(axis=-1), (arms**2).cumsum(axis=-1)
        variance = (squares - sums**2 / ns) / np.maximum(ns - 1, 1)
        squared_error = (variance / ns).sum(axis=1)
        difference = (sums[:, 0] - sums[:, 1]) / ns
        half = half_width(2 * ns, 2 * ns * squared_error, alpha=0.05, tuned_at=5000)
        alarms += (np.abs(difference) > half)[:, 200:].any(axis=1).sum()
    assert alarms <= too_many(0.05)


def test_an_estimate_is_the_difference_with_its_half_width():
    treated, control = Moments.of(5000, 4600, 4600), Moments.of(5000, 4500, 4500)
    found = mean_difference(treated, control)
    variance = 10_000 * (0.92 * 0.08 + 0.9 * 0.1) / 4999
    half = float(half_width(10_000, variance, alpha=0.05, tuned_at=5000))
    assert found.estimate == pytest.approx(0.02)
    assert found.interval == pytest.approx((0.02 - half, 0.02 + half))
    assert found.count == 10_000


@pytest.mark.parametrize("successes", range(4500, 4720, 20))
def test_a_p_value_and_its_interval_agree(successes):
    found = mean_difference(Moments.of(5000, successes, successes), Moments.of(5000, 4500, 4500))
    assert (found.p_value <= 0.05) == (not found.interval[0] <= 0 <= found.interval[1])


@pytest.mark.parametrize(("count", "successes"), [(99, 50), (5000, 4990), (5000, 3)])
def test_too_little_is_believed_of_no_interval(count, successes):
    few = Moments.of(count, successes, successes)
    found = mean_difference(few, Moments.of(5000, 4000, 4000))
    assert not found.is_enough
    assert found.interval == (-math.inf, math.inf)
    assert found.p_value == 1


def test_pairs_tell_a_difference_that_arms_do_not():
    pairs = paired_difference(80, 20, 2000)
    arms = Moments.of(1000, 930, 930), Moments.of(1000, 900, 900)
    assert pairs.interval[0] > 0
    assert pairs.p_value < 0.001
    assert mean_difference(*arms).interval[0] < 0


def test_models_that_hardly_differ_are_soon_known_to_be_alike():
    found = paired_difference(0, 0, 2000)
    assert -0.005 < found.interval[0] < 0 < found.interval[1] < 0.005
    assert paired_difference(0, 0, 0).interval == (-math.inf, math.inf)


def test_one_that_always_loses_is_known_to():
    found = paired_difference(0, 300, 300)
    assert found.interval[1] < -0.7


@pytest.mark.slow
@pytest.mark.parametrize("chances", [(0.001, 0.002), (0.05, 0.05), (0.1, 0.02)])
def test_a_paired_difference_holds_the_truth_at_every_look(chances):
    rng = np.random.default_rng(7)
    won, lost = chances
    missed = 0
    for _ in range(200):
        drawn = rng.choice([1, -1, 0], size=1500, p=[won, lost, 1 - won - lost])
        wins, losses = (drawn == 1).cumsum(), (drawn == -1).cumsum()
        for n in range(25, 1501, 25):
            found = paired_difference(int(wins[n - 1]), int(losses[n - 1]), n)
            if not found.interval[0] <= won - lost <= found.interval[1]:
                missed += 1
                break
    assert missed <= stats.binom.isf(0.001, 200, 0.05)


def test_a_share_is_bounded_by_what_the_mixture_does_not_refute():
    low, high = share_bounds(12, 88, around=0.5)
    for chance in (low, high):
        mixed = stats.betabinom.pmf(12, 100, 10, 10) / stats.binom.pmf(12, 100, chance)
        assert mixed == pytest.approx(20, rel=1e-6)
    assert share_bounds(0, 100)[0] == 0
    assert share_bounds(100, 0)[1] == 1


def test_moments_are_those_of_the_values():
    values = np.random.default_rng(5).normal(3, 2, 500)
    found = Moments.of(500, float(values.sum()), float((values**2).sum()))
    assert found.mean == pytest.approx(values.mean())
    assert found.variance == pytest.approx(values.var(ddof=1))
    assert found.num_events is None


def test_of_yes_or_no_the_rarer_answer_counts():
    assert Moments.of(500, 480, 480).num_events == 20
    assert not Moments.of(500, 490, 490).is_enough
    assert Moments.of(500, 980, 1940).is_enough  # most units said 2


def test_planned_bounds_are_the_published_ones():
    # The R package ldbounds: bounds(1:5 / 5, iuse=c(1, 1), alpha=c(0.025, 0.025)).
    published = [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]
    assert planned_bounds([0.2, 0.4, 0.6, 0.8, 1.0]) == pytest.approx(published, abs=2e-4)


def test_one_planned_look_is_the_test_of_always():
    assert planned_bounds([1.0]) == pytest.approx([stats.norm.isf(0.025)], abs=1e-6)


def test_planned_looks_alarm_as_often_as_alpha():
    fractions = [0.1, 0.5, 0.7, 1.0]
    steps = np.random.default_rng(6).normal(size=(200_000, 4)) * np.sqrt(
        np.diff(fractions, prepend=0)
    )
    z = steps.cumsum(axis=1) / np.sqrt(fractions)
    share = (np.abs(z) > planned_bounds(fractions)).any(axis=1).mean()
    assert share == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 200_000))


@pytest.mark.parametrize("fractions", [[], [0.5, 0.5], [0.5, 0.2], [0.0, 1.0], [0.5, 1.5]])
def test_looks_that_do_not_rise_are_refused(fractions):
    with pytest.raises(UsageError, match="that rise"):
        planned_bounds(fractions)


def test_a_p_value_of_an_e_value_is_its_inverse_and_at_most_one():
    assert p_value(math.log(50)) == pytest.approx(0.02)
    assert p_value(-3.0) == 1
