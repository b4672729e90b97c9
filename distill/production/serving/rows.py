"""Rows that people send as JSON, to the columns that a model takes, as training reads them.

A gap is null. Numbers are numbers, dates ISO 8601 (without a zone they are UTC) or milliseconds
since 1970, categories texts, or what is spelled as training spelled it; NA, n/a and the like are
gaps of theirs, as in CSV. Knows a contract's columns; knows nothing of HTTP.
"""

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import nearest
from distill.production.serving.protocol import Tensor
from distill.production.serving.refusals import Oddity, bad_input, malformed
from distill.tables.columns import NO_DATE, Column, Kind
from distill.tables.texts import Spelling

MAX_ROWS = 1_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_rows(
    given: Any, columns: Sequence[Column], spellings: Mapping[str, Spelling]
) -> dict[str, Tensor]:
    """Make a model's inputs of one row or several.

    Args:
        given: an object by column, or a list of them; of a series a column is a list of its steps.
        columns: that the model takes.
        spellings: of its categories.

    Raises:
        RefusedError: a column is missing or unknown, or a value is not of its kind.
    """
    rows = given if type(given) is list else [given]
    if not 1 <= len(rows) <= MAX_ROWS or any(type(row) is not dict for row in rows):
        raise malformed(
            f"Expected a row as an object by column, or a list of 1 to {MAX_ROWS:,} of them."
        )
    names = [column.name for column in columns]
    for number, row in enumerate(rows):
        if row.keys() != set(names):
            raise _misnamed(row, names, number)
    return {
        own.name: _column(own, [row[own.name] for row in rows], spellings.get(own.name))
        for own in columns
    }


def _misnamed(row: Mapping[str, Any], names: Sequence[str], number: int) -> Exception:
    missing = [name for name in names if name not in row]
    if missing:
        shown = ", ".join(f"`{name}`" for name in missing[:10])
        return bad_input(
            f"Expected the column {shown} in row {number} but it is missing. Write null for a gap.",
            Oddity(kind="missing", column=missing[0]),
        )
    unknown = str(next(name for name in row if name not in names))[:60]
    return bad_input(
        f"Expected columns that the model takes but row {number} has `{unknown}`. "
        f"{nearest(unknown, names)}",
        Oddity(kind="unknown", column=""),
    )


def _column(column: Column, values: Sequence[Any], spelling: Spelling | None) -> Tensor:
    datatype, dtype, read = _READERS[column.kind]
    spell = spelling or Spelling()
    array: NDArray[Any] = np.empty((len(values), column.length), dtype)
    for number, value in enumerate(values):
        steps = value if column.length > 1 else [value]
        if type(steps) is not list or len(steps) != column.length:
            raise bad_input(
                f"Expected a list of {column.length} values in `{column.name}` of row {number} but "
                f"got {reprlib.repr(value)}.",
                Oddity(kind="shape", column=column.name),
            )
        for step, own in enumerate(steps):
            try:
                made = read(own)
                array[number, step] = spell(made) if column.kind is Kind.CATEGORY else made
            except (TypeError, ValueError, OverflowError) as error:
                raise bad_input(
                    f"Expected {_MEANT[column.kind]} in `{column.name}` of row {number} but got "
                    f"{reprlib.repr(own)}.",
                    Oddity(kind="dtype", column=column.name),
                ) from error
    return Tensor(datatype=datatype, values=array)


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) not in (int, float):
        raise TypeError
    return float(value)


def _boolean(value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) not in (bool, int, float) or value not in (0, 1):
        raise TypeError
    return float(value)


def _word(value: Any) -> str | bool | int | float | None:
    if value is not None and type(value) not in (str, bool, int, float):
        raise TypeError
    return value


def _moment(value: Any) -> int:
    if value is None:
        return NO_DATE
    if type(value) is int:
        return value
    if type(value) is not str:
        raise TypeError
    moment = datetime.fromisoformat(value)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


_READERS: dict[Kind, tuple[str, Any, Callable[[Any], Any]]] = {
    Kind.NUMBER: ("FP64", np.float64, _number),
    Kind.BOOLEAN: ("FP64", np.float64, _boolean),
    Kind.CATEGORY: ("BYTES", object, _word),
    Kind.DATE: ("INT64", np.int64, _moment),
}
_MEANT = {
    Kind.NUMBER: "a number or null",
    Kind.BOOLEAN: "true, false or null",
    Kind.CATEGORY: "a text or null",
    Kind.DATE: "a date such as 2026-03-31T12:00:00, or null,",
}
