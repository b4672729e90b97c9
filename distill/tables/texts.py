"""The text of a category: the same for a value whatever it comes in, CSV, Parquet or JSON.

In CSV a text is what is written, so that 007 is not 7. Parquet and JSON tell numbers from texts,
and writers differ in how they write numbers: pandas makes 3.0 of 3 where a column has gaps. What
training has seen says which it is. Knows nothing of files.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

GAPS = {"", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null", "-NaN", "-nan", "#NA", "#N/A"}
GAPS |= {"#N/A N/A", "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN"}  # all that are gaps to Arrow
BOOLEANS = ("false", "true")
MAX_TEXT = 1024  # characters of a value, unless training has seen longer ones

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?")
_PADDED = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
WHOLE = r"^(-?\d+)\.0+$"
_WHOLE = re.compile(WHOLE)


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How the values of one category are spelled as texts.

    Attributes:
        seen: the texts that training has seen; none while it is yet to see them.
        is_number: whether all of them are numbers: a whole one is spelled without a fraction.
        is_boolean: whether all of them are true or false, in which case does not count.
        as_written: whether training took texts as they were written; before it did, 007 was 7.
    """

    seen: frozenset[str] = frozenset()
    is_number: bool = False
    is_boolean: bool = False
    as_written: bool = True

    @staticmethod
    def of(seen: Collection[str], *, as_written: bool = True) -> "Spelling":
        """Tell it by the texts that training has seen."""
        present = [text for text in seen if text not in GAPS]
        return Spelling(
            seen=frozenset(seen),
            is_number=bool(present) and all(map(_NUMBER.fullmatch, present)),
            is_boolean=bool(present) and all(text in BOOLEANS for text in present),
            as_written=as_written,
        )

    @cached_property
    def max_length(self) -> int:
        """Characters that a value may have: every row of a column has the room of its longest."""
        return max([MAX_TEXT, *map(len, self.seen)])

    def __call__(self, value: str | bool | int | float | None) -> str:
        """Spell a value; a gap is ""."""
        if value is None:
            return ""
        if type(value) is bool:
            return str(value).lower()
        return self._text(value) if isinstance(value, str) else self._number(value)

    def _text(self, text: str) -> str:
        if text in self.seen:
            return text
        if text in GAPS:
            return ""
        if self.is_boolean and text.lower() in BOOLEANS:
            return text.lower()
        if not self.is_number:
            return text
        if not self.as_written and _PADDED.fullmatch(text):
            return self._number(int(text) if text.lstrip("+-").isdecimal() else float(text))
        return _WHOLE.sub(r"\1", text)

    def _number(self, number: int | float) -> str:
        if math.isnan(number):
            return "nan" if "nan" in self.seen else ""
        spelled = number_text(number)
        if spelled in self.seen or not isinstance(number, float):
            return spelled
        # 3.0 stands among words as it is, and Arrow, by which training once wrote, makes 1e+10.
        others = (str(number), np.format_float_scientific(number, trim="-", exp_digits=1))
        return next((own for own in others if own in self.seen), spelled)


def spellings_of(
    categories: Mapping[str, Collection[str]], *, as_written: bool = True
) -> dict[str, Spelling]:
    """Tell the spelling of several categories by the texts that training has seen of each."""
    return {name: Spelling.of(seen, as_written=as_written) for name, seen in categories.items()}


def number_text(number: int | float) -> str:
    """Write a number as short as it can be: 3, not 3.0."""
    if isinstance(number, float) and number.is_integer() and abs(number) < 1e16:
        return str(int(number))
    return str(number)


def kind_of_texts(texts: Iterable[str]) -> type[int] | type[float] | type[bool] | None:
    """Say what texts are that a program wrote for numbers or booleans; None where they are texts.

    A number is one that is the same when it is read and written again, but for the .0 of a whole
    one: 7, 7.0 and 1.5 are, 007, +7 and 1.50 are not.
    """
    present = [_WHOLE.sub(r"\1", text) for text in texts]
    if not present:
        return None
    if all(text.lower() in BOOLEANS for text in present):
        return bool
    if all(map(_NUMBER.fullmatch, present)):
        for kind in (int, float):
            if all(_comes_back(text, kind) for text in present):
                return kind
    return None


def _comes_back(text: str, kind: type[int] | type[float]) -> bool:
    try:
        number = kind(text)
    except ValueError:
        return False
    return number_text(number) == text and (kind is float or -(2**63) <= number < 2**63)
