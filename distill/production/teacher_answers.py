"""What a teacher says of logged predictions: logits by prediction id, in memory and on the disk.

In production the teacher is an ONNX file or a store of its answers; there is no torch here. Knows
arrays and files; knows nothing of the log, nor of what is decided from the answers.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.contract import check_classes, classes_of
from distill.errors import UserError
from distill.files import sha256, write_arrays
from distill.runtime import OnnxModel


@dataclass(frozen=True, kw_only=True)
class TeacherAnswers:
    """Answers of one teacher.

    Attributes:
        ids: of predictions, [N] texts, each once.
        logits: [N, C] float32, finite.
        model_sha256: of the file that answered.
        classes: names in the order of the logits; empty where they are not known.
    """

    ids: NDArray[np.str_]
    logits: NDArray[np.float32]
    model_sha256: str
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no set of answers."""
        count = len(self.ids)
        if self.ids.ndim != 1 or self.logits.ndim != 2 or len(self.logits) != count:
            raise UserError(
                f"Expected ids [N] and logits [N, C] but got {list(self.ids.shape)} and "
                f"{list(self.logits.shape)}. Make the teacher's answers again."
            )
        if len(np.unique(self.ids)) != count:
            raise UserError("Expected one answer for each prediction but some have several.")
        if not np.isfinite(self.logits).all():
            bad = int((~np.isfinite(self.logits).all(axis=1)).sum())
            raise UserError(
                f"Expected finite logits of the teacher but {bad} of {count} answers are not. "
                "See which inputs it fails on; a teacher in float16 may overflow."
            )

    @property
    def num_classes(self) -> int:
        """C."""
        return self.logits.shape[1]

    def places(self, ids: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
        """Find predictions, [K]: the row of each one's logits, or -1."""
        place = {own: row for row, own in enumerate(self.ids.tolist())}
        return np.array([place.get(str(one), -1) for one in ids], np.int64)

    def logits_of(self, ids: Sequence[str] | NDArray[np.str_]) -> NDArray[np.float32]:
        """Give the logits of predictions, [K, C]; NaN where there is no answer."""
        places = self.places(ids)
        found = np.full((len(places), self.num_classes), np.nan, np.float32)
        found[places >= 0] = self.logits[places[places >= 0]]
        return found

    def joined(self, others: "TeacherAnswers") -> "TeacherAnswers":
        """Add answers to other predictions; where both know one, this one's stands.

        Raises:
            UserError: they are another teacher's.
        """
        if others.model_sha256 != self.model_sha256:
            raise UserError(
                f"Expected answers of the teacher {self.model_sha256[:12]} but got those of "
                f"{others.model_sha256[:12]}. Keep the answers of each teacher in a file of its "
                "own."
            )
        check_classes(self.classes, others.classes, "the teacher's other answers")
        new = self.places(others.ids) < 0
        return TeacherAnswers(
            ids=np.concatenate([self.ids, others.ids[new]]),
            logits=np.concatenate([self.logits, others.logits[new]]),
            model_sha256=self.model_sha256,
            classes=self.classes,
        )

    def checked(self, classes: Sequence[str], who: str) -> "TeacherAnswers":
        """Return them if they are of the model's classes.

        Raises:
            UserError: they are of others, or of another number.
        """
        if self.classes:
            check_classes(classes, self.classes, who)
        if self.num_classes != len(classes):
            raise UserError(
                f"Expected {who} to answer {len(classes)} classes, as the model does, but it "
                f"answers {self.num_classes}. Name its own teacher."
            )
        return self

    def write(self, path: Path) -> None:
        """Write them as .npz, whole or not at all."""
        write_arrays(
            path,
            {
                "ids": self.ids.astype(np.str_),
                "logits": self.logits.astype(np.float32),
                "model_sha256": np.array(self.model_sha256),
                "classes": np.array(self.classes, np.str_),
            },
        )


def read_answers(path: Path) -> TeacherAnswers:
    """Read a store of answers.

    Raises:
        UserError: it is missing, truncated or no such store.
    """
    if not path.is_file():
        raise UserError(
            f"Expected a teacher's answers at {path} but there is none. Name an ONNX file, or the "
            ".npz that its answers were written to."
        )
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return TeacherAnswers(
                ids=stored["ids"],
                logits=stored["logits"],
                model_sha256=str(stored["model_sha256"]),
                classes=tuple(stored["classes"].tolist()),
            )
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"Expected a teacher's answers in {path} but it is damaged or something else: "
            f"{reason}. Delete it, and they are asked for again."
        ) from error


def answers_of(
    onnx_path: Path, inputs: NDArray[Any], ids: Sequence[str] | NDArray[np.str_]
) -> TeacherAnswers:
    """Ask a teacher.

    Args:
        onnx_path: the file; its classes are its contract's, or in its metadata, or not known.
        inputs: [N, ...], or records of a table, [N].
        ids: of the predictions that the inputs are of, [N].

    Raises:
        ModelError: the file is missing or no model, takes other inputs, or fails.
        UserError: it answers otherwise than one row of finite logits for each input.
    """
    model = OnnxModel(onnx_path)
    logits = model.predict(inputs)
    if logits.ndim != 2 or len(logits) != len(inputs):
        raise UserError(
            f"Expected {onnx_path} to answer {len(inputs)} inputs with logits [N, C] but got "
            f"{list(logits.shape)}. Export the teacher with logits as its first output."
        )
    return TeacherAnswers(
        ids=np.array([str(one) for one in ids], np.str_),
        logits=logits.astype(np.float32),
        model_sha256=sha256(onnx_path),
        classes=classes_of(onnx_path, model.metadata) or (),
    )
