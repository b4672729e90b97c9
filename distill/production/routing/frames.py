"""Arrays through a socket between two processes of ours: a frame is a header and bytes.

Nothing is pickled: what arrives is a JSON header and the numbers or fixed-length strings that it
announces. Knows nothing of models.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        plain = array.astype(np.str_) if array.dtype.hasobject else np.ascontiguousarray(array)
        layout.append((name, plain.dtype.str, array.shape))
        parts.append(plain.tobytes())
    header = json.dumps({**facts, "arrays": layout}).encode()
    body = b"".join(parts)
    return b"".join((_LENGTHS.pack(number, len(header), len(body)), header, body))


def unpack(header: bytes, body: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what `pack` wrote, without its prefix; strings of any length come as fixed ones.

    Raises:
        ValueError: it is something else.
    """
    facts = json.loads(header)
    arrays, start = {}, 0
    for name, descr, shape in facts.pop("arrays"):
        dtype = np.dtype(descr)
        if dtype.hasobject:
            raise ValueError("a frame of objects")
        count = math.prod(shape)
        array = np.frombuffer(body, dtype, count, start) if count * dtype.itemsize else None
        arrays[name] = np.empty(shape, dtype) if array is None else array.reshape(shape)
        start += count * dtype.itemsize
    return facts, arrays
