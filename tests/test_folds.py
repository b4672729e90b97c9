"""Claims about folds: what is answered together, and what may be learnt from then."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from series_rows import frame, made

from distill.errors import UsageError
from distill.training.data.folds import draw_folds, rows_without
from distill.training.data.splits import Split
from distill.training.data.tables import Choice, from_table


def split(labels, **more):
    labels = np.asarray(labels)
    return Split(inputs=None, labels=labels, indices=np.arange(len(labels)), **more)


def test_folds_are_even_in_every_class_and_the_same_again():
    rows = split(np.repeat([0, 1, 2], [50, 30, 20]))
    folds = draw_folds(rows, 5)
    np.testing.assert_array_equal(folds, draw_folds(rows, 5))
    for label, count in enumerate((10, 6, 4)):
        assert np.bincount(folds[rows.labels == label]).tolist() == [count] * 5
    numbers = split(np.random.default_rng(0).normal(size=(40, 1)))
    assert np.bincount(draw_folds(numbers, 4)).tolist() == [10] * 4
    assert rows_without(rows, folds, 2).tolist() == np.flatnonzero(folds != 2).tolist()


@pytest.mark.parametrize("count", [1, 101])
def test_a_number_of_folds_that_cannot_be_is_refused(count):
    with pytest.raises(UsageError, match=r"`teacher.folds` to be 0 for none, or from 2 to the 100"):
        draw_folds(split(np.zeros(100, np.int64)), count)


@pytest.mark.parametrize("are_classes", [True, False])
def test_a_group_is_in_one_fold_and_folds_are_of_nearly_one_size(are_classes, rng):
    groups = rng.choice([f"customer {n}" for n in range(60)], 600, p=rng.dirichlet(np.ones(60)))
    labels = rng.integers(0, 2, 600) if are_classes else rng.normal(size=(600, 2))
    folds = draw_folds(split(labels, blocks=groups), 4)
    by_group = pd.Series(folds).groupby(groups).nunique()
    assert (by_group == 1).all()
    largest = pd.Series(groups).value_counts().max()
    assert np.ptp(np.bincount(folds)) <= largest
    assert not np.array_equal(folds, draw_folds(split(labels, blocks=groups), 4, seed=1))


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(UsageError, match=r"groups \(`data.group`\) .* fill 3 folds .* fill 2"):
        draw_folds(split(np.arange(20) % 2, blocks=np.repeat(["a", "b"], 10)), 3)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_fold_of_windows_is_a_stretch_of_time_and_no_label_of_it_is_learnt(stride):
    data = made(frame(300), horizon=7, stride=stride)
    folds = draw_folds(data.train, 5)
    moments = data.pool.label_times(data.train.indices)
    assert np.ptp(np.bincount(folds)) <= 2  # there are two series
    for number in range(5):
        own, learnt = np.flatnonzero(folds == number), rows_without(data.train, folds, number)
        asked = set(moments[own].ravel().tolist())
        shares = np.array([bool(asked & set(row)) for row in moments.tolist()])
        assert not shares[learnt].any()
        left_out = np.setdiff1d(np.flatnonzero(folds != number), learnt)
        assert shares[left_out].all()
        assert len(left_out) == (2 if 0 < number < 4 else 1) * (2 * (6 // stride))
        if number:
            assert moments[own, 0].min() > moments[folds < number, 0].max()


def test_rows_of_a_table_that_is_split_by_time_are_folded_by_time_and_moments_stay_whole():
    days = np.repeat(np.datetime64("2024-01-01") + np.arange(100), 3)
    order = np.random.default_rng(0).permutation(300)
    table = pa.table({"day": days[order], "size": np.arange(300.0), "sold": np.arange(300.0) % 37})
    data = from_table(table, "x", Choice(label="sold", time="day", columns=["size"]))
    folds, when = draw_folds(data.train, 4), days[order][data.train.indices]
    spans = pd.Series(when).groupby(folds).agg(["min", "max"])
    assert (spans["min"].to_numpy()[1:] > spans["max"].to_numpy()[:-1]).all()
    assert np.ptp(np.bincount(folds)) <= 3
    assert rows_without(data.train, folds, 1).tolist() == np.flatnonzero(folds != 1).tolist()


def test_folds_in_time_that_cannot_be_are_refused():
    moments = np.repeat([[0, 0], [1, 1]], 10, axis=0)
    with pytest.raises(UsageError, match=r"moments .* fill 5 folds .* but they fill 2"):
        draw_folds(split(np.zeros(20), spans=moments), 5)
    far = np.stack([np.arange(20), np.arange(20) + 30], axis=1)
    folds = draw_folds(split(np.zeros(20), spans=far), 2)
    with pytest.raises(UsageError, match="all labels reach into one of them"):
        rows_without(split(np.zeros(20), spans=far), folds, 0)
