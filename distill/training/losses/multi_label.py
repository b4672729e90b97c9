"""Losses on logits where every class is a yes or no of its own: sigmoid instead of softmax.

Sums over classes, as independent yes and noes have the sum of their losses: each logit's gradient
is then q - p as under softmax, and a learning rate carries over. The customary mean is C times
smaller.
"""

import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor

from distill.tasks import TaskKind
from distill.training.losses.logits import full_precision
from distill.training.losses.terms import LossTerm, check_temperature

KINDS = frozenset({TaskKind.CLASSIFICATION, TaskKind.MULTI_LABEL})


def binary_soft_targets(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> Tensor:
    """Binary cross-entropy with the teacher's soft labels less their entropy, times T squared.

    T^2 * sum_c [p log(p / q) + (1 - p) log((1 - p) / (1 - q))], p = sigmoid(teacher / T) and
    q = sigmoid(student / T): one KL divergence for each class. It has the gradient of the
    cross-entropy, and unlike it is 0 where student and teacher agree. After Hinton et al.,
    "Distilling the Knowledge in a Neural Network", 2015.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].
        temperature: above 0.

    Returns:
        Loss per example in nats times T^2, [B] float32.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = full_precision(student_logits, teacher_logits)
    z, v = student / temperature, teacher / temperature
    yes = v.sigmoid() * (F.logsigmoid(v) - F.logsigmoid(z))
    no = (-v).sigmoid() * (F.logsigmoid(-v) - F.logsigmoid(-z))
    return (yes + no).sum(dim=1) * temperature**2


class BinarySoftTargets(LossTerm):
    """Mean of `binary_soft_targets` over the batch."""

    kinds = KINDS

    def __init__(self, *, temperature: float, weight: float, warmup_epochs: float = 0.0) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.temperature = check_temperature(temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the label is not looked at."""
        return binary_soft_targets(student_logits, teacher_logits, self.temperature).mean()


def binary_cross_entropy(student_logits: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy with the labels.

    sum_c -[y log q + (1 - y) log(1 - q)], q = sigmoid(student).

    Args:
        student_logits: [B, C].
        label: what holds of each example, [B, C] float from 0 to 1, or its one class, [B] int64.

    Returns:
        Loss per example in nats, [B] float32.

    Raises:
        ValueError: the shapes differ.
    """
    if not label.is_floating_point() and label.ndim == 1:
        label = F.one_hot(label, student_logits.shape[1])
    logits, holds = full_precision(student_logits, label)
    holds = holds.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, holds, reduction="none").sum(dim=1)


class BinaryCrossEntropy(LossTerm):
    """Mean of `binary_cross_entropy` over the batch."""

    needs_teacher = False
    kinds = KINDS

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor | None, label: Tensor
    ) -> Tensor:
        """Return the mean, a scalar; the teacher is not looked at."""
        return binary_cross_entropy(student_logits, label).mean()
