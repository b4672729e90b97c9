import numpy as np
import pytest
from scipy import stats
from tables_statistics import difference, ratio


def test_an_interval_over_folds_is_that_of_a_paired_t_test_with_more_variance():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.9, 0.02, 25), rng.normal(0.88, 0.02, 25)
    found = difference(first, second, num_folds=5)
    plain = stats.ttest_rel(first, second)
    wider = np.sqrt((1 / 25 + 1 / 4) * 25)  # 20 % of the rows reported on, 80 % learnt from
    half = (plain.confidence_interval(0.95).high - found["estimate"]) * wider
    assert found["estimate"] == pytest.approx(np.mean(first - second))
    assert found["interval"][1] - found["estimate"] == pytest.approx(half)
    assert found["p_value"] == pytest.approx(2 * stats.t.sf(abs(plain.statistic) / wider, 24))


def test_a_ratio_to_a_constant_is_a_difference_in_its_unit():
    first = np.array([0.9, 0.92, 0.94, 0.91, 0.93])
    of_ratio = ratio(first, np.full(5, 0.8), num_folds=5)
    of_difference = difference(first, np.full(5, 0.8), num_folds=5)
    assert np.subtract(of_ratio["interval"], 1) == pytest.approx(
        np.divide(of_difference["interval"], 0.8)
    )


def test_folds_that_are_all_alike_have_an_interval_of_a_point():
    found = difference([0.5, 0.5], [0.5, 0.5], num_folds=5)
    assert found["interval"] == [0.0, 0.0]
    assert found["p_value"] == 1.0
