"""Claims about forecasts of an exported file: from which rows, to which, and what is left out.

The file adds the last `sold` to what `price` will be, so that pandas can say what must come out.
"""

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import BRIEF, run_cli
from onnx import TensorProto, helper, numpy_helper
from series_rows import SMALL, frame, made

from distill.contract import (
    HASH_KEY,
    Contract,
    SeriesInput,
    TableInput,
    load_contract,
    save_contract,
)
from distill.runtime import OnnxModel
from distill.tables.columns import Column, Kind
from distill.tasks import Task, TaskKind
from distill.training.data.histories import read_questions
from distill.training.data.pools import SeriesChoice

WINDOW, HORIZON = SMALL["window"], SMALL["horizon"]
LENGTHS = {"sold": WINDOW, "rain": WINDOW, "price": WINDOW + HORIZON}
OUTPUTS = tuple(f"sold[{step:+d}]" for step in range(1, HORIZON + 1))
CHOICE = {"time": "when", "value": "sold", "series": "shop", "known": ("price",)}
CHOICE |= {"observed": ("rain",), **SMALL}


def write_model(folder, **reading):
    given = {"spacing": "1h", "anchor": 0, "resample": None, "fill": "last", "date_format": None}
    nodes = [
        helper.make_node("Gather", ["sold", "now"], ["last"], axis=1),
        helper.make_node("Gather", ["price", "later"], ["ahead"], axis=1),
        helper.make_node("Add", ["last", "ahead"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["numbers"], to=TensorProto.FLOAT),
    ]
    places = {"now": [WINDOW - 1], "later": np.arange(WINDOW, WINDOW + HORIZON)}
    graph = helper.make_graph(
        nodes,
        "sum",
        [
            helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["batch", length])
            for name, length in LENGTHS.items()
        ],
        [helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["batch", HORIZON])],
        [numpy_helper.from_array(np.array(own, np.int64), name) for name, own in places.items()],
    )
    columns = (Column(name=n, kind=Kind.NUMBER, length=own) for n, own in LENGTHS.items())
    ones = (1.0,) * HORIZON
    contract = Contract(
        input=None,
        normalization=None,
        table=TableInput(columns=tuple(columns), categories={}),
        series=SeriesInput(**CHOICE, **(given | reading)),
        task=Task(kind=TaskKind.REGRESSION, outputs=OUTPUTS, mean=ones, scale=ones),
        output="numbers",
        classes=OUTPUTS,
        provenance={},
        golden_sha256="none",
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(exist_ok=True)
    save_contract(contract, folder)
    helper.set_model_props(model, {HASH_KEY: load_contract(folder).sha256})
    onnx.save(model, folder / "model.onnx")


@pytest.fixture
def predict(cli, tmp_path):
    write_model(tmp_path / "export")

    def call(rows, *arguments):
        rows.to_csv(tmp_path / "rows.csv", index=False)
        artefact = "artefact=export/model.onnx"
        ran = cli("predict", artefact, "input=rows.csv", "output=said.parquet", *arguments)
        assert "Traceback" not in ran.stderr
        return ran, pq.read_table("said.parquet").to_pandas() if ran.code == 0 else None

    return call


def blanked(rows, count=HORIZON):
    """Rows of which the last ones of each series are yet to come."""
    rows = rows.copy()
    late = rows.groupby("shop").cumcount(ascending=False) < count
    rows.loc[late, ["sold", "rain"]] = np.nan
    return rows


def expected_of(rows):
    """What the file must say after each row, NaN where it cannot."""
    prices = rows.groupby("shop").price
    ahead = pd.concat([prices.shift(-step) for step in (1, 2, 3)], axis=1)
    return ahead.add(rows.sold, axis=0).to_numpy()


def test_each_series_is_forecast_from_its_last_value_with_what_is_known_ahead(predict):
    rows = blanked(frame())
    ran, said = predict(rows.sample(frac=1, random_state=0))
    assert ran.code == 0, ran.stderr
    last = rows[rows.sold.notna()].groupby("shop").tail(1)
    assert list(said.columns) == [
        "series", "origin", *(f"predicted {name}" for name in OUTPUTS), "prediction",
    ]  # fmt: skip
    assert said.series.tolist() == ["a", "b"]
    assert (said.origin == last.when.to_numpy()).all()
    found = np.stack(said.prediction)
    np.testing.assert_allclose(found, expected_of(rows)[last.index], rtol=1e-6)
    np.testing.assert_array_equal(found, said.iloc[:, 2:5])
    assert (ran.document["num_predictions"], ran.document["num_skipped"]) == (2, 0)
    assert "forecast: 2 of 2 series, 2 origins, 2024-01-03T08:00:00" in ran.stderr


def test_every_origin_that_has_a_window_behind_it_is_forecast_where_that_is_asked(predict):
    rows = blanked(frame(names=("a", "b", "c")))
    ran, said = predict(rows, "origins=all")
    assert ran.code == 0, ran.stderr
    there = rows.groupby("shop").cumcount() >= WINDOW - 1
    asked = rows[there & rows.sold.notna()]
    assert said.series.tolist() == asked.shop.tolist()
    assert (said.origin == asked.when.to_numpy()).all()
    np.testing.assert_allclose(np.stack(said.prediction), expected_of(rows)[asked.index], rtol=1e-6)
    assert predict(rows, "origins=some")[0].code == 2


def test_series_that_cannot_be_forecast_are_left_out_and_it_is_said_why(predict):
    rows = blanked(frame(names=("a", "b", "c", "d")))
    rows = rows.drop(index=[118, 119])  # two of the three rows ahead of b
    short = rows[rows.shop == "c"].index[: -WINDOW - 2]
    rows = rows.drop(index=short)
    rows.loc[rows.shop == "d", "sold"] = np.nan
    ran, said = predict(rows)
    assert said.series.tolist() == ["a"]
    assert ran.document["skipped"] == [
        "b: of the steps after 2024-01-03T08:00:00 there is no `price` at +2, +3",
        "c: it has 5 of the 6 steps looked back on",
        "d: it has 0 of the 6 steps looked back on",
    ]
    assert "series left out: 3 (`b`: of the steps" in ran.stderr
    ran, said = predict(rows, "origins=all")
    assert set(said.series) == {"a", "b"}
    assert "origins left out of the others: 2" in ran.stderr


def test_where_nothing_ahead_is_given_the_message_says_what_is_needed(predict):
    rows = frame()
    ran, _ = predict(rows)
    assert ran.code == 1
    assert "there is no `price` at +1, +2, +3" in ran.stderr
    assert "a row for each of the 3 steps ahead, with `price` and an empty `sold`" in ran.stderr
    later = blanked(rows)
    later.loc[later.sold.isna(), "when"] += pd.Timedelta("20min")  # beside the steps
    assert "there is no `price` at +1, +2, +3" in predict(later)[0].stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(index=20), "1 are not 1 hour: 2024-01-01T19:00:00 of `a` to"),
        (lambda rows: rows[1::2], "are not 1 hour: "),
        (lambda rows: pd.concat([rows, rows[4:5]]), "repeated, the first 2024-01-01T04:00:00"),
        (lambda rows: rows.assign(sold=rows.sold.where(rows.index != 9)), "has 1 gaps, the first"),
    ],
)
def test_rows_are_refused_as_in_training_or_resampled_where_that_is_asked(predict, change, message):
    rows = change(blanked(frame()))
    ran, _ = predict(rows)
    assert ran.code == 1
    assert message in ran.stderr
    assert "`resample=mean`" in ran.stderr
    assert "data.spacing" not in ran.stderr
    ran, said = predict(rows, "resample=mean")
    assert said is not None, ran.stderr
    assert len(said) == 2


def test_a_missing_column_and_what_is_no_table_are_one_message(predict, tmp_path, cli):
    assert "Expected the column `price`" in predict(frame().drop(columns="price"))[0].stderr
    ran = cli("predict", "artefact=export/model.onnx", "input=export")
    assert (ran.code, "Expected a table at export" in ran.stderr) == (1, True)


def questions(rows, spacing, **choice):
    """Ask as `predict` does, by what a contract keeps of the spacing."""
    given = SeriesChoice(**(CHOICE | choice | {"spacing": spacing.text}))
    table = pa.Table.from_pandas(rows, preserve_index=False)
    return read_questions(table, given, anchor=spacing.anchor)


def same_records(found, pool, origins):
    at = [int(np.flatnonzero(pool.origin_times == own)[0]) for own in origins]
    records = pool.records(np.array(at))
    for name in records.dtype.names:
        np.testing.assert_array_equal(found.records[name], records[name])


@pytest.mark.parametrize("freq", ["MS", "ME", "QS", "D", "W", "15min", "7h", "B"])
def test_a_window_is_the_one_that_training_would_see(freq):
    rows = frame(60, freq=freq, names=("a",))
    spacing = "moments" if freq == "B" else None
    pool = made(rows, known=["price"], observed=["rain"], spacing=spacing).pool
    found = questions(blanked(rows), pool.panel.spacing)
    assert pd.to_datetime(found.origins, unit="ms").tolist() == [rows.when[60 - HORIZON - 1]]
    same_records(found, pool, found.origins)


def test_without_covariates_the_past_of_the_value_is_enough():
    rows = frame()[["when", "shop", "sold"]]
    pool = made(rows).pool
    found = questions(rows, pool.panel.spacing, known=(), observed=())
    assert found.names.tolist() == ["a", "b"]
    expected = rows.groupby("shop").sold.apply(lambda own: own.iloc[-WINDOW:].to_numpy())
    np.testing.assert_array_equal(found.records["sold"], np.stack(expected))


@pytest.mark.parametrize("fill", ["last", "linear"])
@pytest.mark.parametrize("spacing", ["1h", "7h", "1w"])
def test_rows_ahead_are_put_on_the_steps_of_training(spacing, fill):
    rng = np.random.default_rng(0)
    step = pd.Timedelta({"1w": "7D"}.get(spacing, spacing))
    rows = frame(400, freq=step / 4, names=("a",))
    rows = rows[rng.uniform(size=400) < 0.4].reset_index(drop=True)
    options = {"resample": "mean", "fill": fill, "spacing": spacing}
    pool = made(rows, known=["price"], observed=["rain"], **options).pool
    now = pool.panel.times[-HORIZON - 1]
    later = rows.when >= pd.to_datetime(now, unit="ms") + step
    rows.loc[later, ["sold", "rain"]] = np.nan
    history = rows[rows.when >= pd.to_datetime(now, unit="ms") - 20.6 * step]
    del options["spacing"]
    found = questions(history, pool.panel.spacing, **options)
    assert found.origins.tolist() == [now]
    same_records(found, pool, found.origins)


@pytest.mark.slow
def test_an_exported_file_says_from_a_table_what_it_says_of_its_test_windows(tmp_path):
    rows = frame(150)
    rows.to_csv(tmp_path / "sales.csv", index=False)
    done = run_cli(
        "pipeline", "run_dir=run", "experiment=series", "teacher=sklearn",
        "data=series", "data.path=sales.csv",
        "data.time=when", "data.value=sold", "data.series=shop", "data.known=[price]",
        "data.observed=[rain]", "data.window=8", f"data.horizon={HORIZON}",
        "trainer.max_epochs=1", "teacher.regressor.n_estimators=5", "teacher.folds=2",
        *BRIEF, "preflight=false", "quantize=none", cwd=tmp_path,
    )  # fmt: skip
    assert done.code in (0, 3, 4), done.stderr
    takes = load_contract(tmp_path / "run/export").series
    assert takes is not None
    assert (takes.spacing, takes.known, takes.horizon) == ("1h", ("price",), HORIZON)
    blanked(rows).to_csv(tmp_path / "now.csv", index=False)
    artefact = "artefact=run/export/model.onnx"
    more = ("input=now.csv", "output=said.parquet", "origins=all")
    done = run_cli("predict", artefact, *more, cwd=tmp_path)
    assert done.code == 0, done.stderr
    said = pq.read_table(tmp_path / "said.parquet")
    whole = pd.read_csv(tmp_path / "sales.csv", parse_dates=["when"])
    pool = made(whole, known=["price"], observed=["rain"], window=8).pool
    records = pool.records(np.arange(len(pool)))
    answers = OnnxModel(tmp_path / "run/export/model.onnx").predict(records)
    np.testing.assert_array_equal(np.stack(said["prediction"].to_pylist()), answers)
    np.testing.assert_array_equal(said["origin"].cast(pa.int64()).to_numpy(), pool.origin_times)
