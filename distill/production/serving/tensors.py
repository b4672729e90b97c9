"""Tensors of the Open Inference Protocol v2: types, JSON data, and the binary extension.

Everything that comes in is checked before NumPy sees it: a list of mixed types would otherwise be
guessed at, and one long string among numbers would be given its length in every element. Source:
KServe, "Open Inference Protocol"; Triton, "Binary Tensor Data Extension". Knows nothing of models.
"""

import math
import reprlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from distill.production.serving.refusals import bad_input

MAX_RANK = 16

_NUMPY = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
_ONNX = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_ALLOWED = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float, type(None)}, "O": {str}}
_MEANT = {"b": "true and false", "u": "whole numbers", "i": "whole numbers", "f": "numbers",
          "O": "strings"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """What a tensor of a model looks like.

    Attributes:
        name: of the input or output.
        datatype: as the protocol names it.
        shape: sizes; None where any will do.
    """

    name: str
    datatype: str
    shape: tuple[int | None, ...]

    @property
    def dtype(self) -> np.dtype:
        """As NumPy has it; of text, objects."""
        return _NUMPY[self.datatype]

    def fits(self, shape: Sequence[int]) -> bool:
        """Tell whether an array of this shape can go in."""
        return len(shape) == len(self.shape) and all(
            own is None or own == given for own, given in zip(self.shape, shape, strict=True)
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """As the protocol describes it: -1 where any size will do."""
        shape = [-1 if size is None else size for size in self.shape]
        return {"name": self.name, "datatype": self.datatype, "shape": shape}


def datatype_of(onnx_type: str) -> str | None:
    """Name an ONNX type as the protocol does; None for one that it lacks."""
    return _ONNX.get(onnx_type)


def is_datatype(name: Any) -> TypeGuard[str]:
    """Tell whether the protocol knows a type of that name."""
    return isinstance(name, str) and name in _NUMPY


def check_shape(shape: Any, name: str) -> tuple[int, ...]:
    """Return the shape that a request gives, or refuse it."""
    whole = isinstance(shape, list) and len(shape) <= MAX_RANK and set(map(type, shape)) <= {int}
    if not whole or any(not 1 <= size < 2**63 for size in shape):
        raise bad_input(
            f"Expected `shape` of the input `{name}` to be a list of at most {MAX_RANK} "
            f"sizes, of 1 at least, but got {reprlib.repr(shape)}."
        )
    return tuple(shape)


def from_data(data: Any, datatype: str, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """Make an array of JSON data: a list in row-major order, flat or nested as the shape is.

    null is NaN in floats.

    Raises:
        RefusedError: the values are not of the type, or not as many as the shape has.
    """
    flat = _flattened(data, shape, name)
    dtype, count = _NUMPY[datatype], math.prod(shape)
    if len(flat) != count:
        raise bad_input(
            f"Expected {count:,} values in `data` of the input `{name}`, as its shape "
            f"{list(shape)} has, but got {len(flat):,}."
        )
    if not set(map(type, flat)) <= _ALLOWED[dtype.kind]:
        odd = next(value for value in flat if type(value) not in _ALLOWED[dtype.kind])
        raise bad_input(
            f"Expected {_MEANT[dtype.kind]} in `data` of the input `{name}`, which is {datatype}, "
            f"but found {reprlib.repr(odd)}."
        )
    try:
        with np.errstate(over="ignore"):  # what is too large for the type is an infinity
            array = np.array(flat, dtype)
    except OverflowError as error:
        limits = np.iinfo(dtype)
        odd = next(value for value in flat if not limits.min <= value <= limits.max)
        raise bad_input(
            f"Expected values of {datatype} in `data` of the input `{name}`, {limits.min} to "
            f"{limits.max}, but found {reprlib.repr(odd)}."
        ) from error
    return array.reshape(shape)


def _flattened(data: Any, shape: tuple[int, ...], name: str) -> list[Any]:
    if type(data) is not list:
        raise bad_input(
            f"Expected `data` of the input `{name}` to be a list but got {reprlib.repr(data)}."
        )
    for size in shape[1:]:
        if not data or type(data[0]) is not list:
            break
        if any(type(part) is not list or len(part) != size for part in data):
            raise bad_input(
                f"Expected `data` of the input `{name}` to be flat, or nested as its shape "
                f"{list(shape)}, but it is ragged."
            )
        data = list(chain.from_iterable(data))
    return data


def from_bytes(data: memoryview, datatype: str, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """Make an array of the binary extension's bytes: little-endian, row-major, no padding.

    Raises:
        RefusedError: there are more or fewer bytes than the shape has, or text is no UTF-8.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        return _texts(data, count, name).reshape(shape)
    dtype = _NUMPY[datatype]
    if len(data) != count * dtype.itemsize:
        raise bad_input(
            f"Expected {count * dtype.itemsize:,} bytes for the input `{name}`, {datatype} "
            f"{list(shape)}, but `binary_data_size` is {len(data):,}."
        )
    if datatype == "BOOL":
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape)


def _texts(data: memoryview, count: int, name: str) -> NDArray[Any]:
    found: list[str] = []
    at, end = 0, len(data)
    try:
        while at < end:
            (length,) = struct.unpack_from("<I", data, at)
            at += 4
            if at + length > end:
                raise ValueError("an element is longer than what follows")
            found.append(str(data[at : at + length], "utf-8"))
            at += length
        if len(found) != count:
            raise ValueError(f"there are {len(found):,}")
    except (ValueError, struct.error) as error:
        raise bad_input(
            f"Expected {count:,} texts in UTF-8, each after 4 bytes with its length, as bytes of "
            f"the input `{name}` but {error}."
        ) from error
    array = np.empty(count, object)
    array[:] = found
    return array


def to_bytes(array: NDArray[Any], datatype: str) -> bytes:
    """Write an array as the binary extension has it."""
    if datatype != "BYTES":
        return np.ascontiguousarray(array, _NUMPY[datatype]).tobytes()
    texts = (str(value).encode() for value in array.ravel())
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def to_data(array: NDArray[Any], datatype: str) -> Any:
    """Lay an array out as what the JSON writer takes: flat, row-major."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return [str(value) for value in flat] if datatype == "BYTES" else flat
