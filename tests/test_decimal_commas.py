"""Claims about numbers with decimal commas in CSV: read alike in training and in use, and told."""

import logging
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from distill.contract import TableInput
from distill.errors import UserError
from distill.tables.columns import Column, Kind
from distill.tables.table_files import raw_values, read_table
from distill.tasks import TaskKind
from distill.training.data.series import series
from distill.training.data.tables import table
from distill.verbs.rows.table_rows import read_rows

IN_USE = cast("Any", SimpleNamespace(delimiter=None, encoding="utf-8", date_format=None))


def read(path, content, **options):
    path.write_text(content)
    return read_table(path, **options)


def test_features_and_a_label_with_decimal_commas_are_numbers_in_training_and_in_use(
    tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    rows = [(i / 4 + 0.5, 1000 * i + 0.25, i) for i in range(100)]
    lines = [f"{a:.2f};{b:,.2f};{c}" for a, b, c in rows]
    swapped = str.maketrans(",.", ".,")
    text = "\n".join(["size;price;count", *(line.translate(swapped) for line in lines)])
    (tmp_path / "a.csv").write_text(text)
    data = table(path=str(tmp_path / "a.csv"), label="price")
    assert data.task.kind is TaskKind.REGRESSION
    assert {own.name: own.kind for own in data.encoder.takes} == dict.fromkeys(
        ("size", "count"), Kind.NUMBER
    )
    np.testing.assert_array_equal(
        data.train.records["size"], [rows[i][0] for i in data.train.indices]
    )
    np.testing.assert_allclose(data.train.labels[:, 0], [rows[i][1] for i in data.train.indices])
    assert "a comma divides decimals, and a point thousands, in `size`, `price`" in caplog.text
    takes = TableInput(columns=data.encoder.takes, categories={})
    (tmp_path / "b.csv").write_text("size;count\n12,50;1\n;2\n7;3\n")
    _, found = read_rows(IN_USE, tmp_path / "b.csv", takes)
    np.testing.assert_array_equal(found["size"], [12.5, np.nan, 7])


@pytest.mark.parametrize(
    ("delimiter", "cells"),
    [
        (";", ["12,50", "A"]), (";", ["12,50", "12.5"]), (";", ["1,234,567", "2,5"]),
        (";", ["12,", "2,5"]), (";", ["1.2345,5"]), (";", ["7", "A"]), (",", ['"12,50"', '"1,5"']),
    ],
)  # fmt: skip
def test_what_is_not_throughout_a_number_with_a_decimal_comma_is_text(tmp_path, delimiter, cells):
    rows = "".join(f"{cell}{delimiter}1\n" for cell in cells)
    found = read(tmp_path / "a.csv", f"a{delimiter}b\n{rows}")
    assert found["a"].to_pylist() == [cell.strip('"') for cell in cells]


def test_what_is_text_by_its_kind_keeps_its_commas(tmp_path):
    for options in ({"texts": ["a"]}, {"codes": ["a"]}):
        found = read(tmp_path / "a.csv", "a;b\n1,5;2,5\n2,5;3\n", **options)
        assert found.to_pydict() == {"a": ["1,5", "2,5"], "b": [2.5, 3.0]}


def test_a_comma_before_three_digits_is_told_by_another_column_or_left_with_a_warning(
    tmp_path, caplog
):
    assert read(tmp_path / "a.csv", "a\tb\n1,234\tx\n12,500\ty\n")["a"].to_pylist() == [
        "1,234", "12,500",
    ]  # fmt: skip
    assert "`a` is left as text: in numbers such as 1,234" in caplog.text
    for content in ("a\tb\n1,234\t0,5\n", "a\tb\n1,234\tx\n0,125\ty\n"):
        found = read(tmp_path / "a.csv", content)
        assert found["a"][0].as_py() == 1.234


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1.250", "980", ""], [1250, 980, None]),  # 1.25 and 980 to a reader of each cell alone
        (["1.250.000", "2", "-3.500"], [1250000, 2, -3500]),
        (["1.234,50", "1.500", "3,00"], [1234.5, 1500, 3]),
        (["0.125", "1.250", ""], [0.125, 1.25, None]),  # no thousands begin with 0
        (["1.25", "1.250", "7"], [1.25, 1.25, 7]),
    ],
)
def test_where_a_comma_divides_decimals_a_point_divides_thousands(tmp_path, cells, numbers):
    rows = "".join(f"{cell};{i},5\n" for i, cell in enumerate(cells))
    found = read(tmp_path / "a.csv", f"a;price\n{rows}")
    assert found.to_pydict() == {"a": numbers, "price": [0.5, 1.5, 2.5]}


def test_points_divide_decimals_where_no_comma_does(tmp_path):
    found = read(tmp_path / "a.csv", "a;b\n1.250;1.000.000\n980;2\n")
    assert found.to_pydict() == {"a": [1.25, 980], "b": ["1.000.000", "2"]}


def test_the_cell_that_is_wrong_among_numbers_with_commas_is_named(tmp_path):
    column = Column(name="a", kind=Kind.NUMBER)
    found = read(tmp_path / "a.csv", "a;b\n12,50;1\n?;2\n")
    with pytest.raises(UserError, match=r"row 1 has '\?'"):
        raw_values(found["a"], column)
    found = read(tmp_path / "a.csv", "a;b\n1,500;1\n")
    with pytest.raises(UserError, match="row 0 has '1,500'"):
        raw_values(found["a"], column)


def test_the_values_of_series_may_have_decimal_commas(tmp_path):
    rows = [f"2024-01-{day:02};{day},5" for day in range(1, 31)]
    (tmp_path / "a.csv").write_text("\n".join(["day;sold", *rows]))
    data = series(path=str(tmp_path / "a.csv"), time="day", value="sold", window=5, horizon=2)
    assert data.pool.panel.columns["sold"].tolist() == [day + 0.5 for day in range(1, 31)]
    (tmp_path / "a.csv").write_text("\n".join(["day;sold", *rows, "2024-01-31;shut"]))
    with pytest.raises(UserError, match="`sold` to hold numbers but row 30 has 'shut'"):
        series(path=str(tmp_path / "a.csv"), time="day", value="sold", window=5, horizon=2)
