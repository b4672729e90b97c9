"""How each kind of teacher that is no network of ours is had, for the data at hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import UserError
from distill.files import sha256_json
from distill.training.data.splits import Data
from distill.training.teachers.base import Teacher
from distill.training.teachers.classes import match_classes
from distill.training.teachers.estimator import (
    SklearnTeacher,
    estimator_sha256,
    fit_estimator,
    load_estimator,
    save_estimator,
)
from distill.training.teachers.onnx import OnnxTeacher
from distill.training.teachers.onnx_table import OnnxTableTeacher
from distill.training.teachers.out_of_fold import OutOfFoldTeacher, draw_folds
from distill.training.teachers.predictions import PredictionsTeacher


def onnx_teacher(
    data: Data,
    folder: Path,
    *,
    path: str,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs_probabilities: bool = False,
    drop_classes: bool = False,
) -> Teacher:
    """Open an ONNX file, over images, or over the records of a table.

    Raises:
        UserError: it takes something else, or its classes are not the data's.
    """
    if data.encoder is not None:
        over_rows = OnnxTableTeacher(
            path, data, _names(classes), outputs_probabilities=outputs_probabilities
        )
        return match_classes(over_rows, data.classes, drop_classes)
    teacher = OnnxTeacher(
        path, _names(classes), mean=mean, std=std, outputs_probabilities=outputs_probabilities
    )
    return match_classes(teacher, data.classes, drop_classes)


def sklearn_teacher(
    data: Data,
    folder: Path,
    *,
    estimator: Any = None,
    path: str | None = None,
    classes: Sequence[str] | None = None,
    trusted_types: Sequence[str] = (),
    drop_classes: bool = False,
    folds: int = 0,
) -> Teacher:
    """Load an estimator, or fit one on the training samples and keep it in the run.

    It is kept under a name that tells its settings and data: others are fitted anew. With `folds`,
    one more is fitted without each of so many folds, and answers for it (`out_of_fold`).

    Raises:
        UserError: neither or both are given, or the file is refused.
    """
    if (estimator is None) == (path is None):
        raise UserError(
            "Expected either `teacher.estimator` to fit or `teacher.path` to load but got "
            f"{'none' if path is None else 'both'}."
        )
    if path is not None:
        loaded = load_estimator(path, trusted_types)
        teacher = SklearnTeacher(loaded, _names(classes) or data.classes)
        return match_classes(teacher, data.classes, drop_classes)
    made_from = sha256_json([estimator_sha256(estimator), data.fingerprint])

    def fitted(rows: Any, name: str) -> Teacher:
        kept = folder / f"estimator_{made_from[:12]}{name}.skops"
        if not kept.is_file():
            inputs, labels = data.train.inputs[rows], data.train.labels[rows]
            save_estimator(fit_estimator(estimator, inputs, labels), kept)
        return SklearnTeacher(load_estimator(kept, trusted_types), data.classes)

    whole = fitted(slice(None), "")
    if not folds:
        return whole
    fold = draw_folds(data.train.labels, folds)
    members = [
        fitted(np.flatnonzero(fold != number), f"_without_{number}_of_{folds}")
        for number in range(folds)
    ]
    return OutOfFoldTeacher(whole, members, data.train.indices, fold)


def predictions_teacher(
    data: Data,
    folder: Path,
    *,
    path: str,
    test_path: str | None = None,
    classes: Sequence[str] | None = None,
    outputs_probabilities: bool = False,
    drop_classes: bool = False,
) -> Teacher:
    """Read saved predictions and see that every training sample has one.

    Raises:
        UserError: samples are missing.
    """
    teacher = PredictionsTeacher(
        path, _names(classes), test_path=test_path, outputs_probabilities=outputs_probabilities
    )
    teacher.check_covers(data.train.indices)
    return match_classes(teacher, data.classes, drop_classes)


def _names(classes: Sequence[Any] | None) -> list[str] | None:
    """Take names that a command line reads as numbers, `[0,1,2]`, for names."""
    return None if classes is None else [str(name) for name in classes]
