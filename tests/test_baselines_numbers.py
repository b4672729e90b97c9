"""Claims about baselines of numbers, of several labels and of rows with codes."""

from importlib import import_module

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from commands import REPOSITORY
from scipy.special import logit
from series_rows import frame, made
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import NearestCentroid as SklearnCentroid

from distill.errors import UserError
from distill.tasks import TaskKind
from distill.training.baselines.heuristics import (
    LabelShares,
    LogisticRegressionOnPixels,
    NearestCentroid,
)
from distill.training.baselines.numbers import GroupMean, LinearRegression, Mean, Median
from distill.training.baselines.predictions import saved_predictions
from distill.training.data.tables import Choice, from_table


def rows(n=900, seed=0):
    """Houses, of which the town, one of 40, says most; some towns are rare."""
    rng = np.random.default_rng(seed)
    town = np.minimum(rng.geometric(0.1, n), 40)
    worth = np.random.default_rng(9).normal(0, 3, 41)
    size, garden = rng.normal(100, 20, n), rng.integers(0, 2, n).astype(bool)
    price = 0.05 * size + worth[town] + garden + rng.normal(0, 0.5, n)
    return pd.DataFrame(
        {
            "town": [f"town {t}" if t != 3 else None for t in town],
            "garden": pd.array(np.where(np.arange(n) % 9 == 0, None, garden), "boolean"),
            "size": size,
            "price": price,
            "days": rng.poisson(20 + price),
            "is_dear": (price > np.median(price)).astype(int),
            "is_sold": rng.integers(0, 2, n),
        }
    )


def data_of(table, *labels, **choice):
    columns = ["town", "garden", "size"]
    chosen = Choice(label=list(labels), columns=columns, **choice)
    return from_table(pa.Table.from_pandas(table, preserve_index=False), "houses", chosen)


@pytest.fixture(scope="module")
def houses():
    return data_of(rows(), "price", "days")


@pytest.fixture(scope="module")
def marks():
    return data_of(rows(), "is_dear", "is_sold")


def answers(baseline, data):
    fitted = baseline.fit(data.train, len(data.classes))
    return fitted.answer(data.test.records if fitted.reads_records else data.test.inputs)


def one_hot(data, split):
    """Lay encoded rows out with a figure for each town that training has seen."""
    width = len(data.encoder.layout.names)
    dummies = split.records["town"][:, None] == np.unique(data.train.records["town"])
    return np.hstack([split.inputs[:, :width].astype(np.float64), dummies])


@pytest.mark.parametrize(("baseline", "strategy"), [(Mean(), "mean"), (Median(), "median")])
def test_constants_are_scikit_learns_of_rows_and_of_windows(baseline, strategy, houses):
    for data in (houses, made(frame(200))):
        dummy = DummyRegressor(strategy=strategy).fit(data.train.inputs, data.train.labels)
        found = answers(baseline, data)
        assert found.shape == data.test.labels.shape
        np.testing.assert_allclose(found, dummy.predict(data.test.inputs), rtol=1e-5)


@pytest.mark.parametrize("columns", [["town"], ["garden"], ["town", "garden"]])
def test_a_group_mean_is_pandas_with_one_more_row_of_the_whole(columns, houses):
    names = [f"label {n}" for n in range(2)]
    train, test = (
        pd.DataFrame({name: split.records[name] for name in ("town", "garden")}).fillna(
            {"garden": -1}
        )
        for split in (houses.train, houses.test)
    )
    train[names] = houses.train.labels.astype(float)
    whole = train[names].mean()
    groups = train.groupby(columns)[names]
    means = (groups.sum() + whole).div(groups.size() + 1, axis=0)
    expected = test[columns].join(means, on=columns)[names].fillna(whole)
    np.testing.assert_allclose(answers(GroupMean(columns), houses), expected, rtol=1e-9)


def test_a_group_never_seen_is_answered_with_the_mean_of_all(houses):
    fitted = GroupMean(["town", "garden"]).fit(houses.train, 2)
    asked = houses.test.records[:3].copy()
    asked["town"][:2] = "Atlantis"
    np.testing.assert_allclose(
        fitted.answer(asked)[:2], np.tile(houses.train.labels.mean(axis=0, dtype=float), (2, 1))
    )


def test_a_group_mean_of_no_groups_is_refused(houses):
    with pytest.raises(UserError, match="`size` holds other values, such as"):
        GroupMean(["size"]).fit(houses.train, 2)
    spaced = np.array([(0.0,), (3.0,)], dtype=[("floor area", "f8")])
    with pytest.raises(UserError, match=r"""`'\+data\.kinds=\{"floor area": category\}'`"""):
        GroupMean(["floor area"])._texts(spaced)
    with pytest.raises(UserError, match=r"has no `twon`\. Did you mean `town`"):
        GroupMean(["twon"]).fit(houses.train, 2)
    with pytest.raises(UserError, match="a list of names"):
        GroupMean("town")
    with pytest.raises(UserError, match="categories or booleans"):
        GroupMean(["sold"]).fit(made(frame(200)).train, 3)


def test_linear_regression_is_a_ridge_on_a_figure_for_every_value(houses):
    assert houses.encoder.layout.cardinalities  # towns are codes
    expected = Ridge(alpha=1).fit(one_hot(houses, houses.train), houses.train.labels)
    found = answers(LinearRegression(), houses)
    scale = houses.train.labels.std(axis=0)
    error = np.abs(found - expected.predict(one_hot(houses, houses.test))) / scale
    assert error.max() < 0.01  # found by another solver
    squared = ((found - houses.test.labels) ** 2).mean(axis=0)
    assert squared[0] < 0.2 * scale[0] ** 2  # no line through the towns' numbers would


def test_linear_regression_without_codes_is_the_same_and_refuses_windows():
    few = rows()
    few["town"] = few["size"].gt(100).map({True: "large", False: "small"})
    data = data_of(few, "price")
    width = data.train.inputs.astype(float)
    expected = Ridge(alpha=1).fit(width, data.train.labels).predict(data.test.inputs.astype(float))
    np.testing.assert_allclose(
        answers(LinearRegression(), data).ravel(), expected.ravel(), rtol=1e-6
    )
    with pytest.raises(UserError, match="Use `linear_forecast`"):
        LinearRegression().fit(made(frame(200)).train, 3)


@pytest.mark.parametrize(
    ("baseline", "itself"),
    [
        (LogisticRegressionOnPixels(), LogisticRegression(max_iter=200)),
        (NearestCentroid(), SklearnCentroid()),
    ],
)
def test_codes_of_rows_are_no_quantities_to_classifiers(baseline, itself):
    data = data_of(rows(), "is_dear", task="classification")
    itself.fit(one_hot(data, data.train), data.train.labels)
    found, expected = answers(baseline, data), itself.predict(one_hot(data, data.test))
    found = found.argmax(axis=1) if found.ndim == 2 else found
    assert (found == expected).mean() > 0.99


def test_several_labels_have_a_logistic_regression_each(marks):
    itself = OneVsRestClassifier(LogisticRegression(max_iter=200))
    itself.fit(one_hot(marks, marks.train), marks.train.labels.astype(int))
    expected = itself.decision_function(one_hot(marks, marks.test))
    np.testing.assert_allclose(answers(LogisticRegressionOnPixels(), marks), expected, atol=0.02)


def test_label_shares_are_logits_of_shares_with_one_more_of_each(marks):
    labels = marks.train.labels
    shares = (labels.sum(axis=0, dtype=float) + 1) / (len(labels) + 2)
    expected = np.tile(logit(shares), (len(marks.test), 1))
    np.testing.assert_allclose(answers(LabelShares(), marks), expected, rtol=1e-6)


def test_a_label_that_is_never_there_is_answered_with_its_share(marks):
    split = marks.train.take(np.arange(len(marks.train)))
    split.labels[:, 1] = 0
    found = LogisticRegressionOnPixels().fit(split, 2).answer(marks.test.inputs)
    np.testing.assert_allclose(found[:, 1], logit(1 / (len(split) + 2)), rtol=1e-6)
    assert np.ptp(found[:, 0]) > 1


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_column_of_saved_numbers_is_read_in_its_units(suffix, tmp_path):
    data = data_of(rows(), "price")
    path = tmp_path / f"old.{suffix}"
    saved = pd.DataFrame({"index": np.arange(900)[::-1], "old": np.arange(900)[::-1] / 3})
    saved.to_csv(path, index=False) if suffix == "csv" else saved.to_parquet(path)
    found = saved_predictions(data.train, data.test, 1, path=str(path), column="old")
    np.testing.assert_allclose(found, data.test.indices[:, None] / 3)
    saved["old"] = "dear"
    saved.to_csv(path, index=False) if suffix == "csv" else saved.to_parquet(path)
    with pytest.raises(UserError, match="Expected numbers in the column `old`"):
        saved_predictions(data.train, data.test, 1, path=str(path), column="old")


def test_a_column_of_lists_is_several_numbers(houses, tmp_path):
    values = np.random.default_rng(0).normal(size=(900, 2))
    table = pa.table({"index": np.arange(900), "prediction": list(values)})
    pq.write_table(table, tmp_path / "old.parquet")
    path = str(tmp_path / "old.parquet")
    found = saved_predictions(houses.train, houses.test, 2, path=path)
    np.testing.assert_array_equal(found, values[houses.test.indices])


def test_every_configured_baseline_names_its_tasks():
    named = {}
    for path in (REPOSITORY / "conf/baselines").glob("*.yaml"):
        for name, node in yaml.safe_load(path.read_text()).items():
            if isinstance(node, dict) and "_target_" in node and "_partial_" not in node:
                module, _, cls = node["_target_"].rpartition(".")
                named[name] = getattr(import_module(module), cls)
    assert len(named) >= 16
    assert all(own.kinds <= {*TaskKind} and own.kinds for own in named.values())
