"""What all teachers share: always in eval mode, never with gradients, known by a fingerprint.

A teacher knows nothing of losses or trainers. It is kept out of the optimizer, the checkpoint and
the module tree by its owner, and stays in eval mode whatever is asked of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from distill.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TeacherOutput:
    """What a teacher says of a batch.

    Attributes:
        logits: [B, C] float.
        features: per tap, in the order in which they were asked for; None without taps.
        member_logits: of an ensemble, [members, B, C]; None of any other teacher.
    """

    logits: Tensor
    features: list[Tensor] | None = None
    member_logits: Tensor | None = None


class Teacher(nn.Module):
    """Base of all teachers.

    A teacher answers `teacher(input, index)` with a `TeacherOutput`: `input` are the very images
    the student sees, [B, H, W, C] uint8, preprocessing is the teacher's own business; `index` are
    the samples' stable numbers, [B] int64, which only teachers that look answers up need.

    Attributes:
        classes: names in the order of its logits; None where nobody knows them.
        computes_in_torch: whether its forward pass can be traced, and so exported.
        sees_images: whether it looks at its input, so that augmented samples can be shown to it.
    """

    classes: tuple[str, ...] | None = None
    computes_in_torch = False
    sees_images = True

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: `trainer.fit` asks every module to train."""
        return super().train(False)

    def tap(self, names: Sequence[str]) -> None:
        """Ask for the features of the named modules in every answer from now on.

        Raises:
            UserError: this kind of teacher has none.
        """
        raise UserError(
            f"Expected a live torch teacher for losses on features but {type(self).__name__} has "
            "logits alone. Set `soft_labels=none` with a torch teacher, or leave those losses out."
        )

    def show_view(self, view: int) -> None:
        """Be told which view of the samples comes next; only a cache of answers needs to know."""

    def on_test(self) -> "Teacher | None":
        """Return the teacher to ask about the test set; None where nobody knows its answers."""
        return self

    def folded(self) -> "Teacher":
        """Return a teacher that answers the same, up to rounding, and sooner where it can."""
        return self

    @property
    def fingerprint(self) -> str:
        """Hash of all that its answers depend on."""
        raise NotImplementedError

    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch."""
        raise NotImplementedError
