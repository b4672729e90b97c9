"""Dates of a table, as text, numbers or dates, to milliseconds since 1970 in UTC.

Text is ISO 8601, or as a format of `strptime` says, and so are numbers where there is a format;
else they are milliseconds already. Knows nothing of files.
"""

import logging
import re
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distill.errors import UserError
from distill.tables.columns import NO_DATE
from distill.tables.texts import WHOLE

log = logging.getLogger(__name__)

YEAR_MS = 365 * 86_400_000
NUM_LOOKED_AT = 1000  # different numbers, to tell whether they are dates written as digits
DIGITS = (
    "%Y%m%d", "%d%m%Y", "%m%d%Y", "%Y%m", "%y%m%d", "%d%m%y",
    "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S",
)  # fmt: skip

_MOMENT = pa.timestamp("ms")


def milliseconds(values: pa.ChunkedArray, name: str, date_format: str | None) -> NDArray[np.int64]:
    """Make moments of a column's values, [N]; a gap is `columns.NO_DATE`.

    Args:
        values: of the file.
        name: of the column, for messages.
        date_format: of text and of numbers, as of `strptime`; text may be ISO 8601 nevertheless.

    Raises:
        UserError: a value is no date, or numbers are dates as digits, and no format says so.
    """
    is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    try:
        if pa.types.is_floating(values.type):
            is_gap = values.is_null(nan_is_null=True)
            values = pc.call_function("if_else", [is_gap, pa.scalar(None, values.type), values])
        if date_format and is_number:
            values = values.cast(pa.int64()).cast(pa.string())
        if date_format and is_text(values):
            values = _parsed(values, name, date_format)
        elif is_number:
            _check_numbers(values, name)
        elif pa.types.is_timestamp(values.type) and values.type.tz:
            values = values.cast(pa.timestamp(values.type.unit, "UTC"))
        moments = values.cast(_MOMENT, safe=False).cast(pa.int64())
    except pa.ArrowException as error:
        raise UserError(
            f"Expected dates in `{name}` but {first_bad(values, _MOMENT)}. Write them as "
            "2024-03-31 or 2024-03-31T12:00:00, or say how they are written, such as "
            "`data.date_format=%d.%m.%Y`."
        ) from error
    return moments.fill_null(NO_DATE).to_numpy()


def is_text(values: pa.ChunkedArray) -> bool:
    """Tell whether values are text."""
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(kind(values.type) for kind in kinds)


def first_bad(values: pa.ChunkedArray, dtype: pa.DataType, *, besides: str = "") -> str:
    """Say which is the first value that is none of a type, if there is one `besides` a pattern."""
    like_others = ""
    for row, value in enumerate(values):
        try:
            value.cast(dtype)
        except pa.ArrowException:
            said = f"row {row:,} has {value.as_py()!r}"
            if not (besides and re.fullmatch(besides, str(value))):
                return said
            like_others = like_others or said
    return like_others or f"they are {values.type}"


def _parsed(values: pa.ChunkedArray, name: str, date_format: str) -> pa.ChunkedArray:
    values = values.cast(pa.string())
    width = _width(date_format)
    if width:  # what wrote 1022024 took 01022024 for a number
        whole = pc.ReplaceSubstringOptions(WHOLE, r"\1")
        values = pc.call_function("replace_substring_regex", [values], whole)
        values = pc.call_function("utf8_lpad", [values], pc.PadOptions(width, "0"))
    options = pc.StrptimeOptions(format=date_format, unit="ms", error_is_null=True)
    found = pc.call_function("strptime", [values], options)
    if found.null_count == values.null_count:
        return found
    try:
        return values.cast(_MOMENT)
    except pa.ArrowException as error:
        bad = pc.call_function("and", [found.is_null(), values.is_valid()])
        row = pc.call_function("index", [bad], pc.IndexOptions(pa.scalar(True))).as_py()
        raise UserError(
            f"Expected dates written as {date_format} in `{name}` but row {row:,} has "
            f"{values[row].as_py()!r}. Mend it, or say how they are written: `data.date_format=`."
        ) from error


def _width(date_format: str) -> int | None:
    """Count the digits of a format that writes nothing else; None of any other."""
    written = datetime(2024, 12, 31, 23, 59, 59).strftime(date_format)
    return len(written) if written.isdecimal() else None


def _check_numbers(values: pa.ChunkedArray, name: str) -> None:
    """Refuse numbers that are dates written as digits; warn of those that are no date of our time.

    Raises:
        UserError: says by which format they can be read.
    """
    numbers = values.drop_null().unique().to_numpy()
    written = _format_of(numbers[:NUM_LOOKED_AT])
    if written:
        raise UserError(
            f"Expected dates in `{name}` but it holds numbers such as {numbers[0]:.0f}, which are "
            "dates written as digits; a number would be milliseconds since 1970. Say how they are "
            f"written, such as `data.date_format={written}`."
        )
    if len(numbers) and (np.abs(numbers) < YEAR_MS).all():
        log.warning(
            "column `%s`: numbers such as %g are taken for milliseconds since 1970, and all are "
            "within a year of it; `date_format` says how dates are written", name, numbers[0],
        )  # fmt: skip


def _format_of(numbers: NDArray) -> str | None:
    if not len(numbers) or (numbers < 0).any() or (numbers % 1 != 0).any():
        return None
    texts = [f"{number:.0f}" for number in numbers.tolist()]
    longest = max(map(len, texts))
    for written in DIGITS:
        width = _width(written)
        assert width is not None
        padded = [text.zfill(width) for text in texts]
        if width - 1 <= longest <= width and all(_is_date(text, written) for text in padded):
            return written
    return None


def _is_date(text: str, written: str) -> bool:
    try:
        return 1900 <= datetime.strptime(text, written).year <= 2100
    except ValueError:
        return False
