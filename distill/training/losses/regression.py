"""Losses on regression outputs: Huber towards the label, towards the teacher, or bounded by it.

Outputs, teacher and label share one shape and one unit, [B, D]; the errors of D outputs are
averaged, each with a weight. Knows no scaling: `delta` and `margin` are on the scale of the
outputs, which in training are standardised.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor, nn

from distill.errors import UserError
from distill.training.losses.logits import full_precision
from distill.training.losses.terms import NumberTerm


def huber(
    output: Tensor, reference: Tensor, *, delta: float | None, output_weights: Tensor | None = None
) -> Tensor:
    """Huber loss: squared for small errors, linear for large ones.

    mean_d w_d h(output_d - reference_d), h(e) = e^2 / 2 up to |e| = delta, delta (|e| - delta / 2)
    beyond; Huber, "Robust Estimation of a Location Parameter", 1964.

    Args:
        output: [B, D].
        reference: [B, D].
        delta: above 0, in the outputs' unit; None is squared throughout, as RMSE is.
        output_weights: w, [D], of mean 1; None: all 1.

    Returns:
        Loss per example in the outputs' unit squared, [B] float32.

    Raises:
        ValueError: the shapes differ; [B] against [B, 1] would broadcast to all pairs.
    """
    output, reference = full_precision(output, reference)
    if delta is None:
        errors = F.mse_loss(output, reference, reduction="none") / 2
    else:
        errors = F.huber_loss(output, reference, reduction="none", delta=delta)
    return (errors if output_weights is None else errors * output_weights).mean(dim=1)


def teacher_bounded_huber(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    *,
    delta: float | None,
    margin: float,
    output_weights: Tensor | None = None,
) -> Tensor:
    """Huber loss towards the label, waived where the student beats the teacher by a margin.

    huber(student, label) where huber(student, label) + margin > huber(teacher, label), else 0;
    Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", 2017,
    there with squared errors. The teacher is a bound, never a direction: it may be badly wrong.

    Args:
        student: [B, D].
        teacher: [B, D].
        label: [B, D].
        delta: see `huber`.
        margin: at least 0, in the unit of the loss, the outputs' unit squared.
        output_weights: see `huber`.

    Returns:
        Loss per example in the outputs' unit squared, [B] float32.

    Raises:
        ValueError: the shapes differ.
    """
    error = huber(student, label, delta=delta, output_weights=output_weights)
    bound = huber(teacher, label, delta=delta, output_weights=output_weights)
    return torch.where(error + margin > bound, error, torch.zeros_like(error))


class OutputWeights(nn.Module):
    """Weights of D outputs, of mean 1, so that a learning rate carries over.

    Args:
        choice: a weight for each output, or one number r, which weighs output d by r^d: 1 weighs
            all alike, 0.9 each further step of a forecast a tenth less.

    Raises:
        UserError: a weight is negative or no number, all are 0, or r is not above 0.
    """

    log_weights: Tensor

    def __init__(self, choice: float | Sequence[float]) -> None:
        super().__init__()
        self.rate = None if isinstance(choice, Sequence) else float(choice)
        given = torch.tensor(choice, dtype=torch.float64).reshape(-1)
        impossible = not torch.isfinite(given).all() or (given < 0).any() or not given.any()
        if impossible:
            raise UserError(
                f"Expected `output_weights` of 0 or more, not all 0, but got {choice}. Give a "
                "number for each output, or one such as 0.9, by which each weighs less than the "
                "one before."
            )
        self.register_buffer("log_weights", given.log().float(), persistent=False)

    def forward(self, num_outputs: int) -> Tensor:
        """Return the weights, [num_outputs].

        Raises:
            UserError: the outputs are not as many as the weights.
        """
        log_weights = self.log_weights
        if self.rate is not None:
            log_weights = log_weights * torch.arange(num_outputs, device=log_weights.device)
        if len(log_weights) != num_outputs:
            raise UserError(
                f"Expected as many `output_weights` as outputs, {num_outputs}, but got "
                f"{len(log_weights)}. Give one for each, or one number for all."
            )
        weights = (log_weights - log_weights.max()).exp()
        return weights / weights.mean()


class HuberTerm(NumberTerm):
    """A term that is a Huber loss.

    Args:
        delta: see `huber`.
        output_weights: see `OutputWeights`.
        weight: see `LossTerm`.
        warmup_epochs: see `LossTerm`.
    """

    def __init__(
        self,
        *,
        delta: float | None = 1.0,
        output_weights: float | Sequence[float] = 1.0,
        weight: float,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.delta, self.output_weights = check_delta(delta), OutputWeights(output_weights)


class HuberToLabel(HuberTerm):
    """Mean of `huber` towards the label over the batch."""

    needs_teacher = False

    def forward(self, student: Tensor, teacher: Tensor | None, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the teacher is not looked at."""
        weights = self.output_weights(student.shape[-1])
        return huber(student, label, delta=self.delta, output_weights=weights).mean()


class HuberToTeacher(HuberTerm):
    """Mean of `huber` towards the teacher over the batch."""

    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the label is not looked at."""
        weights = self.output_weights(student.shape[-1])
        return huber(student, teacher, delta=self.delta, output_weights=weights).mean()


class TeacherBoundedHuber(HuberTerm):
    """Mean of `teacher_bounded_huber` over the batch.

    Args:
        delta: see `huber`.
        margin: see `teacher_bounded_huber`.
        output_weights: see `OutputWeights`.
        weight: see `LossTerm`.
        warmup_epochs: see `LossTerm`.

    Raises:
        UserError: `delta` is not above 0, or `margin` is negative.
    """

    def __init__(
        self,
        *,
        delta: float | None = 1.0,
        margin: float = 0.0,
        output_weights: float | Sequence[float] = 1.0,
        weight: float,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(
            delta=delta, output_weights=output_weights, weight=weight, warmup_epochs=warmup_epochs
        )
        if not 0 <= margin < math.inf:
            raise UserError(f"Expected `margin` to be 0 or more but got {margin}. Try 0.")
        self.margin = margin

    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar."""
        return teacher_bounded_huber(
            student,
            teacher,
            label,
            delta=self.delta,
            margin=self.margin,
            output_weights=self.output_weights(student.shape[-1]),
        ).mean()


def check_delta(delta: float | None) -> float | None:
    """Return a delta, or refuse it.

    Raises:
        UserError: it is neither above 0 nor None.
    """
    if delta is None:
        return None
    if not 0 < delta < math.inf:
        raise UserError(
            f"Expected `delta` > 0 but got {delta}. Try the error, in the outputs' unit, beyond "
            "which a sample is an outlier; null is squared throughout."
        )
    return float(delta)
