"""How each kind of teacher that is no network of ours is had, for the data at hand."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.files import sha256_json
from distill.sample_names import places
from distill.training.data.folds import draw_folds, rows_without
from distill.training.data.splits import Data
from distill.training.teachers.base import Teacher
from distill.training.teachers.classes import match_classes
from distill.training.teachers.estimator import SklearnTeacher, fit_estimator
from distill.training.teachers.estimator_files import (
    estimator_sha256,
    load_estimator,
    save_estimator,
)
from distill.training.teachers.levels import QuantilesTeacher, at_level
from distill.training.teachers.onnx import OnnxTeacher
from distill.training.teachers.onnx_table import OnnxTableTeacher
from distill.training.teachers.out_of_fold import OutOfFoldTeacher
from distill.training.teachers.predictions import PredictionsTeacher
from distill.training.teachers.saved_estimator import saved_estimator
from distill.training.teachers.standardized import standardized

log = logging.getLogger(__name__)


def onnx_teacher(
    data: Data,
    folder: Path,
    *,
    path: str,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs_probabilities: bool | None = None,
    drop_classes: bool = False,
) -> Teacher:
    """Open an ONNX file, over images, or over the records of a table or a series.

    Of numbers, it is taken to answer in the labels' own units.

    Raises:
        UserError: it takes something else, or its classes are not the data's.
    """
    teacher: Teacher
    if data.encoder is not None:
        teacher = OnnxTableTeacher(
            path, data, _names(classes), outputs_probabilities=outputs_probabilities
        )
    else:
        teacher = OnnxTeacher(
            path, _names(classes), mean=mean, std=std, outputs_probabilities=outputs_probabilities
        )
    return standardized(match_classes(teacher, data.classes, drop_classes), data)


def sklearn_teacher(
    data: Data,
    folder: Path,
    *,
    estimator: Any = None,
    regressor: Any = None,
    path: str | None = None,
    classes: Sequence[str] | None = None,
    trusted_types: Sequence[str] = (),
    drop_classes: bool = False,
    folds: int = 0,
) -> Teacher:
    """Load an estimator, or fit one on the training samples and keep it in the run.

    Where numbers are asked for it is the regressor that is fitted, on what a network learns; a
    loaded one is taken to answer in the labels' own units. One that is named by `path` is loaded,
    whatever there is to fit. What is fitted is kept under a name that tells its
    settings and data: others are fitted anew. With `folds`, one more is fitted without each of so
    many folds, and answers for it (`out_of_fold`). Where quantiles are asked for, one is fitted for
    each level.

    Raises:
        UserError: neither is given, the file is refused, or the regressor answers no
            quantiles.
    """
    name, kind = "regressor" if data.is_numeric else "estimator", data.task.kind
    asked = regressor if data.is_numeric else estimator
    if path is not None:
        loaded = load_estimator(path, trusted_types)
        teacher = saved_estimator(loaded, data, path, _names(classes))
        return standardized(match_classes(teacher, data.classes, drop_classes), data)
    if asked is None:
        raise UserError(
            f"Expected `teacher.{name}` to fit, or `teacher.path` to load, but got neither."
        )
    levels = data.task.quantiles

    def fitted_one(unfitted: Any, rows: NDArray[np.int64], name: str) -> Teacher:
        made_from = [estimator_sha256(unfitted), data.fingerprint, kind]
        made = sha256_json([*made_from, hashlib.sha256(rows.data).hexdigest()])
        kept = folder / f"estimator_{made[:12]}{name}.skops"
        if not kept.is_file():
            inputs, labels = data.train.inputs[rows], data.train.learnt[rows]
            save_estimator(fit_estimator(unfitted, inputs, labels, kind), kept)
        return SklearnTeacher(load_estimator(kept, trusted_types), data.task.outputs, kind)

    def fitted(rows: NDArray[np.int64], name: str) -> Teacher:
        if not levels:
            return fitted_one(asked, rows, name)
        by_level = [fitted_one(at_level(asked, own), rows, f"_q{own}{name}") for own in levels]
        return QuantilesTeacher(by_level, data.classes)

    whole = fitted(np.arange(len(data.train)), "")
    if not folds:
        return whole
    fold = draw_folds(data.train, folds)
    members = [
        fitted(rows_without(data.train, fold, number), f"_without_{number}_of_{folds}")
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
    outputs_probabilities: bool | None = None,
    drop_classes: bool = False,
) -> Teacher:
    """Read saved predictions and see that every sample that is taught has one.

    Numbers are taken to be in the labels' own units.

    Raises:
        UserError: samples are missing.
    """
    teacher = PredictionsTeacher(
        path,
        _names(classes),
        kind=data.task.kind,
        test_path=test_path,
        outputs_probabilities=outputs_probabilities,
        known=places([data.train, data.validation, data.unlabelled]),
        test_known=places([data.test]),
    )
    if data.num_skipped and teacher.is_numbered:
        log.warning(
            "WARNING: %d corrupt %s of the data were skipped, and the numbers in %s must count "
            "them, too. A column `name` with the paths needs no counting.",
            data.num_skipped,
            data.what,
            path,
        )
    for split in (data.train, data.unlabelled):
        if split is not None:
            teacher.check_covers(split.indices)
    others = [split.indices for split in (data.train, data.validation) if len(split)]
    if not np.isin(data.test.indices, np.concatenate(others)).any():  # of one numbering
        teacher.answer_test_too(data.test.indices)
    return standardized(match_classes(teacher, data.classes, drop_classes), data)


def _names(classes: Sequence[Any] | None) -> list[str] | None:
    """Take names that a command line reads as numbers, `[0,1,2]`, for names."""
    return None if classes is None else [str(name) for name in classes]
