"""Claims about tables in files: what their columns are taken for, and what is refused."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import UserError
from distill.tables.columns import NO_DATE, Column, Kind
from distill.tables.table_files import guess_columns, raw_records, read_table

CSV = """age;member;town;since;note
31;true;Ulm;2024-02-29;a
;false;;2023-01-01;b
28.5;;Köln;;c
"""


def text(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


def of(table, **kinds):
    columns, left_out = guess_columns(table, kinds)
    return {column.name: str(column.kind) for column in columns}, left_out


def test_a_csv_has_its_kinds_guessed_and_its_gaps_kept(tmp_path):
    table = read_table(text(tmp_path / "a.csv", CSV))
    kinds, left_out = of(table)
    assert kinds == {
        "age": "number", "member": "boolean", "town": "category", "since": "date",
        "note": "category",
    }  # fmt: skip
    assert left_out == {}
    columns, _ = guess_columns(table, {})
    raw = raw_records(table, columns)
    np.testing.assert_array_equal(raw["age"], [31, np.nan, 28.5])
    np.testing.assert_array_equal(raw["member"], [1, 0, np.nan])
    assert raw["town"].tolist() == ["Ulm", "", "Köln"]
    day = datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC)
    assert raw["since"][0] == day.timestamp() * 1000
    assert raw["since"][2] == NO_DATE


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_read_off_the_first_line_with_or_without_a_byte_order_mark(
    tmp_path, delimiter
):
    content = f"﻿a{delimiter}b\n1{delimiter}x\n2{delimiter}y\n"
    table = read_table(text(tmp_path / "a.csv", content))
    assert table.column_names == ["a", "b"]
    assert of(table)[0] == {"a": "number", "b": "category"}


def test_a_column_that_turns_to_text_late_in_a_long_file_is_text(tmp_path):
    rows = "".join(f"{i},{i % 7}\n" for i in range(200_000))
    table = read_table(text(tmp_path / "a.csv", f"a,b\n{rows}x,y\n"))
    assert table.num_rows == 200_001
    assert of(table, a="category")[0] == {"a": "category", "b": "category"}


def test_another_encoding_can_be_named(tmp_path):
    path = text(tmp_path / "a.csv", "a,b\ncafé,1\n", "latin-1")
    assert read_table(path, encoding="latin-1")["a"].to_pylist() == ["café"]


def test_parquet_and_csv_of_the_same_table_are_the_same(tmp_path):
    csv = read_table(text(tmp_path / "a.csv", CSV))
    pq.write_table(
        csv.set_column(2, "town", csv["town"].dictionary_encode()), tmp_path / "a.parquet"
    )
    parquet = read_table(tmp_path / "a.parquet")
    columns, _ = guess_columns(csv, {})
    assert guess_columns(parquet, {})[0] == columns
    for column in columns:
        own, other = (raw_records(table, columns)[column.name] for table in (csv, parquet))
        np.testing.assert_array_equal(own, other)


def test_what_says_nothing_is_left_out_with_its_reason():
    table = pa.table(
        {
            "same": [1] * 100,
            "empty": pa.nulls(100),
            "key": [f"row {i}" for i in range(100)],
            "lists": [[1]] * 100,
            "kept": [i % 3 for i in range(100)],
            "once": [None, *[1] * 99],
        }
    )
    kinds, left_out = of(table)
    assert kinds == {"kept": "number", "once": "number"}
    assert left_out["same"] == "it is always 1"
    assert left_out["empty"] == "it has no values"
    assert left_out["key"] == "100 different texts in 100 rows name rows"
    assert "list" in left_out["lists"]
    assert of(table, key="category", kept="category")[0]["key"] == "category"


def test_numbers_declared_a_category_are_text(tmp_path):
    table = read_table(text(tmp_path / "a.csv", "zip,n\n01234,1\n99,2\n"))
    raw = raw_records(table, [Column(name="n", kind=Kind.CATEGORY)])
    assert raw["n"].tolist() == ["1", "2"]


def test_other_dates_and_zones(tmp_path):
    table = pa.table(
        {
            "german": ["31.03.2024", None],
            "zoned": pa.array([0, 3_600_000], pa.timestamp("ms", "Europe/Berlin")),
            "day": pa.array([19_000, None], pa.date32()),
        }
    )
    columns = [Column(name=name, kind=Kind.DATE) for name in table.column_names]
    raw = raw_records(table, columns, date_format="%d.%m.%Y")
    march = datetime.datetime(2024, 3, 31, tzinfo=datetime.UTC).timestamp() * 1000
    assert raw["german"].tolist() == [march, NO_DATE]
    assert raw["zoned"].tolist() == [0, 3_600_000]
    assert raw["day"].tolist() == [19_000 * 86_400_000, NO_DATE]
    with pytest.raises(UserError, match=r"`german` but row 0 has '31\.03\.2024'.*date_format"):
        raw_records(table, columns)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "it is empty"),
        ("a.csv", b"\x89PNG\r\n\0\0", "zero bytes|utf-8"),
        ("a.csv", "a,b\ncafé,1\n".encode("latin-1"), "`a` is no utf-8.*data.encoding"),
        ("a.csv", b"a,b\n1,2\n3\n", "divided by ','.*Expected 2 columns, got 1"),
        ("a.csv", b"a,b,a\n1,2,3\n", "`a` is there 2 times"),
        ("a.csv", b"a,,b\n1,2,3\n", "one has none"),
        ("a.csv", b"a,b\n", "none below its first line"),
        ("a.parquet", b"a,b\n1,2\n", "Parquet file.*damaged"),
        ("a.xlsx", b"PK", "as .csv or .parquet"),
    ],
)
def test_what_is_no_table_is_one_message(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(path)


def test_wrong_columns_and_values_are_named():
    table = pa.table({"age": ["31", "old"], "size": [1.0, float("inf")]})
    with pytest.raises(UserError, match=r"`age` .* row 1 has 'old'.*`\+data\.kinds\.age=cat"):
        raw_records(table, [Column(name="age", kind=Kind.NUMBER)])
    with pytest.raises(UserError, match="`size` but 1 are infinite, the first in row 1"):
        raw_records(table, [Column(name="size", kind=Kind.NUMBER)])
    with pytest.raises(UserError, match="Did you mean `age`"):
        raw_records(table, [Column(name="agee", kind=Kind.NUMBER)])
    with pytest.raises(UserError, match="one of number, boolean"):
        guess_columns(table, {"age": "text"})
