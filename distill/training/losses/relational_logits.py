"""Losses on relations within a batch of logits: correlations (DIST) and Gram matrices (MLKD).

They have no per-example form: their values depend on the batch, its size included, so each process
of a distributed run sees its own. Whoever wants one loss per example looks into `logits`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor

from distill.errors import UserError
from distill.training.losses.logits import full_precision, soft_target_kl
from distill.training.losses.terms import ClassTerm, check_temperature


def correlation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float,
    gamma: float,
    temperature: float,
) -> Tensor:
    """Distance in Pearson correlation of the soft labels, over classes and over the batch.

    T^2 * (beta * mean_b [1 - r(row b)] + gamma * mean_c [1 - r(column c)]), r the correlation of
    softmax(student / T) with softmax(teacher / T); Huang et al., "Knowledge Distillation from A
    Stronger Teacher", 2022. Correlations do not shrink with T as a KL does, so here T^2, kept as
    in the authors' code, does make the term grow with T.

    Computed as half the squared distance of the normalised rows or columns, which is 1 - r and
    keeps its digits near 0. A row or column of deviations below 1e-8 in norm has no correlation
    and drops out: so does the second term with a batch of one.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].
        beta: weight of the correlation over classes, one for each example (the paper's inter-class
            relation).
        gamma: weight of the correlation over the batch, one for each class (intra-class).
        temperature: above 0.

    Returns:
        Loss times T^2, a float32 scalar that depends on the batch.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = full_precision(student_logits, teacher_logits)
    q, p = F.softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1)
    over_classes = _decorrelation(q, p, dim=1).mean()
    over_batch = _decorrelation(q, p, dim=0).mean()
    return (beta * over_classes + gamma * over_batch) * temperature**2


class CorrelationLoss(ClassTerm):
    """`correlation_loss` of the batch, known as DIST."""

    def __init__(
        self,
        *,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float,
        weight: float,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.beta, self.gamma = beta, gamma
        self.temperature = check_temperature(temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:
        """Return a scalar; the label is not looked at."""
        return correlation_loss(
            student_logits,
            teacher_logits,
            beta=self.beta,
            gamma=self.gamma,
            temperature=self.temperature,
        )


def multi_level_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperatures: Sequence[float]
) -> Tensor:
    """KL of each example plus the distances of two Gram matrices, averaged over temperatures.

    mean_T { T^2 mean_b KL(p_b || q_b) + |P P' - Q Q'|^2 / B + |P' P - Q' Q|^2 / C } with P, Q
    [B, C] the teacher's and student's soft labels at T, ' the transpose and |.| the Frobenius norm;
    Jin et al., "Multi-Level Logit Distillation", 2023. The Gram terms grow with the
    batch, as B and as B squared. The authors sum over temperatures, and add a strongly augmented
    view and a mask on confidence; neither is here.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].
        temperatures: each above 0.

    Returns:
        A float32 scalar that depends on the batch.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = full_precision(student_logits, teacher_logits)
    batch_size, num_classes = student.shape
    levels = []
    # Autocast would take the products in half precision.
    with torch.autocast(student.device.type, enabled=False):
        for temperature in temperatures:
            q, p = F.softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1)
            examples = soft_target_kl(student, teacher, temperature).mean()
            batch = (p @ p.T - q @ q.T).square().sum() / batch_size
            classes = (p.T @ p - q.T @ q).square().sum() / num_classes
            levels.append(examples + batch + classes)
    return torch.stack(levels).mean()


class MultiLevelKL(ClassTerm):
    """`multi_level_kl` of the batch.

    Raises:
        UserError: no temperature, or one that is not above 0.
    """

    def __init__(
        self,
        *,
        temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
        weight: float,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        if not temperatures:
            raise UserError("Expected `temperatures` to name at least one but got none. Try [4].")
        self.temperatures = tuple(check_temperature(temperature) for temperature in temperatures)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:
        """Return a scalar; the label is not looked at."""
        return multi_level_kl(student_logits, teacher_logits, self.temperatures)


def _decorrelation(student: Tensor, teacher: Tensor, *, dim: int) -> Tensor:
    """Return 1 - Pearson's correlation along a dimension."""
    directions = [
        F.normalize(side - side.mean(dim=dim, keepdim=True), dim=dim, eps=1e-8)
        for side in (student, teacher)
    ]
    return (directions[0] - directions[1]).square().sum(dim=dim) / 2
