"""What Arrow's values are, and which are not what they should be. Knows nothing of files."""

import re

import pyarrow as pa

MAX_ALIKE = 100  # values of a pattern that are looked at, for one that is worse


def is_text(values: pa.ChunkedArray) -> bool:
    """Tell whether values are text."""
    return pa.types.is_string(values.type) or pa.types.is_large_string(values.type)


def first_bad(values: pa.ChunkedArray, dtype: pa.DataType, *, besides: str = "") -> str:
    """Say which is the first value that is none of a type, if there is one `besides` a pattern."""
    like_others, row = "", -1
    for _ in range(MAX_ALIKE):
        row = _next_bad(values, dtype, row + 1)
        if row == len(values):
            break
        value = values[row].as_py()
        said = f"row {row:,} has {value!r}"
        if not (besides and re.fullmatch(besides, str(value))):
            return said
        like_others = like_others or said
    return like_others or f"they are {values.type}"


def _next_bad(values: pa.ChunkedArray, dtype: pa.DataType, start: int) -> int:
    """Find the first row from `start` that is none of a type; the number of rows if all are."""
    size = 1
    while start < len(values):
        part = values.slice(start, size)
        try:
            part.cast(dtype)
        except pa.ArrowException:
            if len(part) == 1:
                return start
            size = len(part) // 2
        else:
            start, size = start + len(part), 2 * size
    return start
