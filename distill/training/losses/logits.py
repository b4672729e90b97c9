"""Losses on logits. Each is a pure function that returns one loss per example, under a thin module.

Everything is computed in float32, whatever the logits' type: near-converged KL is pure rounding
error in bfloat16.
"""

import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor, nn

from distill.errors import UserError


def soft_target_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Temperature-scaled KL divergence from the teacher's soft labels, times T squared.

    T^2 * sum_c p_c (log p_c - log q_c) with p = softmax(teacher / T), q = softmax(student / T);
    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015. T^2 keeps the gradient's
    size independent of T. The sum runs over classes: averaging over them as well (`mean` reduction)
    makes the term C times too small.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].
        temperature: above 0.

    Returns:
        Loss per example in nats times T^2, [B] float32.

    Raises:
        ValueError: the shapes differ.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"Expected student and teacher logits of one shape but got "
            f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}."
        )
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    return divergence * temperature**2


class SoftTargetKL(nn.Module):
    """Mean of `soft_target_kl` over the batch, times its weight."""

    def __init__(self, *, temperature: float, weight: float) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f"Expected `temperature` > 0 but got {temperature}. Try 4.")
        self.temperature, self.weight = temperature, weight

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:
        """Return the weighted mean, a scalar."""
        return self.weight * soft_target_kl(student_logits, teacher_logits, self.temperature).mean()


def cross_entropy(student_logits: Tensor, label: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the labels, [B, C] and [B] to nats per example, [B] float32."""
    return F.cross_entropy(
        student_logits.float(), label, reduction="none", label_smoothing=smoothing
    )


class CrossEntropy(nn.Module):
    """Mean of `cross_entropy` over the batch, times its weight. Needs no teacher."""

    def __init__(self, *, weight: float = 1.0, smoothing: float = 0.0) -> None:
        super().__init__()
        self.weight, self.smoothing = weight, smoothing

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor | None, label: Tensor
    ) -> Tensor:
        """Return the weighted mean, a scalar."""
        return self.weight * cross_entropy(student_logits, label, self.smoothing).mean()
