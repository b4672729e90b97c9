"""Any ONNX file that takes columns as teacher of a table: an ensemble from elsewhere, or our own.

It is asked about raw records, which it encodes itself, found by the index of each sample.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.errors import UserError
from distill.files import sha256, sha256_json
from distill.runtime import ModelError, OnnxModel
from distill.training.data.splits import Data
from distill.training.teachers.base import Teacher, TeacherOutput
from distill.training.teachers.onnx import contract_classes
from distill.training.teachers.outputs import check_width, to_logits


class OnnxTableTeacher(Teacher):
    """An ONNX file over a table's records.

    Args:
        path: of a file that takes columns by name, [B, 1] each.
        data: whose samples it is asked about.
        classes: names in the order of its outputs; None reads the contract beside the file.
        outputs_probabilities: whether the outputs are probabilities, not logits.

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
        outputs_probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.path, self._data = Path(path), data
        self.outputs_probabilities = outputs_probabilities
        try:
            self._model = OnnxModel(self.path, num_threads=torch.get_num_threads())
        except ModelError as error:
            raise UserError(str(error)) from error
        assert data.train.records is not None
        known = data.train.records.dtype.names or ()
        missing = [name for name in self._model.columns if name not in known]
        if missing or not self._model.columns:
            raise UserError(
                f"Expected {self.path} to take columns of {data.name} but it takes "
                f"{', '.join(missing[:5]) or self._model.input_name}. The table has "
                f"{', '.join(known)}."
            )
        named = contract_classes(self.path, self._model)
        self.classes = named if classes is None else tuple(classes)
        self.train()

    @property
    def fingerprint(self) -> str:
        """Hash of the file, and of how it is used."""
        return sha256_json([sha256(self.path), self.outputs_probabilities])

    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch by the records of its samples."""
        asked = index.cpu().numpy()
        try:
            answers = self._model.predict(self._records(asked))
        except ModelError as error:
            raise UserError(str(error)) from error
        check_width(answers.shape[1], self.classes, str(self.path))
        logits = to_logits(
            answers, asked, str(self.path), outputs_probabilities=self.outputs_probabilities
        )
        return TeacherOutput(logits=torch.from_numpy(logits).to(image.device))

    def _records(self, asked: np.ndarray) -> np.ndarray:
        found = None
        for split in (self._data.train, self._data.validation, self._data.test):
            assert split.records is not None
            if found is None:
                found = np.zeros(len(asked), split.records.dtype)
            order = np.argsort(split.indices)
            place = np.minimum(np.searchsorted(split.indices[order], asked), len(order) - 1)
            here = split.indices[order][place] == asked
            found[here] = split.records[order[place[here]]]
        assert found is not None
        return found
