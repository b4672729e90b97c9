"""A fitted scikit-learn estimator as teacher: of classes, of several labels, or of numbers.

It reads pixels, encoded rows, or raw ones by the names of their columns. Knows nothing of
configuration, nor of which estimator is a good one; how one is kept is `estimator_files`' business.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.utils import get_tags
from torch import Tensor

from distill.errors import UserError
from distill.files import sha256_json
from distill.tasks import TaskKind
from distill.training.data.labels import class_name
from distill.training.data.splits import chunks
from distill.training.teachers.base import Teacher, TeacherOutput
from distill.training.teachers.estimator_files import estimator_sha256
from distill.training.teachers.outputs import check_width, to_outputs

# Forests and neighbours answer 0 where no tree or neighbour says otherwise, and 0 has no logit.
# Low enough to leave alone what linear models and networks mean, high enough for float16 labels.
FLOOR = 1e-12

Ask = Callable[[NDArray[np.int64]], Any]  # indices of samples to the rows that are asked about


class SklearnTeacher(Teacher):
    """An estimator on pixels, [N, H * W * C] float32 in 0..1, or on rows, encoded or raw.

    A classifier's probabilities p become log max(p, 1e-12), a class that it was not trained on
    having the floor; those of several labels log p - log(1 - p), neither below the floor. A
    regressor's numbers stay as they are, in the units in which it was fitted.

    Args:
        estimator: fitted: on labels 0..C-1, or on names of `classes`; on 0 and 1 [N, C]; or on
            numbers [N, D].
        classes: names of all outputs.
        kind: what it is asked for.
        rows: finds what it is asked about; None gives it the samples that the student sees, encoded
            rows [N, F] as they are.

    Raises:
        UserError: it is not fitted, is of another kind, or knows other labels.
    """

    def __init__(
        self,
        estimator: Any,
        classes: Sequence[str],
        kind: TaskKind = TaskKind.CLASSIFICATION,
        rows: Ask | None = None,
    ) -> None:
        super().__init__()
        _check_kind(estimator, kind)
        self.estimator, self.classes, self._kind = estimator, tuple(classes), kind
        self._rows, self.sees_images = rows, rows is None
        if kind is TaskKind.CLASSIFICATION:
            self._positions = _positions(estimator, self.classes)
        elif kind is TaskKind.MULTI_LABEL:
            _check_labels(estimator, len(self.classes))
        self.train()

    @property
    def fingerprint(self) -> str:
        """Hash of the estimator's content."""
        of = ["raw rows"] if self._rows else []
        return sha256_json([estimator_sha256(self.estimator), FLOOR, *of])

    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch; without `rows` the samples' indices are for messages alone."""
        assert self.classes is not None
        if self._rows is not None:
            features = self._rows(index.cpu().numpy())
        else:
            features = flatten_images(image.cpu().numpy())
            self._check_width(features.shape[1], image)
        values = self._ask(features, len(self.classes))
        check_width(values.shape[1], self.classes, _name(self.estimator))
        outputs = to_outputs(
            values,
            index.cpu().numpy(),
            _name(self.estimator),
            kind=self._kind,
            outputs_probabilities=self._kind is not TaskKind.REGRESSION,
            floor=FLOOR,
        )
        return TeacherOutput(logits=torch.from_numpy(outputs).to(image.device))

    def _check_width(self, width: int, image: Tensor) -> None:
        wanted = getattr(self.estimator, "n_features_in_", width)
        if width == wanted:
            return
        what, advice = "images", "Use the data it was fitted on, or fit it again."
        if image.ndim == 2:
            what = "encoded rows"
            advice = (
                "Fit it on a pandas DataFrame of the table's columns, by whose names it is then "
                "given raw rows, or fit it in the run (`teacher.path=null`)."
            )
        raise UserError(
            f"Expected {what} of {wanted} values, on which {_name(self.estimator)} was fitted, "
            f"but got {width} ({'x'.join(map(str, image.shape[1:]))}). {advice}"
        )

    def _ask(self, features: Any, num_outputs: int) -> NDArray[np.floating]:
        if self._kind is TaskKind.REGRESSION:
            return np.asarray(self.estimator.predict(features)).reshape(len(features), -1)
        answers = self.estimator.predict_proba(features)
        if self._kind is TaskKind.CLASSIFICATION:
            probabilities = np.zeros((len(features), num_outputs))
            probabilities[:, self._positions] = answers
            return probabilities
        if num_outputs == 1 and not isinstance(answers, list):
            answers = [answers]
        if isinstance(answers, list):  # [B, 2] for each label, as forests answer
            known = _classes_by_label(self.estimator, num_outputs)
            return np.stack(
                [own @ (values == 1) for own, values in zip(answers, known, strict=True)], axis=1
            )
        return np.asarray(answers)


def fit_estimator(
    estimator: Any,
    images: Any,
    labels: NDArray[Any],
    kind: TaskKind = TaskKind.CLASSIFICATION,
) -> Any:
    """Fit a copy of an estimator on pixels or on encoded rows.

    One that takes a single output is fitted once for each of several.

    Args:
        estimator: a scikit-learn classifier, regressor or pipeline, left as it is.
        images: [N, H, W, C] uint8, in memory or `RowsOnDisk`; or encoded rows [N, F].
        labels: [N], or [N, D].
        kind: what the labels are.

    Raises:
        UserError: it is of another kind, or refuses the data or its own settings.
    """
    _check_kind(estimator, kind)
    if kind is TaskKind.MULTI_LABEL:
        labels = labels.astype(np.int64)
    try:
        unfitted: Any = clone(estimator)
        if labels.ndim == 2 and labels.shape[1] > 1:
            unfitted = _for_several(unfitted, kind)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Label (not )?\d+ is present in all", UserWarning)
            return unfitted.fit(
                flatten_images(images), labels[:, 0] if labels.shape[1:] == (1,) else labels
            )
    except (ValueError, TypeError) as error:
        raise UserError(
            f"Expected {_name(estimator)} to fit {len(labels)} samples but it refuses: {error} "
            "Change its settings, or choose another estimator."
        ) from error


def flatten_images(images: Any) -> NDArray[np.float32]:
    """Flatten uint8 images [N, H, W, C] to [N, H * W * C] float32 in 0..1.

    The encoded rows of a table, [N, F], are flat already.
    """
    if images.ndim == 2:
        return np.asarray(images, np.float32)
    flat = np.empty((len(images), int(np.prod(images.shape[1:]))), np.float32)
    start = 0
    for part in chunks(images):
        rows = flat[start : start + len(part)]
        np.divide(part.reshape(len(part), -1), np.float32(255), out=rows)
        start += len(part)
    return flat


def _for_several(estimator: Any, kind: TaskKind) -> Any:
    """Wrap an estimator that takes one output at a time."""
    tags = get_tags(estimator)
    several = tags.target_tags.multi_output
    if kind is TaskKind.REGRESSION:
        return estimator if several else MultiOutputRegressor(estimator)
    several = several or (tags.classifier_tags is not None and tags.classifier_tags.multi_label)
    return estimator if several else OneVsRestClassifier(estimator)


def _check_kind(estimator: Any, kind: TaskKind) -> None:
    if kind is TaskKind.REGRESSION:
        if is_classifier(estimator) or not hasattr(estimator, "predict"):
            raise UserError(
                f"Expected a regressor, which predicts numbers, but {_name(estimator)} is none. "
                "Name one in `teacher.regressor`."
            )
    elif not hasattr(estimator, "predict_proba"):
        raise UserError(
            f"Expected a classifier with `predict_proba` but {_name(estimator)} has none. Wrap it "
            "in sklearn.calibration.CalibratedClassifierCV, or choose another."
        )


def class_names(estimator: Any) -> tuple[str, ...] | None:
    """Name the classes that an estimator was fitted on; None where it has no plain ones."""
    known = np.asarray(getattr(estimator, "classes_", None))
    return tuple(map(class_name, known.tolist())) if known.ndim == 1 else None


def _positions(estimator: Any, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Find the position among `classes` of each class that an estimator was fitted on.

    Whole numbers are positions themselves, unless they are the very names.
    """
    labels, names = np.asarray(getattr(estimator, "classes_", None)), class_names(estimator)
    if names is not None and (names == classes or labels.dtype.kind not in "iu"):
        if set(names) <= set(classes):
            return np.array([classes.index(name) for name in names])
    elif names is not None and labels.min() >= 0 and labels.max() < len(classes):
        return labels.astype(np.int64)
    raise UserError(
        f"Expected {_name(estimator)} to be fitted on names of the {len(classes)} classes, or on "
        f"whole labels from 0 to {len(classes) - 1}, but its `classes_` are {labels}. Fit it on "
        f"{', '.join(classes[:10])}, or on their positions."
    )


def _check_labels(estimator: Any, num_labels: int) -> None:
    known = getattr(estimator, "classes_", None)
    if known is None:
        raise UserError(
            f"Expected {_name(estimator)} to be fitted on 0 and 1 for each of {num_labels} labels "
            "but it is not fitted. Fit it first."
        )
    if not isinstance(known, list) and num_labels > 1:  # numbers of the labels
        return
    others = [v for own in _classes_by_label(estimator, num_labels) for v in own if v not in (0, 1)]
    if others:
        raise UserError(
            f"Expected {_name(estimator)} to be fitted on 0 and 1 for each label but it knows "
            f"`{others[0]}`. Fit it on numbers."
        )


def _classes_by_label(estimator: Any, num_labels: int) -> list[NDArray[Any]]:
    known = estimator.classes_
    return [np.asarray(own) for own in (known if isinstance(known, list) else [known])]


def _name(estimator: Any) -> str:
    return type(estimator).__name__
