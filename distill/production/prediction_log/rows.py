"""Records as rows: plain values of the types that the columns have, whatever was handed in.

What NumPy calls an integer sqlite would keep as bytes, and a text from a client may hold what
PostgreSQL refuses. Knows nothing of connections.
"""

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from distill.production.prediction_log.records import (
    Annotation,
    Feedback,
    Prediction,
    QueueItem,
    Record,
    Skew,
)
from distill.production.prediction_log.schema import (
    ANNOTATIONS,
    FEEDBACK,
    PREDICTIONS,
    QUEUE,
    SKEW,
)

Row = tuple[Any, ...]

_ROW_BYTES = 700  # of a record without its arrays, in memory


def size_of(record: Record) -> int:
    """About how many bytes a record takes in memory."""
    if not isinstance(record, Prediction):
        return _ROW_BYTES
    held = (record.input, record.output)
    return _ROW_BYTES + sum(len(array) for array in held if isinstance(array, bytes))


def table_of(record: Any) -> sa.Table:
    """Where records of its kind are kept."""
    return _COLUMNS[type(record)].table


def row_of(record: Any) -> Row:
    """Turn a record into a row, its values in the order of the table's columns.

    Raises:
        TypeError: a value is of another type than its column.
        ValueError: a number is missing, not finite where it must be, or too large.
    """
    columns = _COLUMNS[type(record)]
    values = columns.values_of(record)
    row = [convert(value) for convert, value in zip(columns.converts, values, strict=True)]
    if None in row:
        columns.check_given(row)
    return tuple(row)


def record_of(kind: Callable[..., Any], row: Any) -> Any:
    """Turn a row's columns, by name, back into a record."""
    names = [field.name for field in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    return kind(**{name: row[name] for name in names})


def clean(text: str) -> str:
    """Replace what a database refuses in a text: zero bytes, and halves of characters."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.isascii() and "\0" not in value):
        return value
    if not isinstance(value, str):
        raise TypeError(f"Expected text but got {value!r}.")
    return clean(value)


def _integer(value: Any) -> int | None:
    if value is None:
        return None
    number = operator.index(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"Expected a number of 64 bits but got {number}.")
    return number


def _real(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None  # sqlite has no NaN


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(memoryview(value))


class _Columns:
    """How the records of one kind become rows of their table."""

    def __init__(self, table: sa.Table) -> None:
        self.table = table
        self.names = [column.name for column in table.columns]
        self.values_of = operator.attrgetter(*self.names)
        self.converts = [_CONVERT[column.type.python_type] for column in table.columns]
        self._required = [i for i, column in enumerate(table.columns) if not column.nullable]

    def check_given(self, row: list[Any]) -> None:
        missing = [self.names[i] for i in self._required if row[i] is None]
        if missing:
            raise ValueError(f"Expected {', '.join(missing)} but found none, or no finite number.")


_CONVERT: dict[type, Callable[[Any], Any]] = {
    str: _text,
    int: _integer,
    float: _real,
    bytes: _bytes,
}
_COLUMNS: dict[type, _Columns] = {
    Prediction: _Columns(PREDICTIONS),
    Skew: _Columns(SKEW),
    Feedback: _Columns(FEEDBACK),
    QueueItem: _Columns(QUEUE),
    Annotation: _Columns(ANNOTATIONS),
}
