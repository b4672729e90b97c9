import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    mean_absolute_error,
    mean_pinball_loss,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)

from distill.errors import UserError
from distill.statistics.number_metrics import (
    naive_error,
    pinball_loss,
    score_forecasts,
    score_numbers,
    score_quantiles,
)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 60), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_regression_scores_agree_with_scikit_learn(n, num_outputs, seed):
    rng = np.random.default_rng(seed)
    labels = rng.normal(50, [1, 10, 0.1][:num_outputs], (n, num_outputs))
    outputs = labels + rng.normal(size=labels.shape)
    found = score_numbers(outputs, labels)
    overall = {name: figure.estimate for name, figure in found.overall.items()}
    assert overall == pytest.approx(
        {
            "rmse": np.sqrt(mean_squared_error(labels, outputs)),
            "mae": mean_absolute_error(labels, outputs),
            "r2": r2_score(labels, outputs),
        }
    )
    each = root_mean_squared_error(labels, outputs, multioutput="raw_values")
    assert [one["rmse"].estimate for one in found.by_output] == pytest.approx(each)
    each = r2_score(labels, outputs, multioutput="raw_values")
    assert [one["r2"].estimate for one in found.by_output] == pytest.approx(each)


def test_one_column_may_be_flat(rng):
    labels = rng.normal(size=30)
    flat = score_numbers(labels + 0.5, labels)
    assert flat == score_numbers(labels[:, None] + 0.5, labels[:, None])
    assert flat.overall["mae"].interval == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("error", [0.0, 0.25])
def test_r2_of_a_constant_label_is_that_of_scikit_learn(error):
    labels = np.full(7, 0.5)  # of 0.1 scikit-learn's has a variance, from rounding
    found = score_numbers(labels + error, labels).overall["r2"]
    assert found.estimate == r2_score(labels, labels + error)
    assert found.interval == (found.estimate, found.estimate)
    assert score_numbers(labels - 0.4 + error, labels - 0.4).overall["r2"] == found


def test_r2_survives_labels_far_from_0(rng):
    labels = rng.normal(1e8, 1, 100)
    outputs = labels + rng.normal(size=100) / 2
    found = score_numbers(outputs, labels).overall["r2"].estimate
    assert found == pytest.approx(r2_score(labels - 1e8, outputs - 1e8), abs=1e-6)


def test_draws_of_one_row_alone_do_not_blow_up_r2(rng):
    for _ in range(10):  # 1 draw in 9 has no variance but what rounding leaves
        labels = rng.normal(size=3).round(2)
        low, high = score_numbers(labels + 1e-3, labels).overall["r2"].interval
        assert 0 <= low < high <= 1


def test_interval_of_mae_is_near_the_normal_one_also_with_merged_rows(rng):
    for n in (500, 30_000):
        errors = rng.normal(size=n)
        found = score_numbers(errors, np.zeros(n)).overall["mae"]
        half = 1.96 * np.abs(errors).std() / np.sqrt(n)
        expected = (found.estimate - half, found.estimate + half)
        assert found.interval == pytest.approx(expected, abs=half * 0.1)


def test_interval_of_r2_is_that_of_a_plain_bootstrap_of_scikit_learn(rng):
    labels = rng.normal(size=200)
    outputs = labels + rng.normal(size=200) * 0.5
    draws = rng.integers(0, 200, (1000, 200))
    expected = np.quantile([r2_score(labels[d], outputs[d]) for d in draws], [0.025, 0.975])
    low, high = score_numbers(outputs, labels).overall["r2"].interval
    assert (low, high) == pytest.approx(tuple(expected), abs=0.1 * (expected[1] - expected[0]))


def test_rows_of_a_block_count_as_one(rng):
    errors = rng.normal(size=100)
    once = score_numbers(errors, np.zeros(100)).overall
    repeated = np.repeat(errors, 7)
    names = np.repeat([f"patient {i:03}" for i in range(100)], 7)
    again = score_numbers(repeated, np.zeros(700), blocks=names).overall
    for name in ("rmse", "mae"):
        assert again[name].interval == pytest.approx(once[name].interval)


def test_pinball_loss_agrees_with_scikit_learn(rng):
    labels, levels = rng.normal(size=(50, 2)), np.array([0.1, 0.5, 0.8])
    quantiles = np.sort(rng.normal(size=(50, 2, 3)), axis=2)
    found = score_quantiles(quantiles, labels, levels)
    for q, level in enumerate(levels):
        expected = mean_pinball_loss(labels, quantiles[..., q], alpha=level)
        assert found.overall[f"pinball_{level:g}"].estimate == pytest.approx(expected)
    assert found.overall["pinball"].estimate == pytest.approx(
        np.mean([found.overall[f"pinball_{level:g}"].estimate for level in levels])
    )
    inside = (quantiles[:, 1, 0] <= labels[:, 1]) & (labels[:, 1] <= quantiles[:, 1, 2])
    assert found.by_output[1]["coverage"].estimate == pytest.approx(inside.mean())
    width = (quantiles[:, 0, 2] - quantiles[:, 0, 0]).mean()
    assert found.by_output[0]["width"].estimate == pytest.approx(width)


def test_pinball_loss_is_least_at_the_quantile(rng):
    labels = rng.normal(size=50_000)
    grid = np.linspace(-2, 2, 81)
    losses = pinball_loss(np.broadcast_to(grid[:, None, None], (81, 50_000, 1)),
                          np.broadcast_to(labels, (81, 50_000)), np.array([0.8]))  # fmt: skip
    assert grid[losses.mean(axis=(1, 2)).argmin()] == pytest.approx(stats.norm.ppf(0.8), abs=0.06)


def test_full_coverage_is_not_certain():
    quantiles = np.tile([-1.0, 1.0], (40, 1, 1))
    found = score_quantiles(quantiles, np.zeros((40, 1)), [0.1, 0.9]).overall
    expected = stats.binomtest(40, 40).proportion_ci(method="wilson")
    assert found["coverage"].interval == pytest.approx((expected.low, expected.high))
    assert found["width"].interval == (2, 2)


def test_one_quantile_has_no_coverage():
    found = score_quantiles(np.zeros((9, 1, 1)), np.ones((9, 1)), [0.5])
    assert set(found.overall) == {"pinball", "pinball_0.5"}


@pytest.mark.parametrize("levels", [[0.9, 0.1], [0, 0.5], [0.5, 1], [0.2, 0.2], 0.5])
def test_levels_that_do_not_ascend_inside_0_and_1_are_refused(levels):
    with pytest.raises(ValueError, match="Expected levels that ascend"):
        score_quantiles(np.zeros((9, 1, 2)), np.ones((9, 1)), levels)


def test_quantiles_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"Expected quantiles of shape \(9, 1, 2\)"):
        score_quantiles(np.zeros((9, 2)), np.ones((9, 1)), [0.1, 0.9])


def test_mase_by_hand():
    # season 2: |3-1|, |4-2|, |2-3|, |8-4| on the training part, mean 9/4
    assert naive_error(np.array([1, 2, 3, 4, 2, 8]), season=2) == pytest.approx(9 / 4)
    forecasts, labels = np.array([[1.0, 2], [3, 4]]), np.array([[2.0, 2], [3, 7]])
    found = score_forecasts(forecasts, labels, scale=[9 / 4, 1])
    assert found.overall["mase"].estimate == pytest.approx((1 / (9 / 4) + 3) / 4)
    steps = [step["mase"].estimate for step in found.by_output]
    assert steps == pytest.approx([1 / (9 / 4) / 2, 3 / 2])


def test_smape_by_hand_with_nothing_for_nothing():
    found = score_forecasts(np.array([0.0, 1, 2, 0]), np.array([0.0, 1, 6, 5]), 1.0)
    assert found.overall["smape"].estimate == pytest.approx((0 + 0 + 200 * 4 / 8 + 200) / 4)


def test_the_naive_forecast_of_a_random_walk_has_mase_1(rng):
    walk = np.cumsum(rng.normal(size=4000))
    scale = naive_error(walk[:2000])
    test = walk[2000:]
    found = score_forecasts(test[:-1], test[1:], scale).overall["mase"]
    assert found.interval[0] < 1 < found.interval[1]


def test_rows_without_a_scale_do_not_count_in_mase(rng):
    forecasts, labels = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    scale = np.where(np.arange(40) < 10, 0.0, 2.0)
    found = score_forecasts(forecasts, labels, scale).overall["mase"].estimate
    assert found == pytest.approx(np.abs(forecasts - labels)[10:].mean() / 2)
    assert "mase" not in score_forecasts(forecasts, labels, 0.0).overall


def test_missing_training_values_do_not_count_in_the_scale():
    assert naive_error(np.array([1, np.nan, 4, 6, 9])) == pytest.approx(2.5)


@pytest.mark.parametrize("series", [[1.0, 2, 3], [], [1, np.nan, 2, 3]])
def test_a_series_without_a_season_says_so(series):
    with pytest.raises(UserError, match="values 3 steps apart"):
        naive_error(np.array(series)[:3], season=3)


def test_a_season_below_one_step_is_refused():
    with pytest.raises(ValueError, match="at least 1 step but got 0"):
        naive_error(np.arange(9), season=0)


def test_a_scale_that_is_not_a_number_is_refused():
    with pytest.raises(UserError, match="Expected finite scales"):
        score_forecasts(np.zeros(9), np.zeros(9), [np.nan, *np.ones(8)])


def test_nan_is_refused_by_row():
    outputs = np.zeros((9, 2))
    outputs[4, 1] = np.nan
    with pytest.raises(UserError, match="1 of 9 rows, the first at row 4"):
        score_numbers(outputs, np.zeros((9, 2)))


def test_unequal_shapes_and_no_rows_are_refused():
    with pytest.raises(ValueError, match="Expected paired numbers"):
        score_numbers(np.zeros((9, 1)), np.zeros(9))
    with pytest.raises(ValueError, match="at least one row"):
        score_numbers(np.zeros((0, 1)), np.zeros((0, 1)))
    with pytest.raises(ValueError, match="Expected 9 blocks"):
        score_numbers(np.zeros(9), np.zeros(9), blocks=np.zeros(8))


def test_a_million_rows_are_scored(rng):
    labels = rng.normal(size=(1_000_000, 2))
    found = score_numbers(labels + 1, labels)
    assert found.overall["rmse"].estimate == pytest.approx(1)
