"""Claims about resampling where pandas is no oracle: at the ends of series."""

import numpy as np
import pytest

from distill.training.data.grids import resample

NAN = np.nan


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("last", [1, 1, 1, 4, 4, NAN, 7, 7, 9]),
        ("linear", [1, 2, 3, 4, 4, NAN, 7, 8, 9]),
    ],
)
def test_nothing_is_carried_from_one_series_to_the_next(fill, expected):
    grid = resample(
        np.array([3, 3, 3, 8, 8, 8]),
        np.array([10, 13, 14, 2, 3, 5]),
        {"wind": np.array([1, 4, NAN, NAN, 7, 9])},
        fill=fill,
    )
    np.testing.assert_array_equal(grid.series, [3, 3, 3, 3, 3, 8, 8, 8, 8])
    np.testing.assert_array_equal(grid.steps, [10, 11, 12, 13, 14, 2, 3, 4, 5])
    np.testing.assert_allclose(grid.columns["wind"], expected)
    np.testing.assert_array_equal(grid.was_empty["wind"], [0, 1, 1, 0, 1, 1, 0, 1, 0])


def test_a_column_of_gaps_stays_one():
    grid = resample(
        np.array([0, 0]), np.array([0, 2]), {"wind": np.array([NAN, NAN])}, fill="linear"
    )
    assert np.isnan(grid.columns["wind"]).all()
