"""Losses on quantiles: towards the label's distribution, and towards a teacher's quantiles.

Outputs are [B, D * Q]: of each of D numbers its quantiles at Q ascending levels, level by level.
Labels are [B, D], all in one unit. Nothing here keeps quantiles from crossing, which they rarely
do: whoever answers with them sorts each number's, which never errs more (Chernozhukov,
Fernandez-Val, Galichon, "Quantile and Probability Curves Without Crossing", 2010).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.errors import UserError
from distill.tasks import check_levels
from distill.training.losses.logits import full_precision
from distill.training.losses.regression import check_delta, huber
from distill.training.losses.terms import QuantileTerm


def pinball(quantiles: Tensor, label: Tensor, levels: Tensor) -> Tensor:
    """Pinball loss, least in expectation at the true quantiles.

    mean_dq max(level_q e_dq, (level_q - 1) e_dq), e_dq = label_d - quantile_dq; Koenker, Bassett,
    "Regression Quantiles", 1978. At level 0.5 it is half the absolute error.

    Args:
        quantiles: [B, D * Q].
        label: [B, D].
        levels: [Q], each inside 0 to 1.

    Returns:
        Loss per example in the label's unit, [B] float32.

    Raises:
        ValueError: the shapes do not fit.
    """
    quantiles, wanted = full_precision(quantiles, label.repeat_interleave(len(levels), dim=1))
    errors = (wanted - quantiles).unflatten(1, (-1, len(levels)))
    return torch.maximum(levels * errors, (levels - 1) * errors).mean(dim=(1, 2))


class PinballToLabel(QuantileTerm):
    """Mean of `pinball` towards the label over the batch.

    Args:
        levels: of the quantiles, ascending, each inside 0 to 1.
        weight: see `LossTerm`.
        warmup_epochs: see `LossTerm`.

    Raises:
        UserError: the levels are none, or not so.
    """

    needs_teacher = False
    levels: Tensor

    def __init__(
        self, *, levels: Sequence[float], weight: float, warmup_epochs: float = 0.0
    ) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.quantiles = check_levels(levels, "`levels`")
        self.register_buffer("levels", torch.tensor(self.quantiles), persistent=False)

    def forward(self, student: Tensor, teacher: Tensor | None, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the teacher is not looked at.

        Raises:
            UserError: the student has not a quantile for each level of each number.
        """
        num_levels, num_labels = len(self.levels), label.shape[-1]
        if student.shape[-1] != num_labels * num_levels:
            raise UserError(
                f"Expected {num_levels} quantiles for each of {num_labels} numbers from the "
                f"student but it has {student.shape[-1]} outputs. Set `levels` to those that it "
                "answers, or use `loss=regression`."
            )
        return pinball(student, label, self.levels).mean()


class QuantilesToTeacher(QuantileTerm):
    """Mean of `huber` between the student's and the teacher's quantiles over the batch.

    Both are [B, D * Q], of the same levels. The mean absolute error over many levels is the
    Wasserstein distance between the two distributions; below `delta` errors count squared.

    Args:
        delta: see `regression.huber`.
        weight: see `LossTerm`.
        warmup_epochs: see `LossTerm`.

    Raises:
        UserError: `delta` is not above 0.
    """

    def __init__(
        self, *, delta: float | None = 1.0, weight: float, warmup_epochs: float = 0.0
    ) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.delta = check_delta(delta)

    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the label is not looked at.

        Raises:
            UserError: the teacher has not as many quantiles as the student.
        """
        if student.shape != teacher.shape:
            raise UserError(
                f"Expected the teacher to answer {student.shape[-1]} quantiles, as the student "
                f"does, but it has {teacher.shape[-1]} outputs. Use a teacher of quantiles of the "
                "same levels, or leave this loss out."
            )
        return huber(student, teacher, delta=self.delta).mean()
