"""JSON that a client sends, read strictly: no duplicate keys, no NaN, no half a character.

orjson reads ten times as fast as the standard library but keeps the last of two equal keys; so the
keys that it kept are counted against the colons in the text, and only where there are more colons
(in a text, or of a duplicate) the standard library reads it again and looks.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import orjson

from distill.production.serving.refusals import malformed

MAX_SHORT_TEXT = 256  # characters of a name, such as of who is asking
LARGE_BODY = 256 * 1024  # is read in a thread: the event loop has others to serve

More = ParamSpec("More")
Result = TypeVar("Result")


async def aside(
    read: Callable[Concatenate[bytes, More], Result],
    body: bytes,
    *more: More.args,
    **named: More.kwargs,
) -> Result:
    """Read a body: a large one in a thread."""
    if len(body) > LARGE_BODY:
        return await asyncio.to_thread(read, body, *more, **named)
    return read(body, *more, **named)


def read_document(body: bytes | memoryview, what: str = "the body") -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RefusedError: it is none, nests too deep, or has a key twice.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed(f"Expected {what} to be JSON but {error}.") from error
    if type(document) is not dict:
        raise malformed(
            f"Expected {what} to be a JSON object but got {type(document).__name__}. "
            "Put it in curly brackets."
        )
    raw = bytes(body)
    if raw.count(b":") > _num_keys(document):
        _refuse_duplicates(raw, what)
    return document


def _num_keys(document: dict[str, Any]) -> int:
    """Count keys as deep as a request of the protocol has them."""
    count, waiting = 0, [document]
    while waiting:
        current = waiting.pop()
        count += len(current)
        for value in current.values():
            if type(value) is dict:
                waiting.append(value)
            elif type(value) is list and value and type(value[0]) is dict:
                waiting += [item for item in value if type(item) is dict]
    return count


def _refuse_duplicates(raw: bytes, what: str) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = next(name for name, count in counts.items() if count > 1)
            raise malformed(f"Expected each key of {what} once but `{twice}` is there twice.")
        return found

    try:
        json.loads(raw, object_pairs_hook=unique)
    except RecursionError as error:
        raise malformed(f"Expected {what} to be less deeply nested.") from error
    except ValueError as error:  # what one reader takes and the other does not, such as long digits
        raise malformed(f"Expected {what} to be JSON but {error}.") from error


def write_document(document: Any) -> bytes:
    """Write JSON; NumPy's arrays are lists, and what is no finite number is null."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def text_field(document: dict[str, Any], name: str) -> str | None:
    """Take a short text of a document; None where it has none.

    Raises:
        RefusedError: it is no text, or a long one.
    """
    value = document.get(name)
    if value is not None and (type(value) is not str or len(value) > MAX_SHORT_TEXT):
        raise malformed(f"Expected `{name}` to be a text of at most {MAX_SHORT_TEXT} characters.")
    return value
