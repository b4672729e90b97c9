"""Arrays through a socket between two processes of ours: a frame is a header and bytes.

Nothing is pickled: what arrives is a JSON header and the numbers, or the strings and their lengths,
that it announces. A string takes its own length alone, whatever that of its neighbours is. Knows
nothing of models.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TEXT, _LENGTH = "text", np.dtype("<i8")
_LENGTHS = struct.Struct("<QIQ")  # number, bytes of the header, of the arrays
PREFIX_BYTES = _LENGTHS.size
MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """How a frame begins.

    Attributes:
        number: which request it belongs to.
        header_bytes: length of the header.
        body_bytes: length of the arrays.
    """

    number: int
    header_bytes: int
    body_bytes: int

    @staticmethod
    def parse(data: bytes) -> "Prefix":
        """Read one.

        Raises:
            ValueError: its lengths are nonsense.
        """
        number, header, body = _LENGTHS.unpack(data)
        if header > MAX_HEADER_BYTES or body > 1 << 34:
            raise ValueError(f"a frame of {header} and {body} bytes")
        return Prefix(number=number, header_bytes=header, body_bytes=body)


def pack(
    number: int, facts: dict[str, Any], arrays: Mapping[str, NDArray[Any]] | None = None
) -> bytes:
    """Write a frame.

    Args:
        number: which request it belongs to.
        facts: what is to be said beside the arrays.
        arrays: by name, of numbers or strings.
    """
    layout, parts = [], []
    for name, array in (arrays or {}).items():
        if array.dtype.kind in "OU":
            texts = [text.encode("utf-8", "surrogatepass") for text in array.ravel().tolist()]
            layout.append((name, _TEXT, array.shape))
            parts += [np.array([len(text) for text in texts], _LENGTH).tobytes(), *texts]
        else:
            layout.append((name, array.dtype.str, array.shape))
            parts.append(np.ascontiguousarray(array).tobytes())
    header = json.dumps({**facts, "arrays": layout}).encode()
    body = b"".join(parts)
    return b"".join((_LENGTHS.pack(number, len(header), len(body)), header, body))


def unpack(header: bytes, body: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what `pack` wrote, without its prefix; strings come as objects.

    Raises:
        ValueError: it is something else.
    """
    facts = json.loads(header)
    arrays, start = {}, 0
    for name, descr, shape in facts.pop("arrays"):
        is_text, count = descr == _TEXT, math.prod(shape)
        dtype = _LENGTH if is_text else np.dtype(descr)
        if dtype.kind not in "biufc":
            raise ValueError(f"a frame of {dtype}")
        array = np.frombuffer(body, dtype, count, start) if count else np.empty(0, dtype)
        start += count * dtype.itemsize
        if is_text:
            ends = start + np.cumsum(array)
            array = np.empty(count, object)
            for place, end in enumerate(ends.tolist()):
                array[place], start = body[start:end].decode("utf-8", "surrogatepass"), end
        arrays[name] = array.reshape(shape)
    if start > len(body):
        raise ValueError(f"a frame of {len(body)} bytes for {start}")
    return facts, arrays
