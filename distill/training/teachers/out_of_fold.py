"""A teacher that says of each training sample what it would of a new one.

An ensemble that was fitted on a sample remembers its label, noise and all, and would teach that. So
the training set is divided into folds (`data.folds`), and each sample is answered by a copy that
was fitted without its fold (Wolpert, "Stacked Generalization", 1992).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.files import sha256_json
from distill.training.lookup import Lookup
from distill.training.teachers.base import Teacher, TeacherOutput


class OutOfFoldTeacher(Teacher):
    """One teacher fitted on all training samples, and one without each fold of them.

    Args:
        whole: answers all that is no training sample.
        members: one for each fold, fitted without it.
        indices: of the training samples, [N].
        folds: the fold of each, [N].
    """

    def __init__(
        self,
        whole: Teacher,
        members: Sequence[Teacher],
        indices: NDArray[np.int64],
        folds: NDArray[np.int64],
    ) -> None:
        super().__init__()
        self.whole, self.classes = whole, whole.classes
        self.members = torch.nn.ModuleList(members)
        order = np.argsort(indices)
        self._indices, self._folds = indices[order], folds[order]
        self._lookup = Lookup(self._indices)
        self.train()

    @property
    def fingerprint(self) -> str:
        """Hash of all members and of who answers for whom."""
        members = [member.fingerprint for member in (self.whole, *self.members)]
        return sha256_json([members, self._indices.tolist(), self._folds.tolist()])

    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer each sample by the member that has not seen it."""
        asked = index.cpu().numpy()
        places = self._lookup(asked)
        fold = np.where(places < 0, -1, self._folds[places])
        rows = [torch.from_numpy(np.flatnonzero(fold == n)) for n in np.unique(fold)]
        asked_for = index.to(image.device)
        answers = [
            self._of(number)(image[own], asked_for[own]).logits
            for number, own in zip(np.unique(fold), rows, strict=True)
        ]
        back = torch.cat(rows).argsort().to(image.device)
        return TeacherOutput(logits=torch.cat(answers)[back])

    def _of(self, fold: int) -> Teacher:
        member = self.whole if fold < 0 else self.members[fold]
        assert isinstance(member, Teacher)
        return member

    def on_test(self) -> Teacher | None:
        """Ask the one that has seen all training samples; a test sample may have one's number."""
        return self.whole.on_test()
