"""What every loss term shares: a weight, its warm-up, and for feature losses the taps it reads.

Knows no formula. The module that sums the terms multiplies each by `weight_at`; a term's `forward`
returns the plain mean over the batch.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.errors import UserError
from distill.tasks import TaskKind


class LossTerm(nn.Module):
    """One weighted term of the training loss, called (student_logits, teacher_logits, label).

    Logits are [B, C]; the label is int64 [B], or float [B, C] where images are mixed.

    Args:
        weight: factor of the term, at least 0.
        warmup_epochs: over how many epochs the weight rises linearly from 0; 0 starts at once.

    Raises:
        UserError: a value is negative or no number.

    Attributes:
        needs_teacher: whether it looks at the teacher at all.
        kinds: of tasks that it can be of; of others it would be no loss, or always 0.
        of_quantiles: whether it is of quantiles of numbers alone, or never of them; None of either.
    """

    needs_teacher = True
    kinds = frozenset(TaskKind)
    of_quantiles: bool | None = None

    def __init__(self, *, weight: float, warmup_epochs: float = 0.0) -> None:
        super().__init__()
        for name, value in (("weight", weight), ("warmup_epochs", warmup_epochs)):
            if not 0 <= value < math.inf:
                raise UserError(f"Expected `{name}` of a loss term to be 0 or more, got {value}.")
        self.weight, self.warmup_epochs = float(weight), float(warmup_epochs)

    def weight_at(self, epoch: float) -> float:
        """Return the weight at a (fractional) epoch, counted from 0."""
        if epoch >= self.warmup_epochs:
            return self.weight
        return self.weight * epoch / self.warmup_epochs


class ClassTerm(LossTerm):
    """A term on logits of which a softmax is taken."""

    kinds = frozenset({TaskKind.CLASSIFICATION})


class NumberTerm(LossTerm):
    """A term on numbers."""

    kinds = frozenset({TaskKind.REGRESSION})
    of_quantiles = False


class QuantileTerm(LossTerm):
    """A term on quantiles of numbers."""

    kinds = frozenset({TaskKind.REGRESSION})
    of_quantiles = True


class FeatureTerm(LossTerm):
    """A term on intermediate features, called (student_features, teacher_features).

    Each is a list with one tensor per tap, [B, C, H, W] or [B, D]. Connectors are submodules made
    in `connect`, trained with the student and kept in the checkpoint, never in the artefact.

    Args:
        student_tap: dotted name of a module of the student's network, or several.
        teacher_tap: the same in the teacher's network; as many.
        weight: see `LossTerm`.
        warmup_epochs: see `LossTerm`.
    """

    def __init__(
        self,
        *,
        student_tap: str | Sequence[str],
        teacher_tap: str | Sequence[str],
        weight: float,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.student_taps, self.teacher_taps = _names(student_tap), _names(teacher_tap)
        if len(self.student_taps) != len(self.teacher_taps):
            raise UserError(
                f"Expected as many `teacher_tap` as `student_tap` but got {self.teacher_taps} and "
                f"{self.student_taps}."
            )

    def connect(
        self, student_shapes: Sequence[torch.Size], teacher_shapes: Sequence[torch.Size]
    ) -> None:
        """Make the connectors for features of these shapes, [B, ...] each; called once."""

    def forward(self, student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
        """Return the mean over the batch, a scalar."""
        raise NotImplementedError


def check_temperature(temperature: float) -> float:
    """Return a temperature, or refuse it.

    Raises:
        UserError: it is not above 0.
    """
    if not 0 < temperature < math.inf:
        raise UserError(f"Expected `temperature` > 0 but got {temperature}. Try 4.")
    return float(temperature)


def _names(tap: str | Sequence[str]) -> tuple[str, ...]:
    return (tap,) if isinstance(tap, str) else tuple(tap)
