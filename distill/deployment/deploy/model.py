"""The facts of an artefact that a serving system has to be told, and how its files are written.

Read from the file itself, through the runtime that will run it, once its golden samples replay.
Knows no serving system.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distill.contract import Contract
from distill.deployment.intake import inspect
from distill.errors import UsageError, UserError
from distill.files import atomic_path, write_text
from distill.runtime import OnnxModel

MAX_NAME = 53  # a DNS label has 63 characters, and KServe appends `-predictor`
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # KServe's own check of an InferenceService


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or an output.

    Attributes:
        name: in the ONNX file.
        type: as onnxruntime names it, such as `tensor(float)`.
        shape: None where a dimension is free; the first one is the batch.
    """

    name: str
    type: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Model:
    """An artefact that keeps its contract.

    Attributes:
        path: of the ONNX file.
        contract: what it promises.
        inputs: in the file's order.
        outputs: likewise, but for the embedding; the first is the answer.
    """

    path: Path
    contract: Contract
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Deployment(Protocol):
    """A serving system, as far as it reads files."""

    def files(self, model: Model) -> dict[str, str | Path]:
        """Say what it reads: relative path to text, or to the file that is copied."""
        ...

    def steps(self, folder: Path) -> tuple[str, ...]:
        """Say what is to be done with what was written to a folder, a command in each."""
        ...


def read_model(path: Path) -> Model:
    """Read an artefact's facts from it.

    Raises:
        UserError: it is missing, is no ONNX file, or does not keep the contract beside it.
    """
    contract = inspect(path).contract
    if contract is None:
        raise UserError(
            f"Expected {path} with its own contract.json beside it but there is none. Only what "
            "`export` wrote is deployed: give that file, in the folder that it was written to."
        )
    model = OnnxModel(path)
    outputs = [one for one in model.session.get_outputs() if one.name in model.answer_names]
    return Model(
        path=path,
        contract=contract,
        inputs=_tensors(model.session.get_inputs()),
        outputs=_tensors(outputs),
    )


def _tensors(nodes: Any) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name=node.name,
            type=node.type,
            shape=tuple(size if isinstance(size, int) else None for size in node.shape),
        )
        for node in nodes
    )


def check_name(name: str | None) -> None:
    """Refuse a name that cannot be a host name's first label; None is none.

    Raises:
        UsageError: says what a name may be.
    """
    if name is not None and (not _NAME.fullmatch(str(name)) or len(str(name)) > MAX_NAME):
        raise UsageError(
            f"Expected `deploy.name` in lower-case letters, digits and hyphens, a letter first and "
            f"no hyphen last, at most {MAX_NAME} characters, but got {name!r}. Rename it."
        )


def check_whole_number(option: str, value: Any, low: int, high: int | None = None) -> None:
    """Refuse an option of `deploy` that is no whole number within its bounds.

    Raises:
        UsageError: names the option.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        bounds = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise UsageError(
            f"Expected `{option}` of `deploy` to be a whole number {bounds} but got {value!r}. "
            "See the values with `--cfg job -p deploy`."
        )


def name_of(model: Model, given: str | None) -> str:
    """Take a given name, or make one of the name of the data that the model was trained on."""
    if given is not None:
        return given
    data = model.contract.provenance.get("data") or {}
    letters = re.sub(r"[^a-z0-9]+", "-", str(data.get("name", "")).lower())
    return re.sub(r"^[^a-z]+", "", letters)[:MAX_NAME].strip("-") or "model"


def write_files(folder: Path, files: Mapping[str, str | Path]) -> None:
    """Write files in their order, each whole or absent; whatever is in the folder is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        if isinstance(content, str):
            write_text(folder / name, content)
            continue
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(content, temporary)
