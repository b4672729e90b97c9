"""Claims about a pipeline that somebody fitted on a DataFrame, held against scikit-learn itself."""

import logging

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from commands import BRIEF, run_cli
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from distill.errors import UserError
from distill.files import read_json
from distill.training.data.frames import Frames
from distill.training.data.tables import table
from distill.training.soft_labels import SoftLabelStore
from distill.training.teachers.sources import sklearn_teacher

NUMBERS, TEXTS = ["age", "calls"], ["town", "zip", "active"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A table of numbers, texts, zip codes and booleans, with gaps in most of them."""
    rng, n = np.random.default_rng(0), 300
    age, calls = rng.normal(40, 12, n).round(1), rng.poisson(2, n)
    town = rng.choice(["Ulm", "Köln", "Bonn"], n)
    leaves = 0.05 * (age - 40) + (calls - 2) + (town == "Ulm") > 0.5
    rows = pd.DataFrame(
        {
            "street": [f"street {number}" for number in range(n)],  # left out: it names rows
            "age": np.where(rng.random(n) < 0.1, np.nan, age),
            "calls": calls,
            "town": np.where(rng.random(n) < 0.1, None, town),
            "zip": rng.choice([89073, 50667, 53111], n),
            "active": rng.random(n) < 0.5,
            "since": pd.date_range("2020-01-01", periods=n).strftime("%Y-%m-%d"),
            "churned": np.where(leaves, "yes", "no"),
        }
    )
    found = tmp_path_factory.mktemp("churn") / "churn.csv"
    rows.to_csv(found, index=False)
    return found


def pipeline(model, *names):
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore")
    columns = [("numbers", numbers, NUMBERS), ("texts", texts, [*TEXTS, *names])]
    return make_pipeline(ColumnTransformer(columns), model)


def read(path, label="churned", **choice):
    return table(path=str(path), label=label, kinds={"zip": "category"}, **choice)


def rows_of(path, label="churned"):
    return pd.read_csv(path, parse_dates=["since"]).drop(columns=label)


def saved(estimator, folder, path, label="churned"):
    estimator.fit(rows_of(path, label), pd.read_csv(path)[label])
    skops.io.dump(estimator, folder / "forest.skops")
    return str(folder / "forest.skops")


def ask(teacher, split):
    given = torch.from_numpy(split.inputs), torch.from_numpy(split.indices)
    return teacher(*given).logits.numpy()


FOREST = RandomForestClassifier(n_estimators=7, min_samples_leaf=3, random_state=0)


def test_it_is_given_raw_columns_and_answers_as_it_does_on_the_frame(path, tmp_path, caplog):
    caplog.set_level(logging.INFO, "distill")
    data = read(path)
    forest = pipeline(FOREST)
    file = saved(forest, tmp_path, path)
    teacher = sklearn_teacher(data, tmp_path, path=file, estimator=RandomForestClassifier())
    assert not teacher.sees_images
    for split in (data.train, data.test):
        expected = forest.predict_proba(rows_of(path).iloc[split.indices])
        np.testing.assert_allclose(
            ask(teacher, split), np.log(np.maximum(expected, 1e-12)), rtol=1e-5, atol=1e-6
        )
    assert "nobody knows" in caplog.text
    assert "does not use street" in caplog.text


def test_a_frame_is_what_pandas_reads(path):
    data = read(path)
    names = ["since", "age", "town", "zip", "active"]
    found = Frames(data, names)(data.test.indices)
    expected = rows_of(path)[names].iloc[data.test.indices].reset_index(drop=True)
    expected["town"] = expected["town"].astype(object)
    pd.testing.assert_frame_equal(found, expected.astype({"zip": float}))


def test_numbers_stay_in_their_own_units(path, tmp_path):
    rows = rows_of(path)
    rows["price"] = rows["calls"] * 100.0 + rows["age"].fillna(40)
    rows.to_csv(tmp_path / "prices.csv", index=False)
    data = read(tmp_path / "prices.csv", "price")
    model = pipeline(RandomForestRegressor(5, random_state=0))
    file = saved(model, tmp_path, tmp_path / "prices.csv", "price")
    found = data.in_units(ask(sklearn_teacher(data, tmp_path, path=file), data.test), data.test)
    expected = model.predict(rows_of(tmp_path / "prices.csv", "price").iloc[data.test.indices])
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)


def test_columns_that_the_data_lacks_are_named_with_the_reason(path, tmp_path):
    file = saved(pipeline(FOREST, "street"), tmp_path, path)
    with pytest.raises(UserError, match=r"does not have `street` \(300 different texts"):
        sklearn_teacher(read(path), tmp_path, path=file)


def test_names_of_classes_are_mapped_and_others_refused(path, tmp_path):
    data = read(path)
    rows, labels = rows_of(path), pd.read_csv(path)["churned"]
    skops.io.dump(pipeline(FOREST).fit(rows, labels.map({"no": "no", "yes": "ja"})), tmp_path / "a")
    with pytest.raises(UserError, match="lacks `yes`"):
        sklearn_teacher(data, tmp_path, path=str(tmp_path / "a"))
    skops.io.dump(pipeline(FOREST).fit(rows, labels == "yes"), tmp_path / "b")
    with pytest.raises(UserError, match="lacks `no`, `yes`"):
        sklearn_teacher(data, tmp_path, path=str(tmp_path / "b"))
    by_number = pipeline(FOREST).fit(rows, (labels == "yes").astype(int))
    skops.io.dump(by_number, tmp_path / "c")
    found = ask(sklearn_teacher(data, tmp_path, path=str(tmp_path / "c")), data.test)
    expected = by_number.predict_proba(rows.iloc[data.test.indices])
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-6)


def test_without_names_of_columns_it_is_told_what_it_is_given(path, tmp_path, caplog):
    data = read(path)
    fitted = RandomForestClassifier(3).fit(rows_of(path)[["calls"]].to_numpy(), data_labels(path))
    skops.io.dump(fitted, tmp_path / "a.skops")
    teacher = sklearn_teacher(data, tmp_path, path=str(tmp_path / "a.skops"))
    assert "given encoded rows" in caplog.text
    with pytest.raises(UserError, match=r"encoded rows of 1 values.*pandas DataFrame"):
        ask(teacher, data.test)


def data_labels(path):
    return pd.read_csv(path)["churned"]


@pytest.mark.slow
def test_a_pipeline_of_ones_own_teaches_a_table(path, tmp_path):
    forest = pipeline(FOREST)
    saved(forest, tmp_path, path)
    ran = run_cli(
        "train", "student", "experiment=table_ensemble", "data=table", f"data.path={path}",
        "data.label=churned", "+data.kinds.zip=category", "teacher=sklearn",
        "teacher.path=forest.skops", "trainer.max_epochs=1", "run_dir=run", *BRIEF,
        cwd=tmp_path,
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    data = read(path)
    expected = forest.predict_proba(rows_of(path).iloc[data.train.indices])
    logits = SoftLabelStore(tmp_path / "run/soft_labels").logits(0, data.train.indices)
    np.testing.assert_allclose(np.exp(logits), expected, atol=1e-2)
    scores = read_json(tmp_path / "run/teacher.json")["test_at_best_epoch"]
    right = forest.predict(rows_of(path).iloc[data.test.indices]) == np.take(
        data.classes, data.test.labels
    )
    assert scores["accuracy"]["estimate"] == pytest.approx(right.mean())
