"""Columns of a table as a model takes them: a name and a kind each, and records of raw values.

Raw means as they lie in the file: in their own units, with gaps. Rows are records, one structured
NumPy array, [N], with a field for each column: sliced, saved without pickle and hashed like any
other.
Knows nothing of files, nor of how columns are encoded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column that a model takes.

    Attributes:
        name: of the column, and of the exported model's input.
        kind: of its values.
        length: how many of them a row has: the steps of a window; 1 in a table.
    """

    name: str
    kind: Kind
    length: int = 1


def make_records(values: Mapping[str, NDArray[Any]]) -> Records:
    """Put columns, [N] or [N, length] each, side by side."""
    count = len(next(iter(values.values())))
    rows = np.empty(count, [(name, own.dtype, own.shape[1:]) for name, own in values.items()])
    for name, own in values.items():
        rows[name] = own
    return rows


def is_missing(column: Column, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which raw values are gaps; the shape of `values`."""
    if column.kind is Kind.CATEGORY:
        return values == ""
    return values == NO_DATE if column.kind is Kind.DATE else np.isnan(values)
