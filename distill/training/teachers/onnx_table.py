"""Any ONNX file that takes columns as teacher of a table or series: from elsewhere, or our own.

It is asked about raw records, which it encodes itself, found by the index of each sample.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distill.errors import UserError
from distill.files import sha256_json
from distill.tables.columns import Records
from distill.training.data.records import RecordsByIndex
from distill.training.data.splits import Data
from distill.training.teachers.onnx import OnnxFile


class OnnxTableTeacher(OnnxFile):
    """An ONNX file over the records of a table or of windows.

    Args:
        path: of a file that takes columns by name, [B, length] each.
        data: whose samples it is asked about.
        classes: see `OnnxFile`.
        outputs_probabilities: likewise.

    Raises:
        UserError: the file is missing or damaged, or takes columns that the table does not have.
    """

    sees_images = False

    def __init__(
        self,
        path: str | Path,
        data: Data,
        classes: Sequence[str] | None = None,
        *,
        outputs_probabilities: bool | None = None,
    ) -> None:
        super().__init__(
            path, classes, outputs_probabilities=outputs_probabilities, kind=data.task.kind
        )
        self._records = RecordsByIndex(data)
        known = self._records.dtype.names or ()
        missing = [name for name in self._model.columns if name not in known]
        if missing or not self._model.columns:
            raise UserError(
                f"Expected {self.path} to take columns of {data.name} but it takes "
                f"{', '.join(missing[:5]) or self._model.input_name}. The data has "
                f"{', '.join(known)}."
            )

    @property
    def fingerprint(self) -> str:
        """Hash of the file, of the weights beside it, and of how it is used."""
        return sha256_json([self._sha256, bool(self.outputs_probabilities)])

    def given(self, image: Tensor, index: NDArray[np.int64]) -> Records:
        """Find the records of some samples, [B]."""
        return self._records(index)
