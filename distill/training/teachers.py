"""Teachers: models that are asked and never trained.

A teacher knows nothing of losses or trainers. It is kept out of the optimizer, the checkpoint and
the module tree by its owner, and stays in eval mode whatever is asked of it.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class TeacherOutput:
    """What a teacher says of a batch."""

    logits: Tensor  # [B, C]


class Teacher(nn.Module):
    """Base of all teachers: always in eval mode, never with gradients."""

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: `trainer.fit` asks every module to train."""
        return super().train(False)

    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch of the very images the student sees, [B, H, W, C] uint8."""
        raise NotImplementedError


class TorchTeacher(Teacher):
    """A live torch model as teacher."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.train()

    @torch.no_grad()
    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch; the sample's index is not needed."""
        return TeacherOutput(logits=self.model(image))
