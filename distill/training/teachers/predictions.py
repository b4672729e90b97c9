"""Predictions in a file as teacher: whatever made them, however long it took.

Knows how the files look; knows neither the data nor the model that answered.
"""

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.errors import UserError
from distill.files import sha256, sha256_json
from distill.training.teachers.base import Teacher, TeacherOutput
from distill.training.teachers.outputs import check_width, to_logits

INDEX = "index"


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What a file holds."""

    index: NDArray[np.int64]  # [N]
    values: NDArray[np.floating]  # [N, C]
    classes: tuple[str, ...] | None  # None where it does not name them
    are_probabilities: bool | None  # None where it does not say


class PredictionsTeacher(Teacher):
    """Looks up what a file says of a sample.

    The predictions are of the images as they are: under views, one image's answer would be taught
    for another's pixels. The file is one of

        .parquet  columns `index` and `logits` or `probabilities` (lists of C numbers), as `predict`
                  writes it; classes in the metadata, one a line
        .npz      arrays `index` [N] and `logits` or `probabilities` [N, C]; `classes` [C] if known
        .csv      a column `index` and one for every class, by its name

    Args:
        path: the file.
        classes: names in the order of its columns, in place of the file's own.
        outputs_probabilities: whether a CSV file holds probabilities, not logits; the others say
            so themselves.
        test_path: such a file of the test set, whose samples are numbered on their own.

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
        outputs_probabilities: bool = False,
        test_path: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        table = _read(self.path)
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
        order = np.argsort(table.index, kind="stable")
        self._index = table.index[order]
        self._check_distinct()
        self._logits = to_logits(
            table.values[order],
            self._index,
            str(path),
            outputs_probabilities=are_probabilities,
        )
        self._fingerprint = sha256_json([sha256(self.path), are_probabilities])
        self._test = self._open_test(test_path, classes, outputs_probabilities)
        self.train()

    @property
    def fingerprint(self) -> str:
        """Hash of the file and of how it is read."""
        return self._fingerprint

    def on_test(self) -> Teacher | None:
        """Answer from the test set's file, if there is one: here its samples have other numbers."""
        return self._test

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
        rows = np.searchsorted(self._index, indices).clip(max=len(self._index) - 1)
        missing = indices[self._index[rows] != indices]
        if len(missing):
            shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise UserError(
                f"Expected predictions of all {len(indices)} samples in {self.path} but "
                f"{len(missing)} are missing: index {shown}. Predict all images of the data, in "
                "its order (an index is an image's place there), or leave those out of the data."
            )
        return rows

    def _check_distinct(self) -> None:
        twice = self._index[1:][np.diff(self._index) == 0]
        if len(twice):
            raise UserError(
                f"Expected one prediction for each sample in {self.path} but {len(twice)} rows "
                f"repeat an index, such as {twice[0]}. Keep one row of each."
            )

    def _open_test(
        self,
        path: str | Path | None,
        classes: Sequence[str] | None,
        outputs_probabilities: bool,
    ) -> "PredictionsTeacher | None":
        if path is None:
            return None
        test = PredictionsTeacher(path, classes, outputs_probabilities=outputs_probabilities)
        if (test.classes, test._logits.shape[1]) != (self.classes, self._logits.shape[1]):
            raise UserError(
                f"Expected the same classes in the same order in {path} as in {self.path} but they "
                "differ. Predict both with the same model."
            )
        return test


def _read(path: Path) -> _Table:
    readers: dict[str, Callable[[Path], _Table]] = {
        ".parquet": _read_parquet,
        ".npz": _read_npz,
        ".csv": _read_csv,
    }
    if path.suffix.lower() not in readers or not path.is_file():
        raise UserError(
            f"Expected predictions in a file ({', '.join(readers)}) but there is none at {path}. "
            "Run `predict` to make one."
        )
    try:
        table = readers[path.suffix.lower()](path)
    except (pa.ArrowException, OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        reason = " ".join(str(e).split())[:200]
        raise UserError(
            f"Expected predictions in {path} but it is damaged or something else: {reason} "
            "Make it again."
        ) from e
    index, values = table.index, table.values
    whole = index.ndim == 1 and index.dtype.kind in "iu"
    numbers = values.ndim == 2 and values.dtype.kind in "iuf"
    if not whole or not numbers or len(index) != len(values) or not values.size:
        raise UserError(
            f"Expected whole numbers `{INDEX}` [N] and numbers [N, classes] in {path} but got "
            f"{index.dtype} {index.shape} and {values.dtype} {values.shape}. Make it again."
        )
    return table


def _read_parquet(path: Path) -> _Table:
    table = pq.read_table(path)
    name = _values_name(table.column_names, path)
    lists = table[name].combine_chunks()
    kinds = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    if not any(is_kind(lists.type) for is_kind in kinds):
        raise ValueError(f"column `{name}` has {lists.type}, not lists of numbers.")
    widths = pc.call_function("list_value_length", [lists]).unique().to_pylist()
    if len(widths) != 1 or widths[0] is None:
        raise ValueError(f"column `{name}` has lists of different lengths, or none: {widths[:5]}.")
    numbers = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    named = (table.schema.metadata or {}).get(b"classes")
    return _Table(
        index=_whole(table[INDEX]),
        values=numbers.reshape(len(lists), widths[0]),
        classes=tuple(named.decode().split("\n")) if named else None,
        are_probabilities=name == "probabilities",
    )


def _read_npz(path: Path) -> _Table:
    if not zipfile.is_zipfile(path):  # `np.load` opens other things too
        raise ValueError("it is no archive of arrays, or its end is missing.")
    with np.load(path, allow_pickle=False) as arrays:
        name = _values_name(arrays.files, path)
        named = np.atleast_1d(arrays["classes"]) if "classes" in arrays.files else None
        return _Table(
            index=arrays[INDEX],
            values=arrays[name],
            classes=None if named is None else tuple(map(str, named)),
            are_probabilities=name == "probabilities",
        )


def _read_csv(path: Path) -> _Table:
    table = pa_csv.read_csv(path)
    names = table.column_names
    if names.count(INDEX) != 1 or len(names) < 2:
        raise UserError(
            f"Expected one column `{INDEX}` and one for every class in {path} but found "
            f"{', '.join(names[:10])}. Mend its first line."
        )
    columns = [column for name, column in zip(names, table.columns, strict=True) if name != INDEX]
    numbers = [column.cast(pa.float64()).to_numpy() for column in columns]
    return _Table(
        index=_whole(table[INDEX]),
        values=np.stack(numbers, axis=1),
        classes=tuple(name for name in names if name != INDEX),
        are_probabilities=None,
    )


def _values_name(names: Sequence[str], path: Path) -> str:
    found = [name for name in ("logits", "probabilities") if name in names]
    if INDEX not in names or len(found) != 1:
        raise UserError(
            f"Expected `{INDEX}` and either `logits` or `probabilities` in {path} but found "
            f"{', '.join(names[:10]) or 'nothing'}. Name its columns or arrays so."
        )
    return found[0]


def _whole(column: Any) -> NDArray[np.int64]:
    if column.null_count:
        raise ValueError(f"{column.null_count} rows have no `{INDEX}`.")
    return column.cast(pa.int64()).to_numpy()
