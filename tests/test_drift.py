"""Distances and their p-values: against brute force, and in worlds where nothing changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from distill.production.monitoring import drift
from distill.production.monitoring.drift import (
    by_classifier,
    discoveries,
    kolmogorov_smirnov,
    of_counts,
    of_points,
    population_stability,
)


def test_population_stability_is_the_textbooks():
    reference, now = np.array([50, 30, 20]), np.array([30, 30, 40])
    expected = (0.3 - 0.5) * np.log(0.3 / 0.5) + (0.4 - 0.2) * np.log(0.4 / 0.2)
    assert population_stability(reference, now) == pytest.approx(expected)
    assert np.isfinite(population_stability(np.array([5, 0]), np.array([0, 5])))


def test_kolmogorov_smirnov_is_scipys_on_bins(rng):
    first, second = rng.integers(0, 8, 200), rng.integers(0, 6, 300)
    counts = [np.bincount(values, minlength=8) for values in (first, second)]
    assert kolmogorov_smirnov(*counts) == pytest.approx(stats.ks_2samp(first, second).statistic)


@pytest.mark.parametrize("statistic", ["psi", "ks"])
def test_shuffled_counts_give_the_p_value_of_shuffled_rows(rng, statistic):
    first, second = rng.integers(0, 6, 60), np.minimum(rng.integers(0, 7, 50), 5)
    counts = [np.bincount(values, minlength=6) for values in (first, second)]
    found = of_counts("x", *counts, statistic=statistic, rng=rng, num_shuffles=20_000)
    pooled, by_luck = np.concatenate([first, second]), []
    for _ in range(4000):
        rng.shuffle(pooled)
        sides = [np.bincount(pooled[part], minlength=6) for part in (slice(60), slice(60, None))]
        by_luck.append(float(drift.DISTANCES[statistic](*sides)))
    expected = np.mean(np.array(by_luck) >= found.distance - 1e-12)
    assert found.p_value == pytest.approx(expected, abs=0.025)


def cloud(rng, count, *, shift=0.0, dimensions=4):
    return rng.normal(size=(count, dimensions)) + np.eye(dimensions)[0] * shift


def embedding(rng, count, *, dimensions=64):
    """Features behind a ReLU: more of them than rows, half of the values 0, all hang together."""
    mixing = np.random.default_rng(1).normal(size=(8, dimensions))
    return np.maximum(rng.normal(size=(count, 8)) @ mixing, 0)


@pytest.mark.parametrize("draw", [cloud, embedding])
@pytest.mark.parametrize("test", [of_points, by_classifier])
def test_in_an_unchanged_world_p_values_are_as_likely_as_they_say(rng, test, draw):
    found = [
        test("x", draw(rng, 30), draw(rng, 40), rng=rng, num_shuffles=99).p_value
        for _ in range(300)
    ]
    for level in (0.05, 0.2, 0.5):
        share = np.mean(np.array(found) <= level)
        assert share <= level + 3 * np.sqrt(level * (1 - level) / 300)
    assert np.mean(np.array(found) <= 0.5) > 0.35  # and are no excuse to see nothing


@pytest.mark.parametrize("test", [of_points, by_classifier])
def test_a_world_that_has_moved_is_told(rng, test):
    found = test("x", cloud(rng, 200), cloud(rng, 200, shift=1.0), rng=rng)
    assert found.p_value == pytest.approx(1 / 1000)


def test_mmd_is_the_unbiased_estimate_by_loops(rng):
    first, second = cloud(rng, 6), cloud(rng, 5, shift=2.0)
    found = of_points("x", first, second, rng=rng, num_shuffles=1).distance
    both = np.concatenate([first, second])
    pairs = [((a - b) ** 2).sum() for i, a in enumerate(both) for b in both[:i]]
    width = np.median(pairs)

    def mean(one, other, same):
        values = [
            np.exp(-((a - b) ** 2).sum() / width)
            for i, a in enumerate(one)
            for j, b in enumerate(other)
            if not (same and i == j)
        ]
        return np.mean(values)

    expected = mean(first, first, True) + mean(second, second, True)
    assert found == pytest.approx(expected - 2 * mean(first, second, False))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.data())
def test_the_area_is_sklearns_ties_included(scores, data):
    side = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    if len(set(side)) < 2:
        return
    found = drift._areas(np.array([scores], float), np.array([side], float))
    assert found[0] == pytest.approx(roc_auc_score(side, scores))


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=12), st.floats(0.01, 0.5))
def test_discoveries_are_those_of_scipys_adjusted_p_values(p_values, rate):
    found = discoveries(p_values, rate)
    if not p_values:
        assert found == set()
        return
    adjusted = stats.false_discovery_control(list(p_values.values()))
    sure = {n for n, p in zip(p_values, adjusted, strict=True) if p < rate - 1e-9}
    possible = {n for n, p in zip(p_values, adjusted, strict=True) if p <= rate + 1e-9}
    assert sure <= found <= possible


def test_a_hundred_rows_in_ten_bins_pass_the_customary_limit_in_two_of_five_unchanged_worlds(rng):
    reference = np.full(10, 100_000)
    found = population_stability(reference, rng.multinomial(100, np.full(10, 0.1), 4000))
    assert (found > 0.1).mean() == pytest.approx(0.4, abs=0.03)
