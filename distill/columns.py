"""Columns of a table as a model takes them: a name and a kind each, and records of raw values.

Raw means as they lie in the file: in their own units, with gaps. Rows are records, one structured
NumPy array, [N], with a field for each column: sliced, saved without pickle and hashed like any
other.
Knows nothing of files, nor of how columns are encoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError

Records = NDArray[np.void]  # [N], a field for each column

NO_DATE = np.iinfo(np.int64).min  # what NumPy's NaT is underneath


class Kind(StrEnum):
    """What the values of a column are, which says how they are given and how a gap is written.

    `number` and `boolean` are float64 with NaN for a gap, `category` is text with "" for a gap, and
    `date` is int64, milliseconds since 1970 in UTC, with the smallest int64 for a gap.
    """

    NUMBER = "number"
    BOOLEAN = "boolean"
    CATEGORY = "category"
    DATE = "date"


DTYPES = {Kind.NUMBER: "float64", Kind.BOOLEAN: "float64", Kind.CATEGORY: "str", Kind.DATE: "int64"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column that a model takes."""

    name: str
    kind: Kind

    @property
    def dtype(self) -> str:
        """Name of the NumPy type of its raw values."""
        return DTYPES[self.kind]


def make_records(values: Mapping[str, NDArray[Any]]) -> Records:
    """Put columns, [N] each, side by side."""
    length = len(next(iter(values.values())))
    rows = np.empty(length, [(name, own.dtype) for name, own in values.items()])
    for name, own in values.items():
        rows[name] = own
    return rows


def is_missing(column: Column, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which raw values are gaps; the shape of `values`."""
    if column.kind is Kind.CATEGORY:
        return values == ""
    return values == NO_DATE if column.kind is Kind.DATE else np.isnan(values)


def check_records(columns: Sequence[Column], rows: Records) -> None:
    """Refuse rows that are not what the columns say.

    Raises:
        UserError: a column is missing, of another type, or holds an infinite number.
    """
    names = rows.dtype.names or ()
    missing = [column.name for column in columns if column.name not in names]
    if missing:
        raise UserError(
            f"Expected the column{'s' * (len(missing) > 1)} {', '.join(missing)} but found "
            f"{', '.join(names) or 'none'}. Name them so; a gap is allowed, a missing column is "
            "not."
        )
    for column in columns:
        values = rows[column.name]
        dtype = "str" if values.dtype.kind == "U" else values.dtype.name
        if dtype != column.dtype:
            raise UserError(
                f"Expected `{column.name}` ({column.kind}) as {column.dtype} but got {dtype}."
            )
        if column.kind is Kind.NUMBER and np.isinf(values).any():
            row = int(np.flatnonzero(np.isinf(values))[0])
            raise UserError(
                f"Expected finite numbers in `{column.name}` but row {row} has {values[row]}. "
                "Mend it, or leave it empty: a gap is filled in."
            )
