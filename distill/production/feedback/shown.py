"""A logged input as people see it: a picture, or names and values of a row.

Knows inputs; knows nothing of pages.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.production.logged_inputs import by_name, read_row
from distill.tables.columns import NO_DATE, Column, Kind

MAX_STEPS = 24  # of a window, the last ones

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_picture(data: bytes) -> NDArray[np.uint8]:
    """Read a logged picture, [H, W, C] with C of 1 or 3.

    Raises:
        UserError: it is none.
    """
    found = read_row(data)
    if isinstance(found, np.ndarray) and found.dtype == np.uint8:
        picture = found[0] if found.ndim == 4 and len(found) == 1 else found
        if picture.ndim == 3 and picture.shape[2] in (1, 3) and picture.size:
            return picture
    shape = list(found.shape) if isinstance(found, np.ndarray) else "columns"
    raise UserError(
        f"Expected a picture, uint8 [H, W, 1 or 3], as the input but found {shape}. It can be "
        "labelled through /feedback by whoever knows what it is."
    )


def as_row(data: bytes, columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Write a logged row for people, in the order of its columns; a gap is empty.

    Raises:
        UserError: it is no row of these columns.
    """
    found = by_name(read_row(data), columns)
    missing = [column.name for column in columns if column.name not in found]
    if missing:
        raise UserError(
            f"Expected the column `{missing[0]}` in a logged row but it has "
            f"{', '.join(list(found)[:10])}. Name the artefact that answered."
        )
    return [(column.name, _values(column, found[column.name])) for column in columns]


def _values(column: Column, values: list[Any]) -> str:
    shown = [_value(column.kind, value) for value in values[-MAX_STEPS:]]
    more = "\u2026, " if len(values) > MAX_STEPS else ""
    return more + ", ".join(shown)


def _value(kind: Kind, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if kind is Kind.BOOLEAN:
        return "yes" if value else "no"
    if kind is Kind.DATE and isinstance(value, int):
        return _moment(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _moment(since_ms: int) -> str:
    if since_ms == NO_DATE:
        return ""
    try:
        moment = _EPOCH + timedelta(milliseconds=since_ms)
    except OverflowError:
        return f"{since_ms} ms since 1970"
    is_day = moment == moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return moment.date().isoformat() if is_day else moment.isoformat(sep=" ", timespec="seconds")
