"""Class spaces: which of a teacher's logits belongs to which of the data's classes, by name."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.errors import UserError, nearest
from distill.files import sha256_json
from distill.training.teachers.base import Teacher, TeacherOutput
from distill.training.teachers.outputs import quantile_hint


def class_columns(
    teacher_classes: Sequence[str], classes: Sequence[str], *, drop_classes: bool = False
) -> NDArray[np.int64] | None:
    """Find the teacher's column for each of the data's classes, by name.

    Args:
        teacher_classes: names in the order of the teacher's logits.
        classes: names in the order of the data's labels.
        drop_classes: whether classes that only the teacher knows may go; its probabilities are
            then renormalised over the data's.

    Returns:
        [C] columns, or None where the two are the same in the same order.

    Raises:
        UserError: a name is there twice, the teacher lacks a class, or it knows more of them.
    """
    for names, whose in ((teacher_classes, "teacher"), (classes, "data")):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise UserError(f"Expected distinct classes of the {whose} but `{twice[0]}` is twice.")
    if tuple(teacher_classes) == tuple(classes):
        return None
    position = {name: column for column, name in enumerate(teacher_classes)}
    missing = [name for name in classes if name not in position]
    if missing:
        raise UserError(
            f"Expected the teacher to know all {len(classes)} classes of the data but it lacks "
            f"{_listed(missing)}. {nearest(missing[0], teacher_classes)} Name the teacher's "
            "classes alike (`teacher.classes=[...]`), or choose another teacher."
            f"{quantile_hint(missing)}"
        )
    known = set(classes)
    more = [name for name in teacher_classes if name not in known]
    if more and not drop_classes:
        raise UserError(
            f"Expected a teacher of the data's {len(classes)} classes but it knows {len(more)} "
            f"more: {_listed(more)}. Set `teacher.drop_classes=true` to keep the data's alone (its "
            "probabilities are then renormalised over them), or choose another teacher."
        )
    return np.array([position[name] for name in classes])


def match_classes(teacher: Teacher, classes: Sequence[str], drop_classes: bool) -> Teacher:
    """Return a teacher whose logits are in the order of the data's classes.

    A teacher that does not know its classes' names is taken to have the data's, in their order,
    and told so: it refuses its first batch if it has another number of them.
    """
    if teacher.classes is None:
        teacher.classes = tuple(classes)
        return teacher
    columns = class_columns(teacher.classes, classes, drop_classes=drop_classes)
    return teacher if columns is None else MappedTeacher(teacher, columns, classes)


class MappedTeacher(Teacher):
    """A teacher whose logits are put into another order, or cut down to some classes.

    Args:
        teacher: asked.
        columns: [C] of its logits.
        classes: their names.
    """

    columns: Tensor

    def __init__(
        self, teacher: Teacher, columns: NDArray[np.int64], classes: Sequence[str]
    ) -> None:
        super().__init__()
        self.teacher, self.classes = teacher, tuple(classes)
        self.computes_in_torch = teacher.computes_in_torch
        self.sees_images = teacher.sees_images
        self.register_buffer("columns", torch.from_numpy(columns))
        self.train()

    def tap(self, names: Sequence[str]) -> None:
        """Pass on to the teacher."""
        self.teacher.tap(names)

    def show_view(self, view: int) -> None:
        """Pass on to the teacher."""
        self.teacher.show_view(view)

    def on_test(self) -> Teacher | None:
        """Map the teacher that answers for the test set."""
        asked = self.teacher.on_test()
        if asked is None or asked is self.teacher:
            return self if asked else None
        return MappedTeacher(asked, self.columns.cpu().numpy(), self.classes or ())

    def folded(self) -> Teacher:
        """Map the folded teacher."""
        return MappedTeacher(self.teacher.folded(), self.columns.cpu().numpy(), self.classes or ())

    @property
    def fingerprint(self) -> str:
        """Hash of the teacher and the columns."""
        return sha256_json([self.teacher.fingerprint, self.columns.tolist()])

    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch."""
        answer = self.teacher(image, index)
        members = answer.member_logits
        return TeacherOutput(
            logits=answer.logits[:, self.columns],
            features=answer.features,
            member_logits=None if members is None else members[..., self.columns],
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:5])
    return shown + (f" and {len(names) - 5} others" if len(names) > 5 else "")
