"""Predictions in a file as teacher: whatever made them, however long it took.

Knows neither the data nor the model that answered.
"""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.errors import UserError
from distill.files import sha256, sha256_json
from distill.sample_names import INDEX, Places, locate
from distill.tasks import TaskKind
from distill.training.lookup import Lookup
from distill.training.teachers.base import Teacher, TeacherOutput
from distill.training.teachers.outputs import check_width, to_outputs
from distill.training.teachers.prediction_files import read_predictions


class PredictionsTeacher(Teacher):
    """Looks up what a file says of a sample.

    The predictions are of the images as they are: under views, one image's answer would be taught
    for another's pixels. The file is one of

        .parquet  columns `index` and `logits` or `probabilities` (lists of C numbers), as `predict`
                  writes it; classes in the metadata, one a line
        .npz      arrays `index` [N] and `logits` or `probabilities` [N, C]; `classes` [C] if known
        .csv      a column `index` and one for every class, by its name

    A `name`, or `path`, may stand for the `index` or beside it, and goes before it: a sample's path
    relative to the folder of the data.

    Numbers, in whatever units, are called `prediction` instead: one number of a sample or a list.
    In a CSV file they are one column of that name, or one for every number by its name.

    Args:
        path: the file.
        classes: names in the order of its columns, in place of the file's own.
        kind: of answers.
        outputs_probabilities: whether a CSV file holds probabilities, not logits (`to_outputs`);
            the others say so themselves.
        test_path: such a file of the test set, whose samples are numbered on their own.
        known: numbers of the samples by their paths, where they have any.
        test_known: of the test set's.

    Raises:
        UserError: the file is missing, damaged or of another form, has a sample twice or a number
            that is none.
    """

    sees_images = False

    def __init__(
        self,
        path: str | Path,
        classes: Sequence[str] | None = None,
        *,
        kind: TaskKind = TaskKind.CLASSIFICATION,
        outputs_probabilities: bool | None = None,
        test_path: str | Path | None = None,
        known: Places = MappingProxyType({}),
        test_known: Places = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.path = Path(path)
        table = read_predictions(self.path, kind)
        are_probabilities = table.are_probabilities
        if are_probabilities is None:
            are_probabilities = outputs_probabilities
        elif outputs_probabilities and not are_probabilities:
            raise UserError(
                f"Expected probabilities in {path} (`teacher.outputs_probabilities=true`) but it "
                "has `logits`. Set it to false: this kind of file says itself what it holds."
            )
        self.classes = table.classes if classes is None else tuple(classes)
        check_width(table.values.shape[1], self.classes, str(path))
        located = locate(table.index, table.names, known, self.path)
        index, rows = located.numbers, located.rows
        self._lookup, self._known = Lookup(index), known
        self.is_numbered = located.by == INDEX
        self._check_distinct(index)
        self._logits = to_outputs(
            table.values[rows],
            index,
            str(path),
            kind=kind,
            outputs_probabilities=are_probabilities,
        )
        named = [] if self.is_numbered else [index.tolist(), rows.tolist()]
        self._fingerprint = sha256_json([sha256(self.path), bool(are_probabilities), *named])
        options = {"kind": kind, "outputs_probabilities": outputs_probabilities}
        self._has_test = False
        self._test = self._open_test(test_path, classes, known=test_known, **options)
        self.train()

    @property
    def fingerprint(self) -> str:
        """Hash of the file and of how it is read."""
        return self._fingerprint

    def on_test(self) -> Teacher | None:
        """Answer from the test set's file, or from this one where it has its samples, too."""
        return self if self._has_test else self._test

    def answer_test_too(self, test: NDArray[np.int64]) -> None:
        """Answer for the test set, whose numbers are no other samples', if all of it is there."""
        self._has_test = self._test is None and bool((self._lookup(test) >= 0).all())

    def check_covers(self, indices: NDArray[np.int64]) -> None:
        """Refuse samples of which the file says nothing.

        Raises:
            UserError: some are missing; says how many and which.
        """
        self._rows(indices)

    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Look a batch up; the images are not looked at."""
        check_width(self._logits.shape[1], self.classes, str(self.path))
        logits = self._logits[self._rows(index.cpu().numpy())]
        return TeacherOutput(logits=torch.from_numpy(logits).to(image.device))

    def _rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = self._lookup(indices)
        missing = indices[rows < 0]
        if len(missing):
            name = {index: f"`{path}`" for path, index in self._known.items()}
            listed = [str(i) if self.is_numbered else name[i] for i in missing[:5].tolist()]
            shown = (
                f"{'index ' * self.is_numbered}{', '.join(listed)}{', ...' * (len(missing) > 5)}"
            )
            raise UserError(
                f"Expected predictions of all {len(indices)} samples in {self.path} but "
                f"{len(missing)} are missing: {shown}. Predict all images of the data, in "
                "its order (an index is an image's place there) or named by their paths, or leave "
                "those out of the data."
            )
        return rows

    def _check_distinct(self, index: NDArray[np.int64]) -> None:
        ordered = np.sort(index)
        twice = ordered[1:][np.diff(ordered) == 0]
        if len(twice):
            raise UserError(
                f"Expected one prediction for each sample in {self.path} but {len(twice)} rows "
                f"repeat an index, such as {twice[0]}. Keep one row of each."
            )

    def _open_test(
        self,
        path: str | Path | None,
        classes: Sequence[str] | None,
        **options: Any,
    ) -> "PredictionsTeacher | None":
        if path is None:
            return None
        test = PredictionsTeacher(path, classes, **options)
        if (test.classes, test._logits.shape[1]) != (self.classes, self._logits.shape[1]):
            raise UserError(
                f"Expected the same classes in the same order in {path} as in {self.path} but they "
                "differ. Predict both with the same model."
            )
        return test
