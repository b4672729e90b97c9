"""A model repository for NVIDIA's Triton: `config.pbtxt`, labels, contract and the file itself.

Pure: facts in, text out. What may stand in `config.pbtxt` is Triton's `model_config.proto`
(message ModelConfig). Knows nothing of clusters.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.contract import CONTRACT_FILE, HASH_KEY
from distill.deployment.deploy.model import (
    Model,
    Tensor,
    check_name,
    check_whole_number,
    name_of,
)
from distill.errors import UsageError, UserError
from distill.files import to_json
from distill.tasks import TaskKind

_HEAD = (
    "# Written by `distill export deploy=`. Start Triton on the folder that holds this one's:\n"
    "#   tritonserver --model-repository=model_repository\n"
)
REPOSITORY, LABELS = "model_repository", "labels.txt"
VERSION = 1
_TYPES = {
    "bool": "BOOL",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float": "FP32",
    "double": "FP64",
    "string": "STRING",
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class _Word:
    """A member of an enumeration: it stands in text format without quotes."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Triton:
    """A repository with one model, which runs on the CPU with the threads it was measured with.

    Attributes:
        name: of the model; None makes one of the data's name.
        max_batch_size: samples of several requests that may be answered in one call; unused where
            the ONNX file fixes its batch.
        max_queue_delay_ms: that a request may wait for others; at 0 those that wait anyway are
            joined.
        num_threads: for one call.

    Raises:
        UsageError: a name that is none, or a number out of its bounds.
    """

    name: str | None = None
    max_batch_size: int = 64
    max_queue_delay_ms: float = 0.0
    num_threads: int = 1

    def __post_init__(self) -> None:
        check_name(self.name)
        check_whole_number("max_batch_size", self.max_batch_size, 1)
        check_whole_number("num_threads", self.num_threads, 1)
        delay = self.max_queue_delay_ms
        if not isinstance(delay, int | float) or not 0 <= delay < float("inf"):
            raise UsageError(
                f"Expected `max_queue_delay_ms` of `deploy` to be at least 0 but got {delay!r}. "
                "At 0 nobody waits."
            )

    def files(self, model: Model) -> dict[str, str | Path]:
        """Lay the repository out; the model comes last, and without it Triton loads nothing."""
        name = name_of(model, self.name)
        folder = f"{REPOSITORY}/{name}"
        labels = _labels(model)
        return {
            f"{folder}/config.pbtxt": _HEAD + text_format(self.config(model)),
            f"{folder}/{CONTRACT_FILE}": json.dumps(to_json(model.contract), indent=2) + "\n",
            **({f"{folder}/{LABELS}": "\n".join(labels) + "\n"} if labels else {}),
            f"{folder}/{VERSION}/model.onnx": model.path,
        }

    def steps(self, folder: Path) -> tuple[str, ...]:
        """Say how Triton is started with it, and asked."""
        repository = (folder / REPOSITORY).resolve()
        name = self.name or next(own.name for own in repository.iterdir())
        return (
            f"tritonserver --model-repository={repository}",
            f"curl -f http://127.0.0.1:8000/v2/models/{name}/ready",
        )

    def config(self, model: Model) -> dict[str, Any]:
        """Say what the model takes and answers, as a ModelConfig.

        Raises:
            UserError: a type that Triton does not have.
        """
        batched = all(
            len(tensor.shape) > 1 and tensor.shape[0] is None
            for tensor in (*model.inputs, *model.outputs)
        )
        outputs = [_described(tensor, batched=batched) for tensor in model.outputs]
        if _labels(model):
            outputs[0]["label_filename"] = LABELS
        parameters = {
            "intra_op_thread_count": str(self.num_threads),
            HASH_KEY: model.contract.sha256,
        }
        return {
            "name": name_of(model, self.name),
            "backend": "onnxruntime",
            "max_batch_size": self.max_batch_size if batched else 0,
            "input": [_input(tensor, model, batched=batched) for tensor in model.inputs],
            "output": outputs,
            "version_policy": {"latest": {"num_versions": 1}},
            "instance_group": [{"kind": _Word("KIND_CPU"), "count": 1}],
            **({"dynamic_batching": self._batching()} if batched else {}),
            "parameters": [
                {"key": key, "value": {"string_value": value}} for key, value in parameters.items()
            ],
        }

    def _batching(self) -> dict[str, int]:
        delay_us = round(self.max_queue_delay_ms * 1000)
        return {"max_queue_delay_microseconds": delay_us} if delay_us else {}


def _input(tensor: Tensor, model: Model, *, batched: bool) -> dict[str, Any]:
    """Describe an input, images with the order of their axes."""
    image = model.contract.input
    described = _described(tensor, batched=batched)
    if batched and image is not None and image.layout == "NHWC" and len(tensor.shape) == 4:
        described["format"] = _Word("FORMAT_NHWC")
    return described


def _described(tensor: Tensor, *, batched: bool) -> dict[str, Any]:
    """Describe a tensor; with `batched` its first dimension is understood."""
    kind = _TYPES.get(tensor.type.removeprefix("tensor(").removesuffix(")"))
    if kind is None:
        raise UserError(
            f"Expected `{tensor.name}` of a type that Triton has but it is {tensor.type}. Export "
            "the model with another type, such as float32."
        )
    sizes = tensor.shape[1:] if batched else tensor.shape
    return {
        "name": tensor.name,
        "data_type": _Word(f"TYPE_{kind}"),
        "dims": [-1 if size is None else size for size in sizes],
    }


def _labels(model: Model) -> tuple[str, ...]:
    """Name the columns of the first output; none where it has no classes, or they have no line."""
    classes = model.contract.classes
    numbers = model.contract.asks.kind is TaskKind.REGRESSION
    return () if numbers or any(len(name.splitlines()) != 1 for name in classes) else classes


def text_format(message: Mapping[str, Any]) -> str:
    """Write a protobuf message of mappings, lists, words and numbers in text format."""
    return "\n".join(_lines(message, "")) + "\n"


def _lines(message: Mapping[str, Any], indent: str) -> Iterator[str]:
    for field, value in message.items():
        for item in _repeated(value):
            if isinstance(item, Mapping):
                yield f"{indent}{field} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{field}: {_scalar(item)}"


def _repeated(value: Any) -> Iterable[Any]:
    """Give a message for each of several; several numbers stand in one line."""
    of_messages = isinstance(value, list) and value and isinstance(value[0], Mapping)
    return value if of_messages else [value]


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[ {', '.join(map(_scalar, value))} ]"
    if isinstance(value, _Word):
        return value.text
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    """Quote text, UTF-8 as it is, control characters in octal."""
    kept = text.replace("\\", r"\\").replace('"', r"\"")
    octal = (c if c.isprintable() or ord(c) > 127 else f"\\{ord(c):03o}" for c in kept)
    return f'"{"".join(octal)}"'
