"""Losses on regression outputs: Huber towards the label, towards the teacher, or bounded by it.

Outputs, teacher and label share one shape and one unit, [B, D]; D means of independent outputs are
averaged. Knows no scaling: `delta` and `margin` are on the scale of the outputs.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor

from distill.errors import UserError
from distill.tasks import TaskKind
from distill.training.losses.logits import full_precision
from distill.training.losses.terms import LossTerm


def huber(output: Tensor, reference: Tensor, *, delta: float) -> Tensor:
    """Huber loss: squared for small errors, linear for large ones.

    mean_d h(output_d - reference_d), h(e) = e^2 / 2 up to |e| = delta, delta (|e| - delta / 2)
    beyond; Huber, "Robust Estimation of a Location Parameter", 1964.

    Args:
        output: [B, D].
        reference: [B, D].
        delta: above 0, in the outputs' unit.

    Returns:
        Loss per example in the outputs' unit squared, [B] float32.

    Raises:
        ValueError: the shapes differ; [B] against [B, 1] would broadcast to all pairs.
    """
    output, reference = full_precision(output, reference)
    return F.huber_loss(output, reference, reduction="none", delta=delta).mean(dim=1)


def teacher_bounded_huber(
    student: Tensor, teacher: Tensor, label: Tensor, *, delta: float, margin: float
) -> Tensor:
    """Huber loss towards the label, waived where the student beats the teacher by a margin.

    huber(student, label) where huber(student, label) + margin > huber(teacher, label), else 0;
    Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", 2017,
    there with squared errors. The teacher is a bound, never a direction: it may be badly wrong.

    Args:
        student: [B, D].
        teacher: [B, D].
        label: [B, D].
        delta: above 0, in the outputs' unit.
        margin: at least 0, in the unit of the loss, the outputs' unit squared.

    Returns:
        Loss per example in the outputs' unit squared, [B] float32.

    Raises:
        ValueError: the shapes differ.
    """
    error, bound = huber(student, label, delta=delta), huber(teacher, label, delta=delta)
    return torch.where(error + margin > bound, error, torch.zeros_like(error))


class NumberTerm(LossTerm):
    """A term on numbers."""

    kinds = frozenset({TaskKind.REGRESSION})


class HuberToLabel(NumberTerm):
    """Mean of `huber` towards the label over the batch."""

    needs_teacher = False

    def __init__(self, *, delta: float = 1.0, weight: float, warmup_epochs: float = 0.0) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.delta = _check_delta(delta)

    def forward(self, student: Tensor, teacher: Tensor | None, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the teacher is not looked at."""
        return huber(student, label, delta=self.delta).mean()


class HuberToTeacher(NumberTerm):
    """Mean of `huber` towards the teacher over the batch."""

    def __init__(self, *, delta: float = 1.0, weight: float, warmup_epochs: float = 0.0) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.delta = _check_delta(delta)

    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the label is not looked at."""
        return huber(student, teacher, delta=self.delta).mean()


class TeacherBoundedHuber(NumberTerm):
    """Mean of `teacher_bounded_huber` over the batch.

    Raises:
        UserError: `delta` is not above 0, or `margin` is negative.
    """

    def __init__(
        self,
        *,
        delta: float = 1.0,
        margin: float = 0.0,
        weight: float,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        if not 0 <= margin < math.inf:
            raise UserError(f"Expected `margin` to be 0 or more but got {margin}. Try 0.")
        self.delta, self.margin = _check_delta(delta), margin

    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar."""
        return teacher_bounded_huber(
            student, teacher, label, delta=self.delta, margin=self.margin
        ).mean()


def _check_delta(delta: float) -> float:
    if not 0 < delta < math.inf:
        raise UserError(
            f"Expected `delta` > 0 but got {delta}. Try the error, in the outputs' unit, beyond "
            "which a sample is an outlier."
        )
    return float(delta)
