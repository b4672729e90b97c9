"""A fitted scikit-learn classifier as teacher, on pixels; on disk without pickle.

Knows nothing of configuration, nor of which estimator is a good one.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor

from distill.errors import UserError
from distill.files import sha256_json, write_bytes
from distill.training.data.splits import chunks
from distill.training.teachers.base import Teacher, TeacherOutput
from distill.training.teachers.outputs import to_logits

# Forests and neighbours answer 0 where no tree or neighbour says otherwise, and 0 has no logit.
# Low enough to leave alone what linear models and networks mean, high enough for float16 labels.
FLOOR = 1e-12


class SklearnTeacher(Teacher):
    """An estimator with `predict_proba` on pixels, [N, H * W * C] float32 in 0..1.

    Its logits are log max(p, 1e-12); a class that it was not trained on has the floor.

    Args:
        estimator: fitted on labels 0..C-1.
        classes: names, of all C.

    Raises:
        UserError: it is not fitted, gives no probabilities, or knows other labels.
    """

    def __init__(self, estimator: Any, classes: Sequence[str]) -> None:
        super().__init__()
        _check_probabilistic(estimator)
        self.estimator, self.classes = estimator, tuple(classes)
        labels = np.asarray(getattr(estimator, "classes_", None))
        whole = labels.ndim == 1 and labels.dtype.kind in "iu"
        if not whole or labels.min() < 0 or labels.max() >= len(classes):
            raise UserError(
                f"Expected {_name(estimator)} to be fitted on whole labels from 0 to "
                f"{len(classes) - 1} (the {len(classes)} classes) but its `classes_` are {labels}. "
                "Fit it on the positions of the classes."
            )
        self._columns = labels.astype(np.int64)
        self.train()

    @property
    def fingerprint(self) -> str:
        """Hash of the estimator's content."""
        return sha256_json([estimator_sha256(self.estimator), FLOOR])

    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch; the samples' indices are for messages alone."""
        assert self.classes is not None
        pixels = flatten_images(image.cpu().numpy())
        wanted = getattr(self.estimator, "n_features_in_", pixels.shape[1])
        if pixels.shape[1] != wanted:
            raise UserError(
                f"Expected images of {wanted} values, on which {_name(self.estimator)} was fitted, "
                f"but got {pixels.shape[1]} ({'x'.join(map(str, image.shape[1:]))}). Use the data "
                "it was fitted on, or fit it again."
            )
        probabilities = np.zeros((len(pixels), len(self.classes)))
        probabilities[:, self._columns] = self.estimator.predict_proba(pixels)
        logits = to_logits(
            probabilities,
            index.cpu().numpy(),
            _name(self.estimator),
            outputs_probabilities=True,
            floor=FLOOR,
        )
        return TeacherOutput(logits=torch.from_numpy(logits).to(image.device))


def fit_estimator(estimator: Any, images: Any, labels: NDArray[np.int64]) -> Any:
    """Fit a copy of an estimator on pixels.

    Args:
        estimator: a scikit-learn classifier or pipeline, left as it is.
        images: [N, H, W, C] uint8, in memory or `Rows`.
        labels: [N].

    Raises:
        UserError: it gives no probabilities, or refuses the data or its own settings.
    """
    _check_probabilistic(estimator)
    try:
        unfitted: Any = clone(estimator)
        return unfitted.fit(flatten_images(images), labels)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"Expected {_name(estimator)} to fit {len(labels)} images but it refuses: {error} "
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


def save_estimator(estimator: Any, path: Path) -> None:
    """Save a fitted estimator as a skops file, whole or not at all."""
    write_bytes(path, skops.io.dumps(estimator))


def load_estimator(path: str | Path, trusted_types: Sequence[str] = ()) -> Any:
    """Load an estimator from a skops file; nothing in the file is run.

    Trusted are scikit-learn's own classes and what skops trusts (NumPy's arrays, dtypes and
    ufuncs). A file made with malice from those alone can crash the process, but run no code of
    its own: take estimators from people you know all the same.

    Args:
        path: the file.
        trusted_types: dotted names of further types and functions that may be loaded.

    Raises:
        UserError: there is no such file, it is damaged or something else (such as a pickle), or it
            holds other types.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Expected an estimator saved with skops at {path} but there is none.")
    data = path.read_bytes()
    try:
        found = skops.io.get_untrusted_types(data=data)
        unknown = [name for name in found if name not in trusted_types and not _is_sklearns(name)]
        if not unknown:
            return skops.io.loads(data, trusted=found)
    except Exception as error:  # skops passes on whatever a damaged file leads to
        raise UserError(
            f"Expected an estimator saved with skops at {path} but it is damaged or something else "
            f"({type(error).__name__}: {error}). Pickles are never opened: save it with "
            "`skops.io.dump(estimator, path)`."
        ) from error
    raise UserError(
        f"Expected an estimator of scikit-learn's own types in {path} but it also holds "
        f"{', '.join(unknown)}. If you know what they do, set "
        f"`teacher.trusted_types=[{','.join(unknown)}]`."
    )


def estimator_sha256(estimator: Any) -> str:
    """Hash an estimator, fitted or not, by what it holds.

    The bytes of a skops file have times, addresses and random names.
    """
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as archive:
        members = {name: _member_sha256(name, archive.read(name)) for name in archive.namelist()}
        schema = json.loads(archive.read("schema.json"))
    return sha256_json(_canonical(schema, members))


def _is_sklearns(dotted: str) -> bool:
    """Tell whether a name is a class that scikit-learn itself defines.

    Only classes: a module of scikit-learn also holds functions, and what it imports from elsewhere.
    """
    module, _, name = dotted.rpartition(".")
    if not module.startswith("sklearn."):
        return False
    try:
        found = getattr(import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__.startswith("sklearn.")


def _member_sha256(name: str, data: bytes) -> str:
    """Hash a file of an archive; an array of records, as trees are, by its fields.

    Between the fields of a record lies whatever was in memory there.
    """
    if name.endswith(".npy"):
        array = np.load(io.BytesIO(data), allow_pickle=False)
        if array.dtype.names is not None:
            fields = b"".join(array[field].tobytes() for field in array.dtype.names)
            data = repr((array.dtype.descr, array.shape)).encode() + fields
    return hashlib.sha256(data).hexdigest()


def _canonical(node: Any, members: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_canonical(item, members) for item in node]
    if not isinstance(node, dict):
        return node
    content = {
        key: _canonical(value, members)
        for key, value in node.items()
        if key not in ("__id__", "_skops_version")
    }
    if isinstance(node.get("file"), str):
        content["file"] = members[node["file"]]
    if node.get("__loader__") == "SetNode":
        content["content"] = sorted(map(sha256_json, content["content"]))
    return content


def _check_probabilistic(estimator: Any) -> None:
    if not hasattr(estimator, "predict_proba"):
        raise UserError(
            f"Expected a classifier with `predict_proba` but {_name(estimator)} has none. Wrap it "
            "in sklearn.calibration.CalibratedClassifierCV, or choose another."
        )


def _name(estimator: Any) -> str:
    return type(estimator).__name__
