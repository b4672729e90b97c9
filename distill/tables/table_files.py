"""Tables in files, CSV or Parquet, and their columns as raw values.

The one reader of training and prediction. Knows kinds of columns; knows nothing of labels.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.errors import UserError, kind_advice, nearest
from distill.tables.columns import Column, Kind, Records, make_records
from distill.tables.csv_files import DECIMAL, check_names, read_csv
from distill.tables.dates import milliseconds
from distill.tables.texts import MAX_TEXT, Spelling
from distill.tables.values import first_bad, is_text


def read_table(
    path: Path,
    *,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    texts: Collection[str] = (),
    codes: Collection[str] = (),
) -> pa.Table:
    """Read a table.

    Numbers, booleans and ISO dates are recognised; a CSV column that is none of these throughout
    is text. Empty cells and NA, NaN, null and the like are gaps.

    Args:
        path: `.csv`, `.tsv`, `.txt`, or `.parquet`.
        delimiter: of CSV; None takes what the first line is divided by.
        encoding: of CSV.
        texts: columns that are texts as they are written in CSV, whatever they look like.
        codes: columns that are texts, but for those that hold nothing but numbers as programs write
            them: 7 and 7.0, not 007; or nothing but true and false.

    Raises:
        UserError: there is no such file, it is no table, or two columns share a name.
    """
    if not path.is_file():
        raise UserError(f"Expected a table at {path} but there is none.")
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        table = read_csv(path, delimiter=delimiter, encoding=encoding, texts=texts, codes=codes)
    elif path.suffix.lower() in (".parquet", ".pq"):
        table = _read_parquet(path)
    else:
        raise UserError(f"Expected a table as .csv or .parquet but got {path}.")
    if not table.num_rows:
        raise UserError(f"Expected rows in {path} but it has none below its first line.")
    return table


def _read_parquet(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"Expected a Parquet file at {path} but it is damaged or something else "
            f"({str(error).splitlines()[0]}). Write it again."
        ) from error
    check_names(table.column_names, path)
    for number, values in enumerate(table.columns):
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        # Much of what Arrow computes knows neither of these.
        if pa.types.is_string_view(values.type):
            values = values.cast(pa.large_string())
        elif pa.types.is_float16(values.type):
            values = values.cast(pa.float32())
        table = table.set_column(number, table.column_names[number], values)
    return table


def column_of(table: pa.Table, name: str, what: str) -> pa.ChunkedArray:
    """Find a column.

    Raises:
        UserError: there is none of that name; the nearest are named.
    """
    if name not in table.column_names:
        raise UserError(
            f"Expected the column `{name}` ({what}) but there is none. "
            f"{nearest(name, table.column_names)}"
        )
    return table[name]


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a column is taken for; None where it is of no use, and why."""

    kind: Kind | None
    note: str | None = None


MAX_IDENTIFIER_SHARE = 0.5  # text of which more than so many values differ names rows, not kinds


def guess_kind(values: pa.ChunkedArray) -> Guess:
    """Say what a column is by its type, and whether it can say anything at all."""
    present = values.drop_null() if values.null_count else values
    kind = _kind_of(values)
    if not len(present):
        return Guess(kind=None, note="it has no values")
    if kind is None:
        return Guess(kind=None, note=f"{values.type} is no number, text or date")
    num_distinct = pc.call_function("count_distinct", [present]).as_py()
    if num_distinct == 1 and not values.null_count:
        return Guess(kind=None, note=f"it is always {present[0].as_py()!r}")
    text = kind is Kind.CATEGORY
    if text and num_distinct > 50 and num_distinct > MAX_IDENTIFIER_SHARE * len(present):
        return Guess(
            kind=None, note=f"{num_distinct:,} different texts in {len(present):,} rows name rows"
        )
    return Guess(kind=kind)


def _kind_of(values: pa.ChunkedArray) -> Kind | None:
    is_, dtype = pa.types, values.type
    if is_.is_boolean(dtype):
        return Kind.BOOLEAN
    if is_.is_integer(dtype) or is_.is_floating(dtype) or is_.is_decimal(dtype):
        return Kind.NUMBER
    if is_.is_timestamp(dtype) or is_.is_date(dtype):
        return Kind.DATE
    return Kind.CATEGORY if is_text(values) else None


def text_columns(table: pa.Table) -> list[str]:
    """Name the columns that lie in the file as texts."""
    return [name for name in table.column_names if is_text(table[name])]


def is_number(table: pa.Table, name: str) -> bool:
    """Tell whether a column lies in the file as numbers, whatever it is taken for."""
    return _kind_of(table[name]) is Kind.NUMBER


def raw_values(
    values: pa.ChunkedArray,
    column: Column,
    *,
    date_format: str | None = None,
    spelling: Spelling | None = None,
    advice: str | None = None,
) -> NDArray[Any]:
    """Make a column's raw values, [N], as `columns.Kind` says.

    Args:
        values: of the file.
        column: which.
        date_format: of dates that are not ISO, as of `strptime`.
        spelling: of a category; None where training has not seen it yet.
        advice: what to do about text that is no number; None takes it for a column of training's.

    Raises:
        UserError: they are not of that kind: text that is no number or no date, or an infinity.
    """
    makers = {
        Kind.NUMBER: lambda v, c: _numbers(v, c, advice),
        Kind.BOOLEAN: lambda v, c: _numbers(v, c, advice),
        Kind.CATEGORY: lambda v, c: _texts(v, c, spelling or Spelling()),
        Kind.DATE: lambda v, c: milliseconds(v, c.name, date_format),
    }
    return makers[column.kind](values, column)


def _numbers(values: pa.ChunkedArray, column: Column, advice: str | None) -> NDArray[np.float64]:
    advice = advice or f"Mend it, or say that it is text: `{kind_advice(column.name)}`."
    try:
        numbers = values.cast(pa.float64())
    except pa.ArrowException as error:
        raise UserError(
            f"Expected `{column.name}` to hold numbers but "
            f"{first_bad(values, pa.float64(), besides=DECIMAL)}. {advice}"
        ) from error
    found = numbers.to_numpy().astype(np.float64, copy=False)
    infinite = np.isinf(found)
    if infinite.any():
        row = int(np.flatnonzero(infinite)[0])
        raise UserError(
            f"Expected finite numbers in `{column.name}` but {infinite.sum():,} are infinite, the "
            f"first in row {row:,}. Mend them, or leave them empty: a gap is filled in."
        )
    return found


def _texts(values: pa.ChunkedArray, column: Column, spelling: Spelling) -> NDArray[np.str_]:
    is_spelled = _kind_of(values) in (Kind.NUMBER, Kind.BOOLEAN)
    if pa.types.is_decimal(values.type) or not is_spelled:
        try:
            values = values.cast(pa.string())
        except pa.ArrowException as error:
            raise UserError(
                f"Expected `{column.name}` to hold texts, numbers or dates but it holds "
                f"{values.type}. Write one text in each cell, or leave the column out."
            ) from error
        refuse_long(values, column.name, most=spelling.max_length)
    coded = values.combine_chunks().dictionary_encode()
    present = coded.dictionary.to_pylist()
    if pa.types.is_float32(values.type):  # 0.1, not the double 0.10000000149011612
        present = [float(str(own)) for own in coded.dictionary.to_numpy(zero_copy_only=False)]
    texts = [spelling(value) for value in present]
    return np.array([*texts, ""], np.str_)[coded.indices.fill_null(len(texts)).to_numpy()]


def refuse_long(values: pa.ChunkedArray, name: str, *, most: int = MAX_TEXT) -> None:
    """Refuse a text that is too long: in memory each row takes the room of the longest.

    Raises:
        UserError: says which row has it.
    """
    lengths = pc.call_function("utf8_length", [values])
    longest = pc.call_function("max", [lengths]).as_py() or 0
    if longest > most:
        row = pc.call_function("index", [lengths], pc.IndexOptions(pa.scalar(longest, pa.int32())))
        raise UserError(
            f"Expected texts of at most {most:,} characters in the column `{name}` but row "
            f"{row.as_py():,} has one of {longest:,}. Mend it: a quote that nothing closes "
            "swallows the lines below. Shorten texts that are meant to be so long, in use as well."
        )


def raw_records(
    table: pa.Table,
    columns: Sequence[Column],
    *,
    date_format: str | None = None,
    spellings: Mapping[str, Spelling] | None = None,
    advice: str | None = None,
) -> Records:
    """Make rows of the raw values of some columns.

    Args:
        table: the rows.
        columns: which.
        date_format: of dates that are not ISO, as of `strptime`.
        spellings: of the categories; None where training has not seen them yet.
        advice: see `raw_values`.

    Raises:
        UserError: a column is missing, or not of its kind.
    """
    return make_records(
        {
            own.name: raw_values(
                column_of(table, own.name, f"a {own.kind}"),
                own,
                date_format=date_format,
                spelling=(spellings or {}).get(own.name),
                advice=advice,
            )
            for own in columns
        }
    )


def guess_columns(table: pa.Table, kinds: Mapping[str, str]) -> tuple[list[Column], dict[str, str]]:
    """Say what the columns of a table are.

    Args:
        table: without the label.
        kinds: of some, where the guess would be wrong.

    Returns:
        The columns of use, and of those left out why.

    Raises:
        UserError: a kind is unknown, or of a column that is not there.
    """
    for name, kind in kinds.items():
        column_of(table, name, f"`data.kinds.{name}={kind}`")
        if kind not in set(Kind):
            raise UserError(
                f"Expected `data.kinds.{name}` to be one of {', '.join(Kind)} but got {kind}."
            )
    columns, left_out = [], {}
    for name in table.column_names:
        guess = Guess(kind=Kind(kinds[name])) if name in kinds else guess_kind(table[name])
        if guess.kind is None:
            left_out[name] = guess.note or ""
        else:
            columns.append(Column(name=name, kind=guess.kind))
    return columns, left_out
