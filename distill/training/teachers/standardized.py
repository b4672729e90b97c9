"""A teacher of numbers in the labels' own units, brought to the units in which a network learns.

Knows nothing of how the teacher comes by its answers.
"""

import numpy as np
import torch
from torch import Tensor

from distill.files import sha256_json
from distill.tables.windows import Windows
from distill.training.data.records import RecordsByIndex
from distill.training.data.splits import Data, Split
from distill.training.teachers.base import Teacher, TeacherOutput


def standardized(teacher: Teacher, data: Data) -> Teacher:
    """Bring a teacher's answers to a network's units, where numbers are asked for."""
    return StandardizedTeacher(teacher, data) if data.is_numeric else teacher


class StandardizedTeacher(Teacher):
    """Answers what a teacher answers, in the units in which a network learns (`Data.scaled`).

    Args:
        teacher: answers [B, D] in the labels' own units, in the order of the data's outputs.
        data: whose samples it is asked about.
    """

    def __init__(self, teacher: Teacher, data: Data) -> None:
        super().__init__()
        self.teacher, self.classes = teacher, teacher.classes
        self.sees_images = teacher.sees_images
        self._data = data
        self._records = RecordsByIndex(data) if isinstance(data.encoder, Windows) else None
        self.train()

    def show_view(self, view: int) -> None:
        """Pass on to the teacher."""
        self.teacher.show_view(view)

    def on_test(self) -> Teacher | None:
        """Bring the answers of the teacher for the test set to those units."""
        asked = self.teacher.on_test()
        if asked is None or asked is self.teacher:
            return self if asked else None
        return StandardizedTeacher(asked, self._data)

    @property
    def fingerprint(self) -> str:
        """Hash of the teacher and of all that decides the units."""
        task, encoder = self._data.task, self._data.encoder
        units = encoder.floor if isinstance(encoder, Windows) else [task.mean, task.scale]
        return sha256_json([self.teacher.fingerprint, units])

    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch."""
        indices = index.cpu().numpy()
        answers = self.teacher(image, index).logits.cpu().numpy().astype(np.float64)
        records = None if self._records is None else self._records(indices)
        asked = Split(inputs=image, labels=answers, indices=indices, records=records)
        outputs = self._data.scaled(answers, asked)
        return TeacherOutput(logits=torch.from_numpy(outputs).to(image.device))
