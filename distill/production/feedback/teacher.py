"""A teacher at hand, or what is lost without one: an ONNX file, or a store of its answers.

What a file has answered is kept, so that nothing is asked twice. Knows answers; knows nothing of
what is decided from them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.files import sha256
from distill.production.feedback.model import Model
from distill.production.teacher_answers import TeacherAnswers, answers_of, read_answers
from distill.runtime import ModelError

ReadInputs = Callable[[Sequence[str]], Iterator[tuple[list[str], list[bytes]]]]


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Who labels beside people.

    Attributes:
        path: as it was named; None without one.
        store: where a file's answers are kept; None where they are a store themselves.
        sha256: of the file that answers; None where nobody does.
        problem: why nobody does; None where somebody does, or nobody was named.
    """

    path: Path | None = None
    store: Path | None = None
    sha256: str | None = None
    problem: str | None = None

    def logits_of(
        self, model: Model, ids: Sequence[str], read_inputs: ReadInputs
    ) -> NDArray[np.float32] | None:
        """Say what the teacher answers, [N, C]; NaN where it cannot; None without a teacher.

        Args:
            model: whose classes it must know.
            ids: of predictions, [N].
            read_inputs: gives the inputs of those that nothing is known of yet.

        Raises:
            UserError: it has other classes.
        """
        if self.path is None or self.sha256 is None:
            return None
        known = self._known()
        if self.store is not None:
            known = self._asked(model, ids, read_inputs, known)
        if known is None:  # there is no input that it could be asked about
            return np.full((len(ids), len(model.classes)), np.nan, np.float32)
        return known.checked(model.classes, f"the teacher {self.path}").logits_of(ids)

    def _known(self) -> TeacherAnswers | None:
        path = self.store or self.path
        return read_answers(path) if path is not None and path.is_file() else None

    def _asked(
        self,
        model: Model,
        ids: Sequence[str],
        read_inputs: ReadInputs,
        known: TeacherAnswers | None,
    ) -> TeacherAnswers | None:
        assert self.path is not None
        assert self.store is not None
        have = set(() if known is None else known.ids.tolist())
        new = [one for one in ids if one not in have]
        parts = [] if known is None else [known]
        for part, rows in read_inputs(new):
            answered = answers_of(self.path, model.inputs(rows), part)
            parts.append(answered.checked(model.classes, f"the teacher {self.path}"))
        if not parts or (known is not None and len(parts) == 1):
            return known
        whole = _together(parts)
        whole.write(self.store)
        return whole


def open_teacher(path: Path | None, folder: Path) -> Teacher:
    """Find a teacher; one that is gone is no error, but says what is lost.

    Args:
        path: an ONNX file, or a store of answers (.npz); None without one.
        folder: where a file's answers are kept.
    """
    if path is None:
        return Teacher()
    try:
        if path.suffix == ".npz":
            return Teacher(path=path, sha256=read_answers(path).model_sha256)
        if not path.is_file():
            raise UserError(f"Expected a teacher at {path} but there is none.")
        own = sha256(path)
    except (UserError, ModelError, OSError) as error:
        problem = (
            f"{error} Without it nothing is labelled by the teacher, disagreement is not seen, and "
            "people label alone."
        )
        return Teacher(path=path, problem=problem)
    return Teacher(path=path, sha256=own, store=folder / f"teacher_answers_{own[:12]}.npz")


def _together(parts: list[TeacherAnswers]) -> TeacherAnswers:
    first = parts[0]
    return TeacherAnswers(
        ids=np.concatenate([own.ids for own in parts]),
        logits=np.concatenate([own.logits for own in parts]),
        model_sha256=first.model_sha256,
        classes=first.classes,
    )
