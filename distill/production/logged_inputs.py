"""Inputs as the prediction log keeps them: written, and read as the arrays that a model takes.

A row is an array as .npy, or columns as JSON by name. Knows nothing of databases.
"""

import functools
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from distill.errors import UserError
from distill.tables.columns import NO_DATE, Column, Kind, Records, make_records

_GAPS: dict[Kind, tuple[Any, Any]] = {
    Kind.NUMBER: (np.float64, np.nan),
    Kind.BOOLEAN: (np.float64, np.nan),
    Kind.CATEGORY: (np.str_, ""),
    Kind.DATE: (np.int64, NO_DATE),
}
_NPY = b"\x93NUMPY"


def row_bytes(feeds: Mapping[str, NDArray[Any]], row: int, *, has_rows: bool) -> bytes:
    """Write one row of the inputs: of a single array as .npy, of columns as JSON by name.

    What is no finite number is null.
    """
    own = {name: values[row] if has_rows else values for name, values in feeds.items()}
    if len(own) > 1 or next(iter(own.values())).dtype.kind == "O":
        return orjson.dumps({name: values.ravel().tolist() for name, values in own.items()})
    values = np.ascontiguousarray(next(iter(own.values())))
    return _npy_header(values.dtype.str, values.shape) + values.tobytes()


@functools.lru_cache(maxsize=256)
def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def read_row(data: bytes) -> NDArray[Any] | dict[str, list[Any]]:
    """Read one row: an array, or of each column its values, null where there is a gap.

    Raises:
        UserError: it is neither.
    """
    try:
        if data.startswith(_NPY):
            return np.load(io.BytesIO(data), allow_pickle=False)
        columns = json.loads(data)
        if isinstance(columns, dict) and all(isinstance(v, list) for v in columns.values()):
            return columns
        found = type(columns).__name__
    except (ValueError, EOFError) as error:
        found = " ".join(str(error).split())[:100]
    raise UserError(
        f"Expected a logged input, an array as .npy or columns as JSON, but found {found}. The "
        "log was changed by something else: leave this row out."
    )


def stacked(rows: Sequence[bytes], columns: Sequence[Column] | None = None) -> NDArray[Any]:
    """Put rows together as a model takes them: [N, ...], or records, [N], of a table.

    Args:
        rows: of the log, one at least.
        columns: that a table's model takes; None of an array.

    Raises:
        UserError: a row is none, lacks a column, or is of another shape or type than the first.
    """
    read = [read_row(row) for row in rows]
    if columns is not None:
        return _records(read, columns)
    first = read[0]
    for number, row in enumerate(read):
        if not isinstance(row, np.ndarray) or not isinstance(first, np.ndarray):
            raise UserError(
                f"Expected arrays in the log but row {number} holds columns. Name an artefact "
                "whose contract knows them."
            )
        if row.shape != first.shape or row.dtype != first.dtype:
            raise UserError(
                f"Expected inputs of one shape and type but row 0 is {first.dtype} "
                f"{list(first.shape)} and row {number} {row.dtype} {list(row.shape)}. Choose the "
                "rows of one model."
            )
    return np.stack([np.asarray(row) for row in read])


def by_name(row: NDArray[Any] | dict[str, list[Any]], columns: Sequence[Column]) -> dict[str, Any]:
    """Give a row of a table by its columns; one of a single column is logged as an array."""
    return {columns[0].name: row.ravel().tolist()} if isinstance(row, np.ndarray) else row


def _records(
    rows: Sequence[NDArray[Any] | dict[str, list[Any]]], columns: Sequence[Column]
) -> Records:
    named = [by_name(row, columns) for row in rows]
    return make_records({own.name: _column(own, named) for own in columns})


def _column(column: Column, rows: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
    dtype, gap = _GAPS[column.kind]
    values = []
    for number, row in enumerate(rows):
        own = row.get(column.name)
        if own is None or len(own) != column.length:
            found = "none" if own is None else str(len(own))
            raise UserError(
                f"Expected {column.length} values of the column `{column.name}` in logged row "
                f"{number} but found {found}. Name the artefact that answered."
            )
        values.append([gap if value is None else value for value in own])
    try:
        array = np.array(values, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"Expected values of the kind {column.kind} in the logged column `{column.name}` but "
            f"{error}. Name the artefact that answered."
        ) from error
    return array if column.length > 1 else array[:, 0]
