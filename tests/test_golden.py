"""Claims about golden samples: the same answers in whatever unit the labels are."""

from pathlib import Path

import numpy as np
import pytest

from distill.contract import check_golden
from distill.errors import UserError


@pytest.mark.parametrize("unit", [1e-6, 1.0, 3e5])
def test_answers_are_held_in_units_of_their_own_spread(rng, unit):
    expected = (unit * rng.normal(5, 1, (16, 2))).astype(np.float32)
    step = np.nextafter(expected, np.float32(np.inf))  # another processor's last bit
    assert check_golden(step, expected, Path("m.onnx")) == 0
    spread = np.ptp(expected, axis=0)
    moved = expected + np.array([0, 5e-5]) * spread
    assert check_golden(moved, expected, Path("m.onnx")) == pytest.approx(5e-5, rel=0.05)
    with pytest.raises(UserError, match=r"within 0.0001 of each output's spread but one differs"):
        check_golden(expected + np.array([0, 5e-4]) * spread, expected, Path("m.onnx"))


def test_a_large_number_does_not_hide_a_small_one(rng):
    expected = rng.normal(size=(16, 2)) * [3e5, 1.0]
    with pytest.raises(UserError):
        check_golden(expected + np.array([0, 0.1]), expected, Path("m.onnx"))


def test_a_single_sample_and_an_output_that_never_moves_are_held_by_their_size():
    for expected in (np.full((1, 2), 40.0), np.full((8, 1), 40.0), np.zeros((8, 1))):
        assert check_golden(expected, expected, Path("m.onnx")) == 0
        with pytest.raises(UserError):
            check_golden(expected + 0.1, expected, Path("m.onnx"))
