import tracemalloc

import numpy as np
import pytest
from scipy import stats

from distill.errors import UserError
from distill.statistics.comparison import (
    compare_errors,
    compare_losses,
    compare_right_labels,
    sign_flip_p_value,
)
from distill.statistics.metrics import bootstrap, compare_paired
from distill.statistics.number_metrics import score_numbers

NUM_PAIRS = 400


def errors_of_two_models(rng, n, ratio):
    """Correlated errors, the first's RMSE `ratio` times the second's."""
    shared = rng.normal(size=n)
    return ratio * (0.8 * shared + 0.6 * rng.normal(size=n)), 0.8 * shared + 0.6 * rng.normal(
        size=n
    )


def covers(comparison, truth):
    return comparison.interval[0] <= truth <= comparison.interval[1]


def within_noise(hits, share, trials=NUM_PAIRS):
    """Whether a coverage within 2 % of `share` can have given these hits."""
    low, high = share - 0.02, share + 0.02
    return stats.binom.ppf(0.001, trials, low) <= hits <= stats.binom.ppf(0.999, trials, high)


def test_the_gain_is_one_minus_the_quotient_of_the_reported_rmse(rng):
    labels = rng.normal(size=(300, 2))
    first, second = labels + rng.normal(size=(300, 2)), labels + rng.normal(size=(300, 2)) * 2
    rmse = [score_numbers(outputs, labels).overall["rmse"].estimate for outputs in (first, second)]
    found = compare_errors(first - labels, second - labels)
    assert found.estimate == pytest.approx(1 - rmse[0] / rmse[1])
    assert (found.num_samples, found.num_blocks) == (300, 300)
    assert found.interval[0] < found.estimate < found.interval[1] < 1


@pytest.mark.slow
@pytest.mark.parametrize(("n", "ratio"), [(20, 1.0), (20, 0.7), (80, 0.97)])
def test_intervals_cover_the_true_gain_as_often_as_they_say(n, ratio):
    rng = np.random.default_rng(n)
    found = [compare_errors(*errors_of_two_models(rng, n, ratio)) for _ in range(NUM_PAIRS)]
    hits = sum(covers(one, 1 - ratio) for one in found)
    assert within_noise(hits, 0.95), hits
    too_high = sum(one.interval[0] > 1 - ratio for one in found)
    assert too_high <= stats.binom.ppf(0.999, NUM_PAIRS, 0.035), too_high


@pytest.mark.slow
def test_dependent_rows_need_blocks():
    rng = np.random.default_rng(1)
    blocks = np.repeat(np.arange(30), 8)
    with_blocks, without = [], []
    for i in range(NUM_PAIRS):
        size = np.repeat(rng.normal(size=(2, 30)), 8, axis=1)
        first, second = 0.9 * (size + 0.3 * rng.normal(size=(2, 240)))
        second = second / 0.9
        with_blocks.append(covers(compare_errors(first, second, blocks=blocks), 0.1))
        if i < 60:
            without.append(covers(compare_errors(first, second), 0.1))
    assert within_noise(sum(with_blocks), 0.95), sum(with_blocks)
    assert sum(without) < 45, sum(without)


@pytest.mark.slow
def test_overlapping_forecasts_need_stretches_of_origins():
    rng = np.random.default_rng(3)
    horizon, num_origins = 6, 360
    stretch = np.arange(num_origins) // (4 * horizon)
    with_blocks, without = [], []
    for i in range(NUM_PAIRS):
        # the error of step h sums the h shocks since its origin, so that origins share shocks
        shocks = np.lib.stride_tricks.sliding_window_view(
            rng.normal(size=(2, num_origins + horizon - 1)), horizon, axis=1
        )
        first, second = np.cumsum(shocks, axis=2) * np.array([0.9, 1.0])[:, None, None]
        with_blocks.append(covers(compare_errors(first, second, blocks=stretch), 0.1))
        if i < 60:
            without.append(covers(compare_errors(first, second), 0.1))
    assert within_noise(sum(with_blocks), 0.95), sum(with_blocks)
    assert sum(without) < 48, sum(without)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [None, np.repeat(np.arange(25), 2)])
def test_p_values_of_equal_models_are_uniform(blocks):
    rng = np.random.default_rng(2)
    p_values = [
        compare_errors(*errors_of_two_models(rng, 50, 1.0), blocks=blocks).p_value
        for _ in range(NUM_PAIRS)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_merged_rows_and_the_delta_method_agree(rng):
    n = 60_000
    first, second = errors_of_two_models(rng, n, 0.95)
    found = compare_errors(first, second)
    influence = first**2 / np.mean(first**2) - second**2 / np.mean(second**2)
    error = influence.std() / 2 / np.sqrt(n)
    centre = np.log(1 - found.estimate)
    expected = 1 - np.exp(centre + 1.96 * error), 1 - np.exp(centre - 1.96 * error)
    assert found.interval == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))
    assert (found.num_blocks, found.p_value) == (n, 1e-4)


def test_interval_is_near_the_plain_paired_bootstrap(rng):
    first, second = errors_of_two_models(rng, 1000, 0.9)
    gain = {"gain": lambda w: 1 - np.sqrt((w @ first**2) / (w @ second**2))}
    plain = bootstrap(gain, 1000, 0.95)["gain"]
    low, high = plain.interval
    found = compare_errors(first, second)
    assert found.estimate == pytest.approx(plain.estimate)
    assert found.interval == pytest.approx((low, high), abs=0.1 * (high - low))


def test_losses_compare_as_the_quotient_of_their_means(rng):
    first, second = errors_of_two_models(rng, 1000, 0.9)
    first, second = np.abs(first), np.abs(second)
    gain = {"gain": lambda w: 1 - (w @ first) / (w @ second)}
    plain = bootstrap(gain, 1000, 0.95)["gain"]
    low, high = plain.interval
    found = compare_losses(first, second)
    assert found.estimate == pytest.approx(1 - first.mean() / second.mean())
    assert found.interval == pytest.approx((low, high), abs=0.1 * (high - low))
    squared = compare_losses(first**2, second**2).interval
    root = compare_errors(first, second).interval
    assert np.sqrt(1 - np.array(squared)) == pytest.approx(1 - np.array(root))


def test_losses_below_0_are_refused():
    with pytest.raises(ValueError, match="one below 0"):
        compare_losses(np.ones(9), np.array([-1.0, *range(8)]))


def test_pairing_narrows_the_interval(rng):
    second = rng.normal(size=200)
    first = 0.98 * second + 0.01 * rng.normal(size=200)
    paired = compare_errors(first, second).interval
    shuffled = compare_errors(rng.permutation(first), second).interval
    assert paired[1] - paired[0] < 0.1 * (shuffled[1] - shuffled[0])


def test_unit_does_not_matter(rng):
    first, second = errors_of_two_models(rng, 60, 0.9)
    plain, huge = compare_errors(first, second), compare_errors(1e9 * first, 1e9 * second)
    assert huge.interval == pytest.approx(plain.interval)
    tiny = compare_errors(1e-9 * first, 1e-9 * second)
    assert tiny.interval == pytest.approx(plain.interval)


def test_models_almost_alike_have_a_tiny_interval_and_not_a_wrong_one(rng):
    second = rng.normal(size=500)
    first = second * (1 - 1e-9 * rng.uniform(0, 2, size=500))
    low, high = compare_errors(first, second).interval
    assert 0.8e-9 < low < 1e-9 < high < 1.2e-9


@pytest.mark.parametrize("n", [1, 2, 20])
def test_models_that_err_alike_compare_as_nothing(rng, n):
    errors = rng.normal(size=n)
    for pair in [(errors, errors), (errors, -errors), (np.zeros(n), np.zeros(n))]:
        found = compare_errors(*pair)
        assert (found.estimate, found.interval, found.p_value) == (0, (0, 0), 1)


def test_a_difference_in_one_row_alone_proves_nothing(rng):
    second = rng.normal(size=100)
    first = second.copy()
    first[3] *= 0.5
    found = compare_errors(first, second)
    assert found.interval[0] < 0 < found.estimate < found.interval[1]
    assert found.p_value == 1
    ends = np.log(1 - np.array([found.estimate, *found.interval]))  # Student's t on either side
    assert ends[0] / (ends[0] - ends[1:]) == pytest.approx([1 / 1.98, -1 / 1.98], rel=0.02)


def test_the_interval_leans_to_where_rarer_and_larger_errors_would_lead(rng):
    first, second = rng.normal(size=(2, 40))
    second[0] = 8.0  # with more such rows the gain is larger, and one row is no measure of how much
    found = compare_errors(first, second)
    smallest, centre, largest = np.log(1 - np.array([*found.interval, found.estimate]))[[0, 2, 1]]
    assert centre - largest > 2 * (smallest - centre) > 0


def test_a_single_block_knows_nothing(rng):
    first, second = errors_of_two_models(rng, 50, 0.5)
    found = compare_errors(first, second, blocks=np.zeros(50))
    assert found.interval == (-np.inf, 1)
    assert found.p_value == 1


def test_a_model_without_errors(rng):
    errors, none = rng.normal(size=40), np.zeros(40)
    assert compare_errors(none, errors).interval == (1, 1)
    assert compare_errors(errors, none).interval == (-np.inf, -np.inf)
    errors[1:] = 0  # a single error may be chance
    assert compare_errors(none, errors).interval == (0, 1)
    found = compare_errors(errors, none)
    assert (found.estimate, found.interval) == (-np.inf, (-np.inf, 0))


def test_two_blocks_are_not_over_sure(rng):
    first, second = errors_of_two_models(rng, 50, 0.5)
    found = compare_errors(first, second, blocks=np.arange(50) % 2)
    assert found.interval[0] < found.estimate - 0.1


def test_nan_and_unequal_shapes_are_refused():
    with pytest.raises(UserError, match="1 of 9 rows"):
        compare_errors(np.zeros(9), np.array([np.nan, *range(8)]))
    with pytest.raises(ValueError, match="Expected paired"):
        compare_errors(np.zeros(9), np.zeros(8))
    with pytest.raises(ValueError, match="at least one row"):
        compare_right_labels(np.zeros((0, 2)), np.zeros((0, 2)))


def test_sign_flips_agree_with_scipy_over_all_signs(rng):
    for shift in (0.0, 0.5, 1.0):
        differences = rng.normal(shift, 1, 10)
        expected = stats.permutation_test(
            (differences,), np.sum, permutation_type="samples", n_resamples=np.inf
        ).pvalue
        noise = 4 * np.sqrt(expected * (1 - expected) / 9999) + 1e-3
        assert sign_flip_p_value(differences) == pytest.approx(expected, abs=noise)


def test_sign_flips_count_ties_in_spite_of_rounding():
    differences = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.3, -0.1, -0.2])
    whole = sign_flip_p_value(np.round(10 * differences))
    assert sign_flip_p_value(differences) == whole


@pytest.mark.parametrize("n", [20, 3000])
def test_of_a_single_label_the_comparison_is_that_of_classes(rng, n):
    first, second = rng.uniform(size=n) < 0.8, rng.uniform(size=n) < 0.7
    found = compare_right_labels(first[:, None], second[:, None])
    expected = compare_paired(first, second)
    assert found.estimate == pytest.approx(expected.estimate)
    assert found.interval == pytest.approx(expected.interval)
    assert found.p_value == pytest.approx(expected.p_value, abs=0.02)


def test_shares_of_right_labels_that_never_differ_are_not_certain():
    right = np.ones((50, 4), bool)
    found = compare_right_labels(right, right)
    assert found.interval[0] < 0 == found.estimate < found.interval[1]
    assert found.p_value == 1


def test_blocks_of_unequal_size_that_agree_on_the_difference_say_as_much_as_a_row_each():
    first, second = np.zeros((2, 300, 4), bool)
    first[:, :2] = second[:, 0] = True
    found = compare_right_labels(first, second, blocks=np.repeat(np.arange(24), np.arange(1, 25)))
    few, many = (np.ptp(compare_right_labels(first[:n], second[:n]).interval) for n in (12, 24))
    assert many < np.ptp(found.interval) < few
    assert found.interval[0] < 0.25 < found.interval[1]


@pytest.mark.slow
@pytest.mark.parametrize("n", [25, 120])
def test_intervals_of_right_labels_cover_as_often_as_they_say(n):
    rng = np.random.default_rng(n)
    hits = blocked = 0
    for _ in range(NUM_PAIRS):
        easy = rng.uniform(size=(n, 1))  # a row's labels are right together
        first, second = (
            rng.uniform(size=(2, n, 5)) < 0.6 * easy + np.array([0.35, 0.3])[:, None, None]
        )
        hits += covers(compare_right_labels(first, second), 0.05)
        twice = np.repeat(first, 2, axis=0), np.repeat(second, 2, axis=0)
        blocks = np.repeat(np.arange(n), 2)
        blocked += covers(compare_right_labels(*twice, blocks=blocks), 0.05)
    assert within_noise(hits, 0.95), hits
    assert within_noise(blocked, 0.95), blocked


@pytest.mark.slow
def test_a_million_rows_are_compared_in_bounded_memory(rng):
    first, second = rng.normal(size=(2, 1_000_000))
    tracemalloc.start()
    found = compare_errors(0.99 * first, second)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert covers(found, 0.01)
    assert peak < 400e6  # the errors are 16 MB
