from statistics import NormalDist

import numpy as np
import pytest

from distill.errors import UsageError
from distill.production.experiment.plan import Question, plan

QUESTION = Question(baseline=0.90, difference=0.02)


@pytest.fixture(scope="module")
def needs():
    return {need.method: need for need in plan(QUESTION)}


def test_one_look_needs_what_the_textbook_says(needs):
    z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    units = 2 * z**2 * (0.9 * 0.1 + 0.92 * 0.08) / 0.02**2
    assert needs["one look"].units == pytest.approx(units, abs=1)


def test_five_planned_looks_need_a_little_more(needs):
    # Jennison & Turnbull (2000), table 2.4: 1.028 for five looks at 80 % power, O'Brien & Fleming.
    ratio = needs["five planned looks"].units / needs["one look"].units
    assert ratio == pytest.approx(1.028, abs=0.012)


def test_pairs_need_a_fraction_of_what_arms_do(needs):
    pairs, arms = needs["pairs of a shadow"], needs["confidence sequence of two arms"]
    assert 5 * pairs.units < arms.units
    assert pairs.median_units < pairs.units


def test_days_are_units_over_traffic_and_the_most_frugal_comes_first():
    found = plan(Question(baseline=0.9, difference=0.02, units_per_day=500))
    assert [need.units for need in found] == sorted(need.units for need in found)
    assert all(need.days == pytest.approx(need.units / 500) for need in found)


@pytest.mark.slow
def test_a_smaller_difference_needs_more():
    small, large = (plan(Question(baseline=0.9, difference=d)) for d in (0.01, 0.03))
    for method in ("one look", "pairs of a shadow", "confidence sequence of two arms"):
        one, other = (next(n for n in found if n.method == method) for found in (small, large))
        assert one.units > 3 * other.units


@pytest.mark.slow
def test_a_worse_challenger_is_told_as_a_better_one_is():
    worse = {n.method: n for n in plan(Question(baseline=0.92, difference=-0.02))}
    better = {n.method: n for n in plan(QUESTION)}
    assert worse["one look"].units == better["one look"].units
    ratio = worse["pairs of a shadow"].units / better["pairs of a shadow"].units
    assert ratio == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    "values",
    [
        {"baseline": 1.2},
        {"difference": 0.0},
        {"difference": 0.2},
        {"power": 1.0},
        {"agreement": 0.5},
        {"share": 0.0},
    ],
)
def test_what_cannot_be_is_refused(values):
    with pytest.raises(UsageError, match="Expected"):
        Question(**{"baseline": 0.9, "difference": 0.02, **values})


@pytest.mark.slow
def test_plans_are_the_same_again():
    assert plan(QUESTION) == plan(QUESTION)
    assert np.isfinite([need.units for need in plan(QUESTION)]).all()
