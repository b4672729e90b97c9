"""Divergences between soft labels other than forward KL: generalised Jensen-Shannon and skew KL.

Forward KL makes a student cover all that its teacher finds likely, reverse KL makes it settle on
the likeliest; these lie between. Mixtures are taken in log space, finite at saturated logits.
"""

import math

import torch
from torch import Tensor

from distill.errors import UserError
from distill.training.losses.logits import kl_divergence, log_soft_labels
from distill.training.losses.terms import ClassTerm, check_temperature


def generalized_jsd(
    student_logits: Tensor, teacher_logits: Tensor, *, beta: float, temperature: float
) -> Tensor:
    """Generalised Jensen-Shannon divergence between the soft labels, times T squared.

    T^2 * [beta KL(p || m) + (1 - beta) KL(q || m)], m = beta p + (1 - beta) q, p the teacher's and
    q the student's soft labels; at beta 0 it is KL(p || q) and at beta 1 KL(q || p), the limits of
    the formula over beta and over 1 - beta; Agarwal et al., "On-Policy Distillation of Language
    Models: Learning from Self-Generated Mistakes", 2024. Near equality it is beta (1 - beta) times
    as large as KL, a quarter at 0.5: a weight does not carry over from one beta to another.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].
        beta: 0 to 1.
        temperature: above 0.

    Returns:
        Loss per example in nats times T^2, [B] float32.

    Raises:
        ValueError: the shapes differ.
    """
    log_p, log_q = log_soft_labels(student_logits, teacher_logits, temperature)
    if beta == 0:
        divergence = kl_divergence(log_p, log_q)
    elif beta == 1:
        divergence = kl_divergence(log_q, log_p)
    else:
        log_m = _mixture(log_p, log_q, beta)
        divergence = beta * kl_divergence(log_p, log_m) + (1 - beta) * kl_divergence(log_q, log_m)
    return divergence * temperature**2


class GeneralizedJSD(ClassTerm):
    """Mean of `generalized_jsd` over the batch.

    Raises:
        UserError: `beta` is not from 0 to 1, or `temperature` not above 0.
    """

    def __init__(
        self,
        *,
        beta: float = 0.5,
        temperature: float,
        weight: float,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        if not 0 <= beta <= 1:
            raise UserError(f"Expected `beta` from 0 to 1 but got {beta}. Try 0.5.")
        self.beta, self.temperature = beta, check_temperature(temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the label is not looked at."""
        return generalized_jsd(
            student_logits, teacher_logits, beta=self.beta, temperature=self.temperature
        ).mean()


def skew_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    alpha: float,
    reverse: bool,
    temperature: float,
) -> Tensor:
    """KL divergence from a mixture that keeps the ratio of the two from exploding, times T squared.

    T^2 * KL(p || alpha p + (1 - alpha) q), or reversed T^2 * KL(q || alpha q + (1 - alpha) p), p
    the teacher's and q the student's soft labels; Ko et al., "DistiLLM: Towards Streamlined
    Distillation for Large Language Models", 2024. Plain forward or reverse KL at alpha 0; otherwise
    never above T^2 log(1 / alpha).

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].
        alpha: share of the first distribution in the mixture, from 0 to below 1.
        reverse: whether the student's distribution comes first.
        temperature: above 0.

    Returns:
        Loss per example in nats times T^2, [B] float32.

    Raises:
        ValueError: the shapes differ.
    """
    log_p, log_q = log_soft_labels(student_logits, teacher_logits, temperature)
    first, second = (log_q, log_p) if reverse else (log_p, log_q)
    mixture = _mixture(first, second, alpha) if alpha else second
    return kl_divergence(first, mixture) * temperature**2


class SkewKL(ClassTerm):
    """Mean of `skew_kl` over the batch.

    Raises:
        UserError: `alpha` is not from 0 to below 1, or `temperature` not above 0.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        reverse: bool = False,
        temperature: float,
        weight: float,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        if not 0 <= alpha < 1:
            raise UserError(f"Expected `alpha` from 0 to below 1 but got {alpha}. Try 0.1.")
        self.alpha, self.reverse = alpha, reverse
        self.temperature = check_temperature(temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the label is not looked at."""
        return skew_kl(
            student_logits,
            teacher_logits,
            alpha=self.alpha,
            reverse=self.reverse,
            temperature=self.temperature,
        ).mean()


def _mixture(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """Return log(share p + (1 - share) q)."""
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))
