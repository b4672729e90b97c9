"""ReviewKD: several of the student's layers, fused from deep to shallow, against the teacher's.

Chen et al., "Distilling Knowledge via Knowledge Review", 2021.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor, nn

from distill.training.losses.features import check_maps
from distill.training.losses.logits import full_precision
from distill.training.losses.terms import FeatureTerm

_LEVELS = (4, 2, 1)  # side lengths of the pooled maps


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of maps and of their pooled pyramid, [B, C, H, W] to [B].

    The full maps count 1, pooled to 4x4 a half, 2x2 a quarter, 1x1 an eighth; levels not smaller
    than the maps are left out; divided by the sum of the factors.
    """
    student, teacher = full_precision(student, teacher)
    total = (student - teacher).square().flatten(1).mean(dim=1)
    factor, factors = 1.0, 1.0
    for level in _LEVELS:
        if level >= min(student.shape[2:]):
            continue
        factor /= 2
        pooled = [F.adaptive_avg_pool2d(x, level) for x in (student, teacher)]
        total = total + factor * (pooled[0] - pooled[1]).square().flatten(1).mean(dim=1)
        factors += factor
    return total / factors


class ReviewLoss(FeatureTerm):
    """Sum over taps of the mean of `hierarchical_context` after attention-based fusion.

    Taps are named from shallow to deep. Each stage of the student is brought to a common width,
    fused with the reviewed deeper stages by a learned attention over the two, and then to the
    teacher's channels and size.

    Args:
        student_tap: several, from shallow to deep.
        teacher_tap: as many.
        weight: see `LossTerm`.
        width: of the fused features.
        warmup_epochs: see `LossTerm`; the paper warms up over 20 of 240 epochs.
    """

    def __init__(
        self,
        *,
        student_tap: str | Sequence[str],
        teacher_tap: str | Sequence[str],
        weight: float,
        width: int = 64,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(
            student_tap=student_tap,
            teacher_tap=teacher_tap,
            weight=weight,
            warmup_epochs=warmup_epochs,
        )
        self.width = width

    def connect(
        self, student_shapes: Sequence[torch.Size], teacher_shapes: Sequence[torch.Size]
    ) -> None:
        """Make a fusion for every tap."""
        check_maps(self, student_shapes, "student")
        check_maps(self, teacher_shapes, "teacher")
        deepest = len(student_shapes) - 1
        self.fusions = nn.ModuleList(
            _Fusion(s[1], self.width, t[1], fuses=stage < deepest)
            for stage, (s, t) in enumerate(zip(student_shapes, teacher_shapes, strict=True))
        )

    def forward(self, student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
        """Return the sum over taps, a scalar."""
        losses, reviewed = [], None
        stages = list(zip(self.fusions, student_features, teacher_features, strict=True))
        for fusion, student, teacher in reversed(stages):  # from deep to shallow
            out, reviewed = fusion(student, reviewed, teacher.shape[2:])
            losses.append(hierarchical_context(out, teacher).mean())
        return torch.stack(losses).sum()


class _Fusion(nn.Module):
    """Attention-based fusion of one stage with the deeper ones already reviewed."""

    def __init__(self, channels: int, width: int, out_channels: int, *, fuses: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        self.leave = nn.Sequential(
            nn.Conv2d(width, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.attend = nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid()) if fuses else None

    def forward(
        self, features: Tensor, reviewed: Tensor | None, size: torch.Size
    ) -> tuple[Tensor, Tensor]:
        x = self.enter(features)
        if self.attend is not None and reviewed is not None:
            deeper = F.interpolate(reviewed, x.shape[2:], mode="nearest")
            shares = self.attend(torch.cat([x, deeper], dim=1))
            x = x * shares[:, :1] + deeper * shares[:, 1:]
        out = x if x.shape[2:] == size else F.interpolate(x, size, mode="nearest")
        return self.leave(out), x
