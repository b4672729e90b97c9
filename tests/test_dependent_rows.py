"""Claims about rows that depend on each other: together they tell as much as one of them does."""

import dataclasses

import numpy as np
import pytest
from scored import EVERY

from distill.statistics.scoring import Truth


@pytest.mark.parametrize("name", EVERY)
def test_rows_that_are_there_three_times_over_tell_no_more_than_once(name, rng):
    scoring, make = EVERY[name]
    first, second, truth = make(rng)
    once = dataclasses.replace(truth, blocks=np.arange(len(first)))
    rows = np.repeat(np.arange(len(first)), 3)
    thrice = once.take(rows)
    expected = scoring.score(first, once, confidence=0.95)
    found = scoring.score(first[rows], thrice, confidence=0.95)
    for figure in expected:
        assert found[figure].interval == pytest.approx(expected[figure].interval)
    agreements = [
        scoring.agreement(*pair, blocks=own.blocks, confidence=0.95).interval
        for pair, own in (((first, second), once), ((first[rows], second[rows]), thrice))
    ]
    assert agreements[1] == pytest.approx(agreements[0])


@pytest.mark.parametrize("name", EVERY)
def test_rows_that_repeat_each_other_tell_no_more_than_one_of_them(name, rng):
    scoring, make = EVERY[name]
    first, second, truth = make(rng)
    marks = [scoring.marks(answers, truth) for answers in (first, second)]
    once = np.arange(len(truth.labels))
    alone = scoring.compare(*marks, blocks=once, confidence=0.95)
    five = [np.repeat(own, 5, axis=0) for own in marks]
    together = scoring.compare(*five, blocks=np.repeat(once, 5), confidence=0.95)
    careless = scoring.compare(*five, blocks=None, confidence=0.95)
    width, wide, narrow = (np.ptp(c.interval) for c in (alone, together, careless))
    assert together.estimate == pytest.approx(alone.estimate)
    assert wide == pytest.approx(width, rel=0.1)
    assert narrow < 0.6 * width


@pytest.mark.parametrize("name", EVERY)
def test_a_single_stretch_of_rows_tells_nothing_of_others(name, rng):
    scoring, make = EVERY[name]
    first, second, truth = make(rng)
    alone = Truth(labels=truth.labels, blocks=np.zeros(len(first)), naive_error=truth.naive_error)
    for figure in scoring.score(first, alone, confidence=0.95).values():
        assert np.isfinite(figure.estimate)
        assert figure.interval == (-np.inf, np.inf)
    marks = (scoring.marks(answers, alone) for answers in (first, second))
    low, high = scoring.compare(*marks, blocks=alone.blocks, confidence=0.95).interval
    assert (low, high) == ((-np.inf, 1) if scoring.is_error else (-1, 1))
