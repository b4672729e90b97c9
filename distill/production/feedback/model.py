"""The model whose predictions are looked at: its classes, its columns, what it says of an input.

Knows an artefact and its contract; knows nothing of the log.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.contract import Contract, required_contract
from distill.errors import UserError
from distill.files import sha256, sha256_json
from distill.production.logged_inputs import stacked
from distill.runtime import OnnxModel
from distill.tables.columns import Column
from distill.tasks import TaskKind

BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Model:
    """An artefact that tells classes apart.

    Attributes:
        path: of the file.
        sha256: of it.
        contract: that stands beside it.
        alike: sha256 of versions that take and answer the same, whose rows are learnt from, too.
    """

    path: Path
    sha256: str
    contract: Contract
    alike: frozenset[str] = frozenset()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the logits."""
        return self.contract.asks.outputs

    @property
    def classes_sha256(self) -> str:
        """What labels of one list of classes are kept under."""
        return classes_sha256(self.classes)

    @property
    def columns(self) -> tuple[Column, ...] | None:
        """Of a table; None of images."""
        return None if self.contract.table is None else self.contract.table.columns

    def inputs(self, rows: list[bytes]) -> NDArray[Any]:
        """Bring logged rows to what the model takes, [N, ...] or records, [N]."""
        return stacked(rows, self.columns)

    @cached_property
    def _session(self) -> OnnxModel:
        return OnnxModel(self.path)

    @property
    def has_embedding(self) -> bool:
        """Whether the artefact gives its penultimate features as an output of that name."""
        return self._session.has_embedding

    def embed(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Give the penultimate features, [N, D], where the artefact has such an output."""
        return self._session.embed(inputs)


def classes_sha256(classes: tuple[str, ...]) -> str:
    """Hash a list of classes: labels are numbers, and mean nothing under another one."""
    return sha256_json(list(classes))


def open_model(path: Path) -> Model:
    """Read an artefact's contract, and see that the two belong together.

    Raises:
        UserError: there is none, it is another's, or its task is no classification.
        ModelError: the file is no ONNX model.
    """
    contract = required_contract(path, OnnxModel(path).metadata)
    if contract.asks.kind is not TaskKind.CLASSIFICATION:
        raise UserError(
            f"Expected a model that tells classes apart but {path} answers "
            f"{contract.asks.kind.replace('_', ' ')}. People label classes alone; send what turned "
            "out of numbers and of several labels to /feedback."
        )
    return Model(path=path, sha256=sha256(path), contract=contract)
