"""Claims about the text of a category: one value is one text in CSV, Parquet and JSON."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_table_rows import contract_of

from distill.contract import Contract, TableInput
from distill.errors import UserError
from distill.files import from_json, sha256_json, to_json
from distill.production.serving.rows import read_rows as read_json_rows
from distill.tables.columns import Column, Kind
from distill.tables.csv_files import DECIMAL
from distill.tables.table_files import read_table
from distill.tables.texts import GAPS, MAX_TEXT, Spelling, kind_of_texts
from distill.tables.values import first_bad
from distill.tasks import TaskKind
from distill.training.data.panels import Source, read_panel
from distill.training.data.series import series
from distill.training.data.tables import table
from distill.verbs.rows.table_rows import labels_of, read_rows, text_labels

WRITTEN = cast("Any", SimpleNamespace(delimiter=None, encoding="utf-8", date_format=None))
LABEL = [f"{'yes' if i % 3 else 'no'}" for i in range(60)]


def csv(path, values):
    lines = [f"{value},{own}" for value, own in zip(values, LABEL, strict=False)]
    path.write_text("\n".join(["code,label", *lines]) + "\n")
    return str(path)


def trained(path, **choice):
    """What a model of one category takes after training."""
    data = table(path=path, label="label", kinds={"code": "category"}, **choice)
    return data, TableInput(
        columns=data.encoder.takes, categories=data.encoder.categories, as_written=True
    )


def in_csv(takes, folder, *values):
    path = folder / "asked.csv"
    csv(path, values)
    return read_rows(WRITTEN, path, takes)[1]["code"].tolist()


def in_parquet(takes, folder, values):
    pq.write_table(pa.table({"code": values}), folder / "asked.parquet")
    return read_rows(WRITTEN, folder / "asked.parquet", takes)[1]["code"].tolist()


def in_json(takes, *values):
    given = read_json_rows([{"code": own} for own in values], takes.columns, takes.spellings)
    return given["code"].values.ravel().tolist()


def test_leading_zeros_stay_in_training_prediction_and_json(tmp_path):
    data, takes = trained(csv(tmp_path / "a.csv", ["01234", "007", "7"] * 20))
    assert sorted(takes.categories["code"]) == ["007", "01234", "7"]
    assert data.numbered == ()
    assert in_csv(takes, tmp_path, "01234") == in_json(takes, "01234") == ["01234"]
    assert in_csv(takes, tmp_path, "007", "7", "bad") == ["007", "7", "bad"]


@pytest.mark.parametrize("code", ["001", "1.50", "TRUE", "0x1F", "2024-03-31", "A10"])
def test_a_file_of_one_code_alone_says_what_a_file_of_many_does(tmp_path, code):
    codes = ["001", "1.50", "TRUE", "0x1F", "2024-03-31", "A10"]
    data = table(path=csv(tmp_path / "a.csv", codes * 10), label="label")  # guessed a category
    takes = TableInput(
        columns=data.encoder.takes, categories=data.encoder.categories, as_written=True
    )
    assert sorted(takes.categories["code"]) == sorted(codes)
    assert in_csv(takes, tmp_path, code) == in_json(takes, code) == [code]


@pytest.mark.parametrize("written", ["csv", "csv with gaps", "integers", "floats"])
def test_numbers_are_spelled_alike_whatever_they_come_in(tmp_path, written):
    numbers = [3, 12345678901] * 30
    path = tmp_path / "a.parquet"
    if written.startswith("csv"):
        form = "{}.0" if "gaps" in written else "{}"
        path = csv(tmp_path / "a.csv", map(form.format, numbers))
    else:
        kind = pa.int64() if written == "integers" else pa.float64()
        pq.write_table(pa.table({"code": pa.array(numbers, kind), "label": LABEL}), path)
    data, takes = trained(str(path))
    assert sorted(takes.categories["code"]) == ["12345678901", "3"]
    assert data.numbered == ("code",)
    asked = ["3", "12345678901"]
    assert in_csv(takes, tmp_path, "3", "12345678901") == asked
    assert in_csv(takes, tmp_path, "3.0", "12345678901.0", "x") == [*asked, "x"]
    assert in_parquet(takes, tmp_path, [3, 12345678901]) == asked
    assert in_parquet(takes, tmp_path, [3.0, 12345678901.0, None, np.nan]) == [*asked, "", ""]
    assert in_json(takes, 3, 12345678901) == in_json(takes, 3.0, 12345678901.0) == asked
    assert in_json(takes, "3", "12345678901.0") == asked


def test_true_and_false_are_spelled_alike_whatever_they_come_in(tmp_path):
    _, takes = trained(csv(tmp_path / "a.csv", ["True", "False"] * 30))
    assert sorted(takes.categories["code"]) == ["false", "true"]
    assert in_csv(takes, tmp_path, "True", "false", "TRUE") == ["true", "false", "true"]
    assert in_parquet(takes, tmp_path, [True, None]) == ["true", ""]
    assert in_json(takes, True, "False") == ["true", "false"]


def test_words_for_gaps_are_gaps_in_every_form(tmp_path):
    words = sorted(GAPS - {""})
    pq.write_table(
        pa.table({"code": ["a", "NA", None] * 20, "label": LABEL}), tmp_path / "a.parquet"
    )
    _, takes = trained(str(tmp_path / "a.parquet"))
    assert sorted(takes.categories["code"]) == ["", "a"]
    none = [""] * len(words)
    assert in_csv(takes, tmp_path, *words) == none
    assert in_parquet(takes, tmp_path, words) == in_json(takes, *words) == none
    assert in_json(takes, None, float("nan")) == ["", ""]
    numbers = {"code": [1.0, np.nan, 2.0] * 20, "label": LABEL}
    pq.write_table(pa.table(numbers), tmp_path / "a.parquet")
    assert sorted(trained(str(tmp_path / "a.parquet"))[1].categories["code"]) == ["", "1", "2"]


def test_a_test_set_and_rows_without_labels_are_read_as_the_training_rows_are(tmp_path):
    first = csv(tmp_path / "a.csv", ["001", "A10"] * 30)
    second = csv(tmp_path / "b.csv", ["001"] * 60)
    for kinds in ({}, {"code": "category"}):
        data = table(path=first, label="label", kinds=kinds, test_path=second, unlabelled=second)
        assert set(data.test.records["code"]) == set(data.unlabelled.records["code"]) == {"001"}
    numbers, other = (
        csv(tmp_path / "c.csv", [1, 7] * 30),
        csv(tmp_path / "d.csv", ["7", "007"] * 30),
    )
    data, _ = trained(numbers, test_path=other)
    assert set(data.train.records["code"]) == {"1", "7"}
    assert set(data.test.records["code"]) == {"7", "007"}


def test_a_contract_from_before_keeps_its_hash_and_reads_as_it_did(tmp_path):
    column = to_json(Column(name="code", kind=Kind.CATEGORY))
    content = {
        "input": None, "normalization": None, "output": "logits", "classes": ["a", "b"],
        "table": {"columns": [column], "categories": {"code": ["1234", "7", "1e+10", "NA", "nan"]}},
        "provenance": {}, "golden_sha256": "none", "schema_version": 1,
    }  # fmt: skip
    contract = from_json(Contract, content)
    assert contract.sha256 == sha256_json(content)
    takes = contract.table
    assert in_csv(takes, tmp_path, "01234", "+7", "7.00", "10000000000.0") == [
        "1234", "7", "7", "1e+10",
    ]  # fmt: skip
    assert in_parquet(takes, tmp_path, ["NA", "n/a", "7"]) == ["NA", "", "7"]
    assert in_parquet(takes, tmp_path, [np.nan, 1e10, 7.0]) == ["nan", "1e+10", "7"]
    assert in_json(takes, "NA", 7.0, "01234") == ["NA", "7", "1234"]
    assert from_json(Contract, to_json(contract)).sha256 == contract.sha256
    content["table"]["as_written"] = True
    assert from_json(Contract, content).sha256 == sha256_json(content)


def test_a_float_among_words_is_the_text_that_training_saw():
    assert Spelling.of(["3.0", "A10"])(3.0) == "3.0"
    assert Spelling.of(["3", "A10"])(3.0) == "3"


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["7", "10", "-3"], int), (["7.0", "8"], int), (["1.5", "2"], float),
        (["true", "False"], bool), (["7", "007"], None), (["1.50"], None), (["+7"], None),
        (["1e5"], None), (["12345678901234567890"], None), (["1,5"], None), (["-0"], None),
        ([str(2**63 - 1)], int), ([str(2**63)], None), ([], None),
    ],
)  # fmt: skip
def test_texts_are_numbers_where_reading_and_writing_loses_nothing(texts, kind):
    assert kind_of_texts(texts) is kind


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.float64(), pa.string_view()])
def test_a_narrow_number_is_spelled_as_it_was_written(tmp_path, kind):
    values = pa.array([0.5, 0.25, 0.125] * 20, pa.float64())
    if kind != pa.float16():
        values = pa.array([0.1, 0.7, None] * 20, pa.float64())
    texts = pa.table({"code": values.cast(pa.string() if kind == pa.string_view() else kind)})
    if kind == pa.string_view():
        texts = texts.cast(pa.schema([("code", kind)]))
    pq.write_table(texts.append_column("label", pa.array(LABEL)), tmp_path / "a.parquet")
    found = trained(str(tmp_path / "a.parquet"))[0].encoder.categories["code"]
    assert set(found) - {""} == {str(own) for own in values.unique().drop_null().to_pylist()}


def test_what_is_no_text_is_refused_as_a_category(tmp_path):
    texts = pa.table({"code": [[1, 2], [3]] * 30, "label": LABEL})
    pq.write_table(texts, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"`code` to hold texts.*list.*leave the column out"):
        trained(str(tmp_path / "a.parquet"))


def test_the_first_wrong_value_is_found_without_looking_at_each():
    good = [str(i) for i in range(1000)]
    values = pa.chunked_array([good, ["7,5", *good], ["8,5", "x"]])
    assert first_bad(values, pa.float64()) == "row 1,000 has '7,5'"
    assert first_bad(values, pa.float64(), besides=DECIMAL) == "row 2,002 has 'x'"
    assert first_bad(values.slice(0, 1500), pa.float64(), besides=DECIMAL) == "row 1,000 has '7,5'"
    assert first_bad(values, pa.string()) == "they are string"


def test_a_text_that_would_take_all_memory_is_refused_with_its_row(tmp_path):
    message = r"at most 1,024 .* `code` but row 2 has one of 20,000\..*a quote that nothing closes"
    for choice in ({}, {"kinds": {"code": "category"}}):
        path = csv(tmp_path / "a.csv", ["a", "b", '"' + "x\n" * 10_000 + '"', *"ab" * 20])
        with pytest.raises(UserError, match=message):
            table(path=path, label="label", **choice)
    _, takes = trained(csv(tmp_path / "a.csv", ["a" * MAX_TEXT, "b"] * 30))
    assert in_csv(takes, tmp_path, "a" * MAX_TEXT) == ["a" * MAX_TEXT]
    for ask in (lambda: in_csv(takes, tmp_path, "a", "b", "c" * 20_000),
                lambda: in_parquet(takes, tmp_path, ["a", None, "c" * 20_000])):  # fmt: skip
        with pytest.raises(UserError, match=message):
            ask()


def test_texts_as_long_as_those_of_an_older_model_are_taken(tmp_path):
    column = Column(name="code", kind=Kind.CATEGORY)
    takes = TableInput(columns=(column,), categories={"code": ["a" * 2000]})
    assert in_parquet(takes, tmp_path, ["b" * 2000]) == ["b" * 2000]
    with pytest.raises(UserError, match="at most 2,000"):
        in_parquet(takes, tmp_path, ["b" * 2001])


def test_long_names_of_series_and_audited_classes_are_refused(tmp_path):
    day = pd.date_range("2024-01-01", periods=60)
    long = pa.table({"shop": ["a"] * 59 + ["b" * 2000], "day": day, "sold": range(60)})
    with pytest.raises(UserError, match="`shop` but row 59"):
        read_panel(long, Source(time="day", value="sold", series="shop"))
    with pytest.raises(UserError, match="`shop` but row 59"):
        labels_of(long, contract_of(TaskKind.CLASSIFICATION, "a", "b"), ["shop"])


@pytest.mark.parametrize(("written", "names"), [("00{}", ("001", "002")), ("{}.0", ("1", "2"))])
def test_names_of_series_stay_as_they_are_written(tmp_path, written, names):
    days = pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d")
    rows = [f"{written.format(s)},{day},{i}" for s in (1, 2) for i, day in enumerate(days)]
    (tmp_path / "a.csv").write_text("\n".join(["shop,day,sold", *rows]))
    data = series(
        path=str(tmp_path / "a.csv"), series="shop", time="day", value="sold", window=5, horizon=2
    )
    assert data.pool.panel.names == names
    again = read_table(tmp_path / "a.csv", codes=["shop"])
    source = Source(time="day", value="sold", series="shop")
    assert read_panel(again, source)[0].names == names


def test_audited_classes_that_are_texts_are_read_as_texts(tmp_path):
    takes = TableInput(columns=(Column(name="x", kind=Kind.NUMBER),), categories={})
    (tmp_path / "a.csv").write_text("x,label\n1,001\n2,001\n")
    for classes, expected in ((("000", "001", "A10"), [1, 1]), (("0", "1"), [1, 1])):
        contract = contract_of(TaskKind.CLASSIFICATION, *classes)
        texts = text_labels(contract, ["label"])
        rows, _ = read_rows(WRITTEN, tmp_path / "a.csv", takes, texts=texts)
        assert labels_of(rows, contract, ["label"]).tolist() == expected
    assert text_labels(contract_of(TaskKind.CLASSIFICATION, "false", "true"), ["label"]) == []
    assert text_labels(contract_of(TaskKind.REGRESSION, "a"), ["a"]) == []
