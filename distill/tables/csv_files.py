"""Tables as CSV: how they are divided, and what their columns are by what lies in them.

Knows nothing of what columns are to a model.
"""

import codecs
import logging
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from distill.errors import UserError
from distill.tables.texts import WHOLE, kind_of_texts
from distill.tables.values import is_text

log = logging.getLogger(__name__)

DELIMITERS = ",;\t|"
INTEGER = r"[+-]?\d+"
DOTTED = r"[+-]?[1-9]\d{0,2}(\.\d{3})+"  # thousands where a comma divides decimals: 1.234
DECIMAL = rf"([+-]?\d+|{DOTTED}),\d+"  # with a comma: 12,50 and 1.234,50
THOUSANDS = r"[+-]?[1-9]\d{0,2},\d{3}"
_BAD_COLUMN = re.compile(r"In CSV column #(\d+)")


def read_csv(
    path: Path,
    *,
    delimiter: str | None,
    encoding: str,
    texts: Collection[str],
    codes: Collection[str],
) -> pa.Table:
    """Read CSV; see `table_files.read_table`.

    Raises:
        UserError: it is no text of that encoding, no table, or two columns share a name.
    """
    first = _first_line(path, encoding)
    delimiter = delimiter or max(DELIMITERS, key=first.count)
    reading = pa_csv.ReadOptions(encoding=encoding)
    parsing = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    forced = dict.fromkeys([*texts, *codes], pa.string())
    names: list[str] = []
    while True:
        converting = pa_csv.ConvertOptions(
            column_types=forced, strings_can_be_null=True, timestamp_parsers=[pa_csv.ISO8601]
        )
        try:
            names = pa_csv.open_csv(path, reading, parsing).schema.names
            check_names(names, path)
            table = pa_csv.read_csv(path, reading, parsing, converting)
            for name, values in zip(names, table.columns, strict=True):
                if pa.types.is_binary(values.type):
                    raise pa.ArrowInvalid(f"`{name}` is no {encoding}.")
            break
        except pa.ArrowInvalid as error:
            # What a column is, is guessed from its beginning; what turns out otherwise is text.
            found = _BAD_COLUMN.search(str(error))
            name = names[int(found[1])] if found and int(found[1]) < len(names) else None
            if name is None or name in forced:
                raise UserError(
                    f"Expected {path} to be {encoding} text, divided by {delimiter!r}, but it is "
                    f"not: {str(error).splitlines()[0]} Name another `data.delimiter` or "
                    "`data.encoding`, or mend it."
                ) from error
            forced[name] = pa.string()
    for name in set(codes).difference(texts).intersection(names):
        table = table.set_column(names.index(name), name, _codes(table[name]))
    found = [] if delimiter == "," else _decimals(table, {*texts, *codes})
    if not found:
        return table
    # What a point divides where a comma divides decimals, the text alone tells: 1.250 is no 1.25.
    pointed = [own.name for own in table.schema if pa.types.is_float64(own.type)]
    if pointed:
        converting = pa_csv.ConvertOptions(
            column_types=dict.fromkeys(pointed, pa.string()),
            include_columns=pointed,
            strings_can_be_null=True,
        )
        written = pa_csv.read_csv(path, reading, parsing, converting)
        for name in pointed:
            if _all(written[name], f"{DOTTED}|{INTEGER}"):
                table = table.set_column(names.index(name), name, written[name])
                found.append(name)
    log.info(
        "a comma divides decimals, and a point thousands, in %s",
        ", ".join(f"`{name}`" for name in found),
    )
    for name in found:
        numbers = _pointed(table[name]).cast(pa.float64())
        table = table.set_column(names.index(name), name, numbers)
    return table


def _decimals(table: pa.Table, texts: Collection[str]) -> list[str]:
    """Name the columns of nothing but numbers, some with decimal commas.

    Where all have three digits behind their comma it may divide thousands: another column has to
    say which it is.
    """
    written = [name for name in table.column_names if name not in texts and is_text(table[name])]
    found = [name for name in written if _all(table[name], f"{DECIMAL}|{DOTTED}|{INTEGER}")]
    commas = {name: _commas(table[name]) for name in found}
    if all(_all(own, THOUSANDS) for own in commas.values()):
        for name, own in commas.items():
            if len(own):
                log.warning(
                    "column `%s` is left as text: in numbers such as %s a comma may divide "
                    "decimals or thousands; write a point, or nothing, for it",
                    name,
                    own[0].as_py(),
                )
        return []
    return found


def _pointed(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write 1234.5 for 1.234,5."""
    for sign, instead in ((".", ""), (",", ".")):
        options = pc.ReplaceSubstringOptions(sign, instead)
        values = pc.call_function("replace_substring", [values], options)
    return values


def _commas(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Take those that have a comma."""
    options = pc.MatchSubstringOptions(",")
    has_comma = pc.call_function("match_substring", [values], options)
    return values.filter(has_comma.fill_null(False))


def _all(values: pa.ChunkedArray, pattern: str) -> bool:
    options = pc.MatchSubstringOptions(f"^({pattern})$")
    matched = pc.call_function("match_substring_regex", [values], options)
    return pc.call_function("all", [matched]).as_py() is not False


def _codes(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Take texts that are all numbers, or all true and false, for what a program wrote them of."""
    kind = kind_of_texts(values.unique().drop_null().to_pylist())
    if kind is None:
        return values
    if kind is bool:
        return pc.call_function("utf8_lower", [values]).cast(pa.bool_())
    whole = pc.ReplaceSubstringOptions(WHOLE, r"\1")
    numbers = pc.call_function("replace_substring_regex", [values], whole)
    return numbers.cast(pa.int64() if kind is int else pa.float64())


def _first_line(path: Path, encoding: str) -> str:
    with path.open("rb") as file:
        start = file.read(65536)
    line = start.removeprefix(codecs.BOM_UTF8).splitlines()[:1]
    try:
        if b"\0" in start or not line:
            raise ValueError("it is empty" if not line else "it holds zero bytes")
        return line[0].decode(encoding)
    except (ValueError, LookupError) as error:
        raise UserError(
            f"Expected a table as {encoding} text in {path} but {error}. Save it as CSV (UTF-8), "
            "name its `data.encoding`, or save it as Parquet."
        ) from error


def check_names(names: Sequence[str], path: Path) -> None:
    """Refuse columns without a name, or with another's.

    Raises:
        UserError: says which.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(
            f"Expected every column of {path} to have a name of its own but `{twice[0]}` is there "
            f"{Counter(names)[twice[0]]} times. Rename one."
        )
    if "" in names:
        raise UserError(f"Expected a name for every column of {path} but one has none. Name it.")
