"""Requests and responses of the Open Inference Protocol v2: bytes to tensors and back.

Knows the protocol's words; what a model takes is for `signature` to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import nearest
from distill.production.serving.documents import MAX_SHORT_TEXT, read_document, write_document
from distill.production.serving.refusals import bad_input, malformed
from distill.production.serving.tensors import (
    TensorSpec,
    check_shape,
    from_bytes,
    from_data,
    is_datatype,
    to_bytes,
    to_data,
)

HEADER_LENGTH = b"inference-header-content-length"
JSON_TYPE, BINARY_TYPE = b"application/json", b"application/octet-stream"


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input as it was sent.

    Attributes:
        datatype: as the protocol names it.
        values: of that type and shape.
    """

    datatype: str
    values: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request says.

    Attributes:
        id: the client's own, given back; None where there is none.
        unit: who is asking, of `parameters`.
        inputs: by name.
        outputs: names to whether they are wanted as binary; None wants all.
        is_binary: how outputs are wanted that do not say so themselves.
    """

    id: str | None
    unit: str | None
    inputs: dict[str, Tensor]
    outputs: dict[str, bool] | None
    is_binary: bool


def read_request(body: bytes, header_length: bytes | None) -> Asked:
    """Read the body of `infer`.

    Args:
        body: JSON, and what follows it in the binary extension.
        header_length: the header that says where the JSON ends; None where all is JSON.

    Raises:
        RefusedError: it is not the protocol's.
    """
    json_part, binary = _parted(body, header_length)
    document = read_document(json_part, "the request")
    parameters = _mapping(document.get("parameters"), "`parameters`")
    binary_output = parameters.get("binary_data_output", False)
    return Asked(
        id=_text_or_none(document.get("id"), "`id`"),
        unit=_text_or_none(parameters.get("unit"), "`parameters.unit`", MAX_SHORT_TEXT),
        inputs=_inputs(document.get("inputs"), binary),
        outputs=_outputs(document.get("outputs"), _flag(binary_output, "binary_data_output")),
        is_binary=_flag(binary_output, "binary_data_output"),
    )


def _parted(body: bytes, header_length: bytes | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    length = int(header_length) if header_length.isdigit() and len(header_length) < 19 else -1
    if not 0 <= length <= len(body):
        raise malformed(
            f"Expected Inference-Header-Content-Length to be 0 to {len(body):,}, the length of the "
            f"body, but got {header_length.decode('latin-1')[:40]!r}."
        )
    return body[:length], memoryview(body)[length:]


def _inputs(given: Any, binary: memoryview) -> dict[str, Tensor]:
    if type(given) is not list or not given:
        raise malformed("Expected `inputs` to be a list of the input tensors.")
    found: dict[str, Tensor] = {}
    at = 0
    for entry in given:
        if type(entry) is not dict or type(entry.get("name")) is not str:
            raise malformed("Expected each of `inputs` to be an object with a `name`.")
        name = entry["name"]
        if name in found:
            raise bad_input(f"Expected each input once but `{name}` is there twice.")
        datatype = entry.get("datatype")
        if not is_datatype(datatype):
            raise bad_input(
                f"Expected `datatype` of the input `{name}` to be one of the protocol's but got "
                f"{str(datatype)[:40]!r}. Write FP32, INT64, BYTES and the like."
            )
        shape = check_shape(entry.get("shape"), name)
        size = _mapping(entry.get("parameters"), f"`parameters` of `{name}`").get(
            "binary_data_size"
        )
        if size is None:
            values = from_data(entry.get("data"), datatype, shape, name)
        else:
            end = _end(at, size, name, len(binary), "data" in entry)
            values = from_bytes(binary[at:end], datatype, shape, name)
            at = end
        found[name] = Tensor(datatype=datatype, values=values)
    if at != len(binary):
        raise malformed(
            f"Expected {at:,} bytes after the JSON, as `binary_data_size` of the inputs says, but "
            f"there are {len(binary):,}."
        )
    return found


def _end(at: int, size: Any, name: str, available: int, has_data: bool) -> int:
    if type(size) is not int or size < 0 or at + size > available:
        raise malformed(
            f"Expected `binary_data_size` of the input `{name}` to be at most the "
            f"{available - at:,} bytes that are left after the JSON but got {str(size)[:40]}."
        )
    if has_data:
        raise malformed(f"Expected `data` or `binary_data_size` of the input `{name}`, not both.")
    return at + size


def _outputs(given: Any, is_binary: bool) -> dict[str, bool] | None:
    if given is None or given == []:
        return None
    wanted: dict[str, bool] = {}
    for entry in given if type(given) is list else [None]:
        if type(entry) is not dict or type(entry.get("name")) is not str:
            raise malformed("Expected `outputs` to be a list of objects with a `name`.")
        name = entry["name"]
        parameters = _mapping(entry.get("parameters"), f"`parameters` of `{name}`")
        if parameters.get("classification"):
            raise bad_input(
                f"Expected no `classification` of the output `{name}`: that extension is not "
                "offered here. Ask /predict for labels."
            )
        if name in wanted:
            raise bad_input(f"Expected each output once but `{name}` is there twice.")
        wanted[name] = _flag(parameters.get("binary_data", is_binary), "binary_data")
    return wanted


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise malformed(f"Expected {what} to be an object.")
    return value


def _flag(value: Any, what: str) -> bool:
    if type(value) is not bool:
        raise malformed(f"Expected `{what}` to be true or false.")
    return value


def _text_or_none(value: Any, what: str, longest: int = 1024) -> str | None:
    if value is not None and (type(value) is not str or len(value) > longest):
        raise malformed(f"Expected {what} to be a text of at most {longest:,} characters.")
    return value


def wanted_outputs(asked: Asked, specs: Sequence[TensorSpec]) -> dict[str, bool]:
    """Say which outputs go into the response, and whether as binary.

    Raises:
        RefusedError: the model has no output of a name.
    """
    if asked.outputs is None:
        return {spec.name: asked.is_binary for spec in specs}
    known = [spec.name for spec in specs]
    for name in asked.outputs:
        if name not in known:
            raise bad_input(
                f"Expected outputs that the model has but got `{name[:60]}`. "
                f"{nearest(name[:60], known)}"
            )
    return asked.outputs


@dataclass(frozen=True, kw_only=True)
class Response:
    """A body, and where its JSON ends if bytes follow."""

    body: bytes
    header_length: int | None


def write_response(
    head: dict[str, Any],
    outputs: Mapping[str, NDArray[Any]],
    wanted: Mapping[str, bool],
    specs: Mapping[str, TensorSpec],
) -> Response:
    """Write the body of a response.

    Args:
        head: model, version, id and parameters.
        outputs: all that the model answered.
        wanted: see `wanted_outputs`.
        specs: of the outputs.
    """
    entries, parts = [], []
    for name, is_binary in wanted.items():
        values, datatype = outputs[name], specs[name].datatype
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": values.shape}
        if is_binary:
            parts.append(to_bytes(values, datatype))
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = to_data(values, datatype)
        entries.append(entry)
    head["outputs"] = entries
    json_part = write_document(head)
    if not parts:
        return Response(body=json_part, header_length=None)
    return Response(body=b"".join([json_part, *parts]), header_length=len(json_part))


def non_finite(values: NDArray[Any]) -> bool:
    """Tell whether floats hold NaN or an infinity; False of all other types."""
    return values.dtype.kind == "f" and not np.isfinite(values).all()
