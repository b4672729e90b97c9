"""Dates of a table, as text, numbers or dates, to milliseconds since 1970 in UTC.

Text is ISO 8601, or as a format of `strptime` says, and so are numbers where there is a format;
else they are milliseconds already. Knows nothing of files.
"""

import logging
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distill.errors import UserError
from distill.tables.columns import NO_DATE
from distill.tables.texts import WHOLE
from distill.tables.values import first_bad, is_text

log = logging.getLogger(__name__)

YEAR_MS = 365 * 86_400_000
FIRST_YEAR = 1000  # of a format: 01.02.24 is not of the year 24
SECONDS = "%s"  # since 1970: a format that Python writes but does not read
NUM_LOOKED_AT = 1000  # different numbers, to tell whether they are dates written as digits
DIGITS = (
    "%Y%m%d", "%d%m%Y", "%m%d%Y", "%Y%m", "%y%m%d", "%d%m%y",
    "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S",
)  # fmt: skip

_MOMENT = pa.timestamp("ms")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    wanted = _MOMENT
    try:
        if pa.types.is_floating(values.type):  # as pandas writes whole numbers with gaps
            wanted = pa.int64()
            is_gap = values.is_null(nan_is_null=True)
            values = pc.call_function("if_else", [is_gap, pa.scalar(None, values.type), values])
            if not date_format:
                _check_numbers(values, name)
                values = pc.call_function("round", [values])
            values, wanted = values.cast(wanted), _MOMENT
        elif is_number and not date_format:
            _check_numbers(values, name)
        if date_format and is_number:
            values = values.cast(pa.string())
        if date_format and is_text(values):
            values = _parsed(values, name, date_format)
        elif pa.types.is_timestamp(values.type) and values.type.tz:
            values = values.cast(pa.timestamp(values.type.unit, "UTC"))
        moments = values.cast(_MOMENT, safe=False).cast(pa.int64())
    except pa.ArrowException as error:
        raise UserError(
            f"Expected dates in `{name}` but {first_bad(values, wanted)}. Write them as "
            "2024-03-31 or 2024-03-31T12:00:00, or say how they are written, such as "
            "`data.date_format=%d.%m.%Y`."
        ) from error
    return moments.fill_null(NO_DATE).to_numpy()


def _parsed(values: pa.ChunkedArray, name: str, date_format: str) -> pa.ChunkedArray:
    """Read text by a format, all of it or none: that may be ISO 8601."""
    width = _width(date_format)
    if width:  # what wrote 1022024 took 01022024 for a number
        whole = pc.ReplaceSubstringOptions(WHOLE, r"\1")
        values = pc.call_function("replace_substring_regex", [values], whole)
        values = pc.call_function("utf8_lpad", [values], pc.PadOptions(width, "0"))
    coded = values.combine_chunks().dictionary_encode()
    moments, bad = _moments(coded.dictionary, date_format)
    if moments is not None:
        return pa.chunked_array([moments.take(coded.indices)])
    try:
        return values.cast(_MOMENT)
    except pa.ArrowException as error:
        row = pc.call_function("index", [values], pc.IndexOptions(pa.scalar(bad, values.type)))
        raise UserError(
            f"Expected dates written as {date_format} in `{name}` but row {row.as_py():,} has "
            f"{bad!r}. Mend it, or say how they are written: `data.date_format=`."
        ) from error


def _moments(texts: pa.Array, date_format: str) -> tuple[pa.Array | None, str | None]:
    """Read different texts to moments, [N]; and say which is the first that is no date.

    Arrow is fast but takes 31.02. for 2 March, and 24 for the year 24: what it does not write as it
    was is read by Python.
    """
    moments, by_python = np.zeros(len(texts), np.int64), np.arange(len(texts))
    if date_format != SECONDS and "%z" not in date_format.lower():
        options = pc.StrptimeOptions(format=date_format, unit="s", error_is_null=True)
        read = pc.call_function("strptime", [texts], options)
        written = pc.call_function("strftime", [read], pc.StrftimeOptions(date_format))
        is_late = pc.call_function("greater_equal", [pc.call_function("year", [read]), FIRST_YEAR])
        is_same = pc.call_function("and", [pc.call_function("equal", [written, texts]), is_late])
        by_python = np.flatnonzero(~is_same.fill_null(False).to_numpy(zero_copy_only=False))
        moments = 1000 * read.cast(pa.int64()).fill_null(0).to_numpy()
    for row in by_python:
        moment = _moment(text := texts[row].as_py(), date_format)
        if moment is None:
            return None, text
        moments[row] = moment
    return pa.array(moments).cast(_MOMENT), None


def _moment(text: str, date_format: str) -> int | None:
    """Read one text to milliseconds since 1970 in UTC; None if it is no date."""
    try:
        if date_format == SECONDS:
            moment = datetime.fromtimestamp(int(text), UTC)
        else:
            moment = datetime.strptime(text, date_format)
    except (ValueError, OverflowError, OSError):  # the last two of seconds beyond all years
        return None
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1) if moment.year >= FIRST_YEAR else None


def _width(date_format: str) -> int | None:
    """Count the digits of a format that writes nothing else; None of any other.

    Raises:
        UserError: it is no format of dates.
    """
    written = datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC).strftime(date_format)
    if date_format == SECONDS:
        return None
    try:
        datetime.strptime(written, date_format)
    except ValueError as error:
        raise UserError(
            f"Expected a format of dates as of `strptime`, such as %d.%m.%Y, but got "
            f"{date_format!r}: {error}. Mend `date_format`."
        ) from error
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
