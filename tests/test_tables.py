"""Claims about tables as data: what a model takes, which rows learn, the way to a file."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
from commands import BRIEF, run_cli

from distill.errors import UsageError, UserError
from distill.files import read_json
from distill.runtime import OnnxModel
from distill.tasks import TaskKind
from distill.training.data.loading import BatchDataModule
from distill.training.data.tables import sklearn_table, table

NUMBERS = ("data.name=diabetes",)
TINY = (
    "experiment=table_ensemble",
    "data=table",
    "data.path=churn.csv",
    "data.label=churned",
    "trainer.max_epochs=5",
    "teacher.estimator.n_estimators=10",
    "teacher.estimator.n_jobs=1",
    "teacher.folds=2",
    *BRIEF,
    "preflight=false",
    "quantize=none",
)


def churn(path, n=400, *, seed=0, towns=("Ulm", "Köln", "Bonn")):
    rng = np.random.default_rng(seed)
    age, calls = rng.normal(40, 12, n), rng.poisson(2, n)
    town = rng.choice([*towns, ""], n)
    leaves = 0.05 * (age - 40) + (calls - 2) + (town == "Ulm") + rng.normal(0, 1, n) > 0.5
    lines = ["customer,since,age,calls,town,gone_on,street,churned"]
    for i in range(n):
        day = f"20{10 + i % 10}-0{1 + i % 9}-15"
        years = "" if i % 11 == 0 else f"{age[i]:.1f}"
        gone = day if leaves[i] else ""
        label = "yes" if leaves[i] else "no"
        lines.append(f"{i // 4},{day},{years},{calls[i]},{town[i]},{gone},street {i},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def read(path, **choice):
    return table(path=str(path), label="churned", **choice)


def test_a_table_has_its_columns_label_and_leaks_named(tmp_path, caplog):
    data = read(churn(tmp_path / "churn.csv"))
    assert data.task.kind is TaskKind.CLASSIFICATION
    assert data.classes == ("no", "yes")
    assert [c.name for c in data.encoder.takes] == [
        "customer",
        "since",
        "age",
        "calls",
        "town",
        "gone_on",
    ]
    assert "name rows" in data.left_out["street"]
    assert [(leak.name, leak.column) for leak in data.leaks] == [
        ("near_perfect_predictor", "gone_on")
    ]
    assert "data.unavailable" in data.warnings[0]
    whole = np.concatenate([part.indices for part in (data.train, data.validation, data.test)])
    assert sorted(whole) == list(range(400))
    assert data.train.inputs.shape == (len(data.train), data.encoder.layout.num_features)
    np.testing.assert_array_equal(data.test.inputs, data.encoder(data.test.records))


def test_what_is_declared_unavailable_is_no_input_and_refused_where_it_is_asked_for(tmp_path):
    path = churn(tmp_path / "churn.csv")
    data = read(path, unavailable=["gone_on"])
    assert "gone_on" not in [c.name for c in data.encoder.takes]
    assert data.leaks == ()
    assert data.left_out["gone_on"] == "declared unavailable"
    with pytest.raises(UsageError, match=r"`gone_on` of `data.columns` is in `data.unavailable`"):
        read(path, unavailable=["gone_on"], columns=["age", "gone_on"])
    with pytest.raises(UsageError, match=r"`churned` of `data.columns` is the label"):
        read(path, columns=["age", "churned"])
    with pytest.raises(UserError, match=r"`street` does not.*name rows"):
        read(path, columns=["age", "street"])


def test_rows_of_a_group_stay_together(tmp_path):
    data = read(churn(tmp_path / "churn.csv"), group="customer")
    assert "customer" not in [c.name for c in data.encoder.takes]
    parts = [set(part.indices // 4) for part in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert 0.15 < len(data.test) / 400 < 0.25


def test_by_time_the_latest_rows_are_the_test_set(tmp_path):
    path = churn(tmp_path / "churn.csv")
    data = read(path, time="since")
    days = pa_csv.read_csv(path)["since"].to_numpy()
    train, validation, test = (days[p.indices] for p in (data.train, data.validation, data.test))
    assert train.max() < validation.min()
    assert validation.max() < test.min()
    assert "since" not in [c.name for c in data.encoder.takes]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array([0.0, 1.0, float("nan"), 1.0] * 25), "has 25 gaps, the first in row 2"),
        (pa.array([0, 1, 2, 3] * 25, pa.date32()), r"classes or numbers but .* type date32"),
        (pa.array([[0], [1]] * 50), "type list"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, labels, message):
    path = tmp_path / "own.parquet"
    pq.write_table(pa.table({"age": np.arange(100.0), "churned": labels}), path)
    with pytest.raises(UserError, match=message):
        read(path)


def test_groups_are_told_apart_as_they_are_written(tmp_path):
    names = ["007", "7", "8", "9", "10"]
    rows = "".join(f"{name},{i},{'no' if i % 3 else 'yes'}\n" for i in range(40) for name in names)
    (tmp_path / "a.csv").write_text(f"own,x,label\n{rows}")
    data = table(path=str(tmp_path / "a.csv"), label="label", group="own", test_fraction=0.2)
    groups = [len(np.unique(part.blocks)) for part in (data.train, data.validation, data.test)]
    assert sum(groups) == len(names)
    assert {len(part.labels) % 40 for part in (data.train, data.validation, data.test)} == {0}


def test_groups_that_time_puts_into_two_splits_are_told(tmp_path):
    path = churn(tmp_path / "churn.csv")
    data = read(path, time="since", group="customer")
    trained, *others = (set(part.indices // 4) for part in (data.train, data.test, data.validation))
    said = [
        f"{len(own & trained)} of the {len(own)} groups in the {name} set"
        for own, name in zip(others, ("test", "validation"), strict=True)
    ]
    assert trained & others[0]
    assert trained & others[1]
    assert f"{', and '.join(said)} are trained on, too" in data.remarks[0]
    assert read(path, group="customer").remarks == ()
    named = {"columns": ["age"], "time": "since"}
    prints = {read(path, **named, group=own).fingerprint for own in (None, "customer")}
    assert len(prints) == 2  # intervals are others


@pytest.mark.parametrize(
    ("choice", "values", "message"),
    [
        ("time", ["2024-01-01", ""], r"a date in every row of `own` \(`data\.time`\) but 200 have"),
        ("group", ["Ulm", ""], r"a group in every row of `own` \(`data\.group`\) but 200 have"),
        ("group", ["7", ""], r"a group in every row .* the first in row 1\. .*or leave those"),
    ],
)
def test_rows_without_a_date_or_a_group_are_refused(tmp_path, choice, values, message):
    lines = churn(tmp_path / "churn.csv").read_text().splitlines()
    own = ["own", *(values * 200)]
    whole = "\n".join(f"{line},{more}" for line, more in zip(lines, own, strict=True))
    (tmp_path / "gaps.csv").write_text(whole + "\n")
    with pytest.raises(UserError, match=message):
        read(tmp_path / "gaps.csv", **{choice: "own"})


def test_a_group_of_no_text_or_no_number_is_none(tmp_path):
    table = pa_csv.read_csv(churn(tmp_path / "churn.csv"))
    for values in (["a", ""], [0.5, float("nan")]):
        pq.write_table(table.append_column("own", [values * 200]), tmp_path / "gaps.parquet")
        with pytest.raises(UserError, match="200 have none, the first in row 1"):
            read(tmp_path / "gaps.parquet", group="own")


def test_a_test_set_of_its_own_and_another_seed_leave_the_test_set_as_it_is(tmp_path):
    first, second = churn(tmp_path / "a.csv"), churn(tmp_path / "b.csv", 100, seed=1)
    data = read(first, test_path=str(second))
    assert len(data.test) == 100
    drawn = [read(first, seed=seed, max_categories=20 - seed) for seed in (0, 1)]
    assert drawn[0].test_fingerprint == drawn[1].test_fingerprint
    assert drawn[0].fingerprint != drawn[1].fingerprint
    assert set(drawn[0].test.indices) == set(drawn[1].test.indices)
    assert read(first, max_categories=2).fingerprint != read(first).fingerprint
    assert read(first, max_categories=2).test_fingerprint == read(first).test_fingerprint


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["a"] * 20, {}, "is 'a' in all 20 rows"),
        (["1", "x"] * 10, {}, "one type.*numbers \\('1'\\) and words \\('x'\\)"),
        (["a", "b", "", "a"] * 5, {}, "5 gaps, the first in row 2"),
        (["0.5", "1.5"] * 10, {"task": "classification"}, "fractions, such as 0.5"),
        (["a", "b"] * 10, {"label": "z"}, "`z` \\(the label, `data.label`\\).*Known: x, y"),
        (["1", "2"] * 10, {"task": "multi_label", "label": ["y"]}, "has 2 in row 1"),
        (["a", "b"] * 10, {"label": ["x", "y"], "task": "classification"}, "one label of a"),
    ],
)
def test_a_bad_label_is_one_message(tmp_path, labels, options, message):
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "".join(f"{i % 7},{label}\n" for i, label in enumerate(labels)))
    with pytest.raises(UserError, match=message):
        table(path=str(path), **{"label": "y"} | options)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"label": ["y", "z"]}, "`z` .* row 0 has 'no'.*Write yes and no as 1 and 0"),
        ({"label": ["z"], "task": "multi_label"}, "Write yes and no as 1 and 0"),
        ({"label": "z", "task": "regression"}, "classes: `data.task=classification`"),
        ({"label": "z", "kinds": {"z": "number"}}, "`z` is the label.*`data.task`"),
        ({"label": "z", "group": "y", "kinds": {"y": "category"}}, "`y` is `data.group`"),
        ({"label": "z", "columns": ["x"], "kinds": {"y": "category"}}, "`y` is no input, by"),
    ],
)
def test_advice_about_a_label_or_what_is_no_input_can_be_followed(tmp_path, options, advice):
    path = tmp_path / "t.csv"
    rows = (f"{i % 7},{i % 2},{('no', 'yes')[i % 2]}\n" for i in range(60))
    path.write_text("x,y,z\n" + "".join(rows))
    with pytest.raises(UserError, match=advice) as refused:
        table(path=str(path), **options)
    assert "+data.kinds" not in str(refused.value)


def test_labels_that_mix_numbers_and_words_are_classes_where_one_says_so(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + "".join(f"{i % 7},{('1', '2', '3+')[i % 3]}\n" for i in range(60)))
    assert table(path=str(path), label="y", task="classification").classes == ("1", "2", "3+")


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "iris", "digits"])
def test_the_tables_of_scikit_learn_have_their_classes_by_name(name):
    from sklearn import datasets

    data = sklearn_table(name=name)
    source = getattr(datasets, f"load_{name}")()
    assert set(data.classes) == set(map(str, source.target_names))
    chosen = [data.classes[label] for label in data.test.labels]
    assert chosen == [str(source.target_names[source.target[i]]) for i in data.test.indices]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pipeline", "student=tiny_cnn"], "`PlainCNN` to take rows of 30 features.*student=mlp"),
        (["train", *NUMBERS, "loss=kd"], "losses for regression but `loss.ce`.*`loss=regression`"),
        (["train", *NUMBERS, "soft_labels.top_k=1"], "`soft_labels.top_k=null` for numbers"),
        (["train", "loss=regression"], "losses for classification but `loss.label`.*`loss=kd`"),
        (["baseline", *NUMBERS, "baselines=[majority_class]"], "for regression.*baselines=by_task"),
        (["pipeline", "origins=2"], "Expected a series to backtest but breast_cancer has rows"),
        (["pipeline", "origins=few"], "`origins` to be a number of moments"),
        (["search", *NUMBERS], "Expected classes to search.*diabetes asks for numbers"),
        (["train", *NUMBERS, "budget.accuracy.metric=accuracy"], "one of rmse, mae, mase"),
        (["train", *NUMBERS, "budget.accuracy.metric=mase"], "series that move.*rmse or mae"),
        (
            ["train", *NUMBERS, "budget.accuracy.min=0.9"],
            "`budget.accuracy.max` as the limit of rmse",
        ),
        (["train", "budget.accuracy.metric=rmse"], "of classification to be one of accuracy"),
        (["train", "budget.accuracy.max=3"], "`budget.accuracy.min` as the limit of accuracy"),
        (["pipeline", "data.name=moons"], "scikit-learn but got moons"),
        (["baseline", "annotate", "n=10"], "images for this but breast_cancer has rows"),
        (["baseline", "baselines=[lookup_table]"], "rows of a table. Give the baseline"),
    ],
)
def test_what_tables_cannot_do_is_one_message(cli, arguments, message):
    verb, *rest = arguments
    action = rest[:1] if rest[0] == "annotate" else []
    ran = cli(verb, *action, "experiment=table_ensemble", *rest[len(action) :])
    assert ran.code in (1, 2)
    assert re.search(message, ran.stderr)
    assert "Traceback" not in ran.stderr


def test_balanced_weights_show_every_class_as_often(tmp_path):
    rows = pd.DataFrame({"x": np.arange(400.0), "rare": np.arange(400) % 8 == 0})
    rows.to_csv(tmp_path / "rare.csv", index=False)
    data = table(path=str(tmp_path / "rare.csv"), label="rare", class_weights="balanced")
    shown = BatchDataModule(data, batch_size=32).train_dataloader()
    labels = np.concatenate([batch["label"].numpy() for batch in shown])
    assert len(labels) == len(data.train)
    assert labels.mean() == pytest.approx(0.5, abs=0.02)
    assert data.train.labels.mean() == pytest.approx(1 / 8, abs=0.01)
    plain = table(path=str(tmp_path / "rare.csv"), label="rare")
    assert data.fingerprint != plain.fingerprint


@pytest.mark.parametrize(
    "weights", ["even", {"true": 2}, {"true": 0, "false": 1}, {"true": "a", "false": "b"}]
)
def test_weights_that_are_none_are_one_message(tmp_path, weights):
    churn(tmp_path / "churn.csv")
    with pytest.raises(UsageError, match="balanced, or a number above 0 for each of"):
        table(path=str(tmp_path / "churn.csv"), label="churned", class_weights=weights)


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    churn(folder / "churn.csv")
    done = run_cli("pipeline", "run_dir=run", *TINY, cwd=folder)
    assert done.code in (0, 3, 4), done.stderr
    return folder, done


@pytest.mark.slow
def test_the_exported_file_takes_raw_columns_by_name_and_answers_as_the_python_pipeline(ran):
    from distill.training.data.tables import table
    from distill.training.fit import load_weights
    from distill.training.table_models import MLP, TableModel

    folder, _ = ran
    data = table(path=str(folder / "churn.csv"), label="churned")
    content = load_weights(folder / "run/train/student/best.pt")
    network = TableModel(MLP(2, data.encoder.layout, widths=(128, 64), dropout=0.2))
    network.load_state_dict(content["state_dict"])
    model = OnnxModel(folder / "run/export/model.onnx")
    assert set(model.columns) == {c.name for c in data.encoder.takes}
    for part in (data.train, data.validation, data.test):
        with torch.no_grad():
            expected = network.eval()(torch.from_numpy(part.inputs)) / content["temperature"]
        np.testing.assert_allclose(model.predict(part.records), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_report_names_the_leak_and_the_columns_left_out(ran):
    folder, done = ran
    (warning,) = done.document["warnings"]
    assert "`gone_on` alone tells" in warning
    report = (folder / "run/report.html").read_text()
    assert "Near perfect predictor" in report
    assert "name rows" in report
    statistics = read_json(folder / "run/reference.json")["inputs"]["columns"]
    assert statistics["age"]["gaps"] == pytest.approx(1 / 11, abs=0.05)


@pytest.mark.slow
def test_new_rows_are_predicted_and_unseen_values_counted(ran):
    folder, _ = ran
    churn(folder / "new.csv", 50, seed=3, towns=("Ulm", "Rom"))
    artefact = "artefact=run/export/model.onnx"
    done = run_cli("predict", artefact, "input=new.csv", "output=said.parquet", cwd=folder)
    assert done.code == 0, done.stderr
    towns = pa_csv.read_csv(folder / "new.csv")["town"].to_pylist()
    assert done.document["num_unseen"] == {"town": towns.count("Rom")}
    assert "value that training has not seen" in done.stderr
    said = pq.read_table(folder / "said.parquet")
    assert said["index"].to_pylist() == list(range(50))
    assert set(said["label"].to_pylist()) <= {"no", "yes"}
    own = (artefact, "input=new.csv", "output=said.csv")
    assert run_cli("predict", *own, "keep=[customer,town]", cwd=folder).code == 0
    beside = pa_csv.read_csv(folder / "said.csv")
    assert beside.column_names[:4] == ["index", "customer", "town", "label"]
    assert beside["customer"].equals(pa_csv.read_csv(folder / "new.csv")["customer"])
    done = run_cli("predict", *own, "keep=custmer", cwd=folder)
    assert (done.code, "Did you mean `customer`" in done.stderr) == (2, True), done.stderr
    (folder / "narrow.csv").write_text("age,calls\n1,2\n")
    done = run_cli("predict", artefact, "input=narrow.csv", cwd=folder)
    assert done.code == 1
    assert "Expected the column `customer`" in done.stderr


@pytest.mark.slow
def test_a_training_sample_is_answered_by_a_copy_that_has_not_seen_it(ran):
    folder, _ = ran
    kept = sorted(p.name for p in (folder / "run/train/teacher").glob("*.skops"))
    assert len(kept) == 3
    assert sum("_without_" in name for name in kept) == 2


@pytest.mark.slow
def test_an_exported_file_is_a_teacher_and_an_incumbent_of_tables(ran):
    folder, first = ran
    onnx = folder / "run/export/model.onnx"
    more = ("teacher=onnx", f"teacher.path={onnx}", f"against={onnx}")
    tiny = [a for a in TINY if not a.startswith("teacher.")]
    done = run_cli("pipeline", "run_dir=again", *tiny, *more, cwd=folder)
    assert done.code in (0, 3, 4), done.stderr
    models = done.document["models"]
    expected = first.document["models"]["student"]["accuracy"]
    assert models["incumbent"]["accuracy"] == models["teacher"]["accuracy"] == expected
    assert models["incumbent"]["p95_latency_ms"] > 0


@pytest.mark.slow
def test_a_network_of_its_own_can_teach_a_table(ran):
    folder, _ = ran
    more = ("teacher=mlp", "teacher_training.trainer.max_epochs=2")
    tiny = [a for a in TINY if not a.startswith("teacher.")]
    done = run_cli("train", "run_dir=network", *tiny, *more, cwd=folder)
    assert done.code == 0, done.stderr
    assert done.document["teacher"]["num_parameters"] > 60_000
