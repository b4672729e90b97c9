"""What an exported model promises: its input, its classes, where it comes from, golden samples.

The contract is a JSON file beside the ONNX files; each of them carries the contract's hash in its
metadata. Knows nothing of how models are made.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.files import (
    from_json,
    read_json,
    sha256,
    sha256_json,
    to_json,
    write_arrays,
    write_json,
)
from distill.runtime import OnnxModel
from distill.tables.columns import Column
from distill.tables.texts import Spelling, spellings_of
from distill.tasks import Task, classification

CONTRACT_FILE = "contract.json"
GOLDEN_FILE = "golden.npz"
HASH_KEY = "distill.contract_sha256"
CLASSES_KEY = "distill.classes"  # of references, which have no contract of their own


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """What the model takes: decoded images, resized outside, normalised inside."""

    name: str
    height: int
    width: int
    channels: int
    dtype: str = "uint8"
    layout: str = "NHWC"
    resize: str = "bilinear, antialiased, shorter side to cover, centre crop"


@dataclass(frozen=True, kw_only=True)
class TableInput:
    """What the model takes: raw columns by name, [B, length] each; encoded inside.

    Attributes:
        columns: see `columns.Kind` for types, and for how a gap is written.
        categories: by column the values that training has seen; others count as unknown.
        as_written: whether training took them as they are written; once it did not: 007 was 7.
    """

    columns: tuple[Column, ...]
    categories: dict[str, Any]
    as_written: bool = False

    @cached_property
    def spellings(self) -> dict[str, Spelling]:
        """By column how the values of a category are spelled."""
        return spellings_of(self.categories, as_written=self.as_written)


@dataclass(frozen=True, kw_only=True)
class SeriesInput:
    """How windows are read from a table with a row for each moment of each series.

    Attributes:
        time: the column that says when.
        value: the column that is forecast.
        series: a column that names the series; None where there is one.
        known: covariates known ahead.
        observed: covariates known up to now.
        window: steps looked back.
        horizon: steps ahead that are forecast.
        spacing: of the steps, such as 1h or 1M; `moments` takes each moment for a step.
        anchor: a moment at which a step begins, in milliseconds since 1970 in UTC; of months, how
            far into the month moments lie.
        resample: None takes rows as they are, `mean` puts them on even steps.
        fill: steps in which nothing lies, with the `last` value, or `linear`.
        date_format: of dates that are not ISO, as of `strptime`.
    """

    time: str
    value: str
    series: str | None
    known: tuple[str, ...]
    observed: tuple[str, ...]
    window: int
    horizon: int
    spacing: str
    anchor: int
    resample: str | None
    fill: str
    date_format: str | None


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """What the graph does first: (pixel / 255 - mean) / std per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The promise.

    Attributes:
        input: shape and type of an image; None for tables.
        normalization: what the graph does first with an image; None for tables.
        table: the columns that go in, or the windows of a series; None for images.
        series: how those windows are read; None for all else.
        task: what is asked for; None for one of `classes`.
        output: name of the first output, [B, len(classes)] float32: logits, or numbers in their
            own units, or their quantiles.
        further_outputs: of a head, such as probabilities; last the embedding, if there is one.
        classes: names in the order of that output.
        provenance: where data, teacher and weights come from, and by which versions.
        golden_sha256: hash of the golden samples' file.
    """

    input: ImageInput | None
    normalization: Normalization | None
    table: TableInput | None = None
    series: SeriesInput | None = None
    task: Task | None = None
    output: str
    further_outputs: tuple[str, ...] = ()
    classes: tuple[str, ...]
    provenance: dict[str, Any]
    golden_sha256: str
    schema_version: int = 1

    @property
    def asks(self) -> Task:
        """What is asked for."""
        return self.task or classification(self.classes)

    @property
    def input_names(self) -> list[str]:
        """Names of the ONNX file's inputs."""
        if self.table is not None:
            return [column.name for column in self.table.columns]
        assert self.input is not None
        return [self.input.name]

    @property
    def sha256(self) -> str:
        """Hash of the contract's content, as carried in the ONNX metadata."""
        content = to_json(self)
        if not self.further_outputs:  # contracts from before there were any keep their hash
            del content["further_outputs"]
        for name in ("table", "series", "task"):  # likewise
            if content[name] is None:
                del content[name]
        if self.table is not None and not self.table.as_written:
            del content["table"]["as_written"]
        if self.task is not None and not self.task.quantiles:
            del content["task"]["quantiles"]
        return sha256_json(content)


def write_golden(
    folder: Path, inputs: NDArray[Any], outputs: dict[str, NDArray[np.float32]]
) -> str:
    """Write a few inputs with the logits that each artefact gave; return the file's hash.

    Args:
        folder: the export folder.
        inputs: [K, H, W, C], or records of a table, [K].
        outputs: artefact's file name to its logits [K, C].
    """
    path = folder / GOLDEN_FILE
    arrays = {f"logits/{name}": logits for name, logits in outputs.items()}
    write_arrays(path, {"input": inputs, **arrays})
    return sha256(path)


def read_golden(folder: Path, artefact: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Read the golden samples, and what an artefact answered to them when it was exported.

    Raises:
        UserError: they are missing, not the contract's, or not of this artefact.
    """
    path = folder / GOLDEN_FILE
    if not path.is_file() or sha256(path) != load_contract(folder).golden_sha256:
        raise UserError(f"Expected the contract's golden samples in {path} but they were changed.")
    with np.load(path, allow_pickle=False) as golden:
        if f"logits/{artefact}" not in golden:
            known = [n.removeprefix("logits/") for n in golden.files if n.startswith("logits/")]
            raise UserError(
                f"Expected golden samples of {artefact} in {path} but they are of "
                f"{', '.join(known)}. Give the artefact its old name again, or move it away from "
                "its contract to use it without one."
            )
        return golden["input"], golden[f"logits/{artefact}"]


def replay_golden(folder: Path, artefact: str, *, tolerance: float = 1e-4) -> float:
    """Run the golden samples through an artefact again.

    Returns:
        The largest difference, see `check_golden`.

    Raises:
        UserError: the answers differ, or the golden samples are not the contract's.
    """
    inputs, expected = read_golden(folder, artefact)
    found = OnnxModel(folder / artefact).predict(inputs)
    return check_golden(found, expected, folder / artefact, tolerance=tolerance)


def check_golden(
    found: NDArray[Any], expected: NDArray[Any], artefact: Path, *, tolerance: float = 1e-4
) -> float:
    """Hold an artefact's answers, [N, C], against those it gave when it was exported.

    Each output is held in units of its own spread over the samples, whatever the label's are: of
    prices a thousandth is less than float32 rounds away, of a share it may be all of it.

    Returns:
        The largest difference, in units of the spread; what float32 rounds does not count.

    Raises:
        UserError: they differ.
    """
    expected = np.asarray(expected, np.float64)
    sizes = np.abs(expected).max(axis=0)
    spread = np.ptp(expected, axis=0)  # 0 of a single sample, or of an output that never moves
    spread = np.where(spread > 0, spread, np.where(sizes > 0, sizes, 1.0))
    rounding = 4 * np.finfo(np.float32).eps * sizes
    difference = float((np.maximum(np.abs(found - expected) - rounding, 0) / spread).max())
    if not difference <= tolerance:
        raise UserError(
            f"Expected {artefact} to answer its golden samples within {tolerance} of each output's "
            f"spread but one differs by {difference:.3g} of it. Export it again on this machine."
        )
    return difference


def save_contract(contract: Contract, folder: Path) -> None:
    """Write `contract.json`."""
    write_json(folder / CONTRACT_FILE, contract)


def load_contract(folder: Path) -> Contract:
    """Read `contract.json`.

    Raises:
        UserError: it is missing or is no contract.
    """
    return from_json(Contract, read_json(folder / CONTRACT_FILE), where="contract")


def contract_beside(path: Path, metadata: Mapping[str, str]) -> Contract | None:
    """Read the contract that an ONNX file was exported with, if it lies beside it.

    A file that carries no contract's hash has none, whatever lies beside it.

    Args:
        path: of the file.
        metadata: of the file.

    Raises:
        UserError: the contract beside it is another's.
    """
    carried = metadata.get(HASH_KEY)
    if carried is None or not (path.parent / CONTRACT_FILE).is_file():
        return None
    contract = load_contract(path.parent)
    if carried != contract.sha256:
        raise UserError(
            f"Expected {path} to carry the hash of the contract beside it but it carries "
            f"{carried[:12]}. Keep an artefact together with the contract it was exported with."
        )
    return contract


def required_contract(path: Path, metadata: Mapping[str, str]) -> Contract:
    """Read the contract that an ONNX file was exported with, which has to lie beside it.

    Raises:
        UserError: it does not, or what lies there is another's.
    """
    contract = contract_beside(path, metadata)
    if contract is None:
        found = "the file carries no contract's hash" if HASH_KEY not in metadata else "none is"
        raise UserError(
            f"Expected {CONTRACT_FILE} of {path} beside it but {found}. Name a file in the folder "
            "that it was exported to."
        )
    return contract


def classes_of(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Name an ONNX file's outputs by its contract, or its metadata; None where nobody knows them.

    Raises:
        UserError: the contract beside it is another's.
    """
    contract = contract_beside(path, metadata)
    if contract is not None:
        return contract.classes
    return tuple(json.loads(metadata[CLASSES_KEY])) if CLASSES_KEY in metadata else None


def check_classes(expected: Sequence[str], found: Sequence[str], what: str) -> None:
    """Refuse two class lists that differ in names, number or order.

    Raises:
        UserError: says how they differ.
    """
    if list(expected) == list(found):
        return
    raise UserError(
        f"Expected {what} to have the {len(expected)} classes {_short(expected)} but it has "
        f"{len(found)}: {_short(found)}. Use the data it was trained on, or train it again."
    )


def _short(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
