import numpy as np
import pytest

from distill.deployment.estimates import (
    is_difference,
    median_of_few,
    median_ratio,
    percentiles,
    throughput,
)
from distill.statistics.metrics import Estimate


def processes(rng, count=5, spread=0.05):
    return [
        1e6 * np.exp(spread * rng.normal() + 0.3 * rng.normal(size=(60, 10))) for _ in range(count)
    ]


def test_percentiles_are_those_of_numpy_over_all_calls(rng):
    taken = processes(rng)
    found = [e.estimate for e in percentiles(taken, [50, 95, 99], 0.95)]
    assert found == pytest.approx(np.percentile(np.concatenate(taken), [50, 95, 99]))


@pytest.mark.slow
def test_intervals_cover_the_truth_though_processes_differ():
    truth = 1e6 * np.exp(1.6448536 * np.hypot(0.3, 0.05))
    hits = 0
    for trial in range(100):
        taken = processes(np.random.default_rng(trial))
        low, high = percentiles(taken, [95], 0.95, seed=trial)[0].interval
        hits += low <= truth <= high
    assert hits >= 88


def test_correlated_latencies_get_wider_intervals_than_independent_ones():
    rng = np.random.default_rng(0)
    level = np.repeat(rng.normal(size=60), 5)[:, None]  # slow and fast spells of five rounds
    correlated = 10 + level + 0.1 * rng.normal(size=(300, 10))
    shuffled = rng.permutation(correlated.ravel()).reshape(300, 10)
    widths = []
    for taken in (correlated, shuffled):
        low, high = percentiles([taken], [50], 0.95)[0].interval
        widths.append(high - low)
    assert widths[0] > 3 * widths[1]


def test_a_ratio_is_paired_by_round(rng):
    drift = np.linspace(1, 3, 100)[:, None]  # the machine grows slower
    reference = [drift * rng.normal(100, 1, (100, 10)) for _ in range(3)]
    found = median_ratio([1.5 * taken for taken in reference], reference, 0.95)
    assert found.estimate == pytest.approx(1.5)
    assert found.interval == pytest.approx((1.5, 1.5))


def test_a_model_against_itself_is_called_different_one_time_in_twenty_at_most():
    claims = 0
    for trial in range(400):
        rng = np.random.default_rng(trial)
        # Where memory happens to lie shifts each session by 2 %.
        own, reference, control = (
            [np.exp(0.02 * rng.normal() + 0.05 * rng.normal(size=(30, 10))) for _ in range(5)]
            for _ in range(3)
        )
        ratio, floor = (median_ratio(x, reference, 0.95) for x in (own, control))
        claims += is_difference(ratio, floor)
    assert claims / 400 <= 0.05


def test_a_real_difference_is_called_one():
    shown = Estimate(estimate=0.6, interval=(0.58, 0.62))
    floor = Estimate(estimate=1.01, interval=(0.98, 1.04))
    assert is_difference(shown, floor)
    assert not is_difference(Estimate(estimate=1.02, interval=(1.01, 1.03)), floor)
    assert not is_difference(Estimate(estimate=0.6, interval=(0.3, 1.2)), floor)


def test_one_process_shows_no_difference():
    taken = [np.full((10, 10), 5.0)]
    assert median_ratio(taken, [2 * t for t in taken], 0.95).interval == (0.0, np.inf)


def test_throughput_counts_samples():
    assert throughput([np.full((10, 10), 2e6)] * 2, 32, 0.95).estimate == pytest.approx(16_000)


def test_a_few_draws_bound_a_median_only_where_their_range_covers_it():
    six = median_of_few([3.0, 1.0, 2.0, 4.0, 5.0, 6.0], 0.95)  # covers with 1 - 2^-5 = 96.9 %
    assert (six.estimate, six.interval) == (3.5, (1.0, 6.0))
    assert median_of_few([1.0, 2.0], 0.95).interval == (0.0, np.inf)
    assert median_of_few([1.0, 2.0], 0.5).interval == (1.0, 2.0)
