"""Losses on logits, each a pure function with one loss per example under a thin module.

Everything is computed in float32 (float64 logits stay float64), whatever the logits' type and
under autocast too: near-converged KL is pure rounding error in bfloat16. Knows no weights and no
epochs; those are `LossTerm`'s.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor

from distill.training.losses.terms import ClassTerm, check_temperature


def full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors of one shape in at least float32.

    Raises:
        ValueError: the shapes differ; they would broadcast to a wrong loss without a word.
    """
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) > 1:
        raise ValueError(f"Expected tensors of one shape but got {' and '.join(map(str, shapes))}.")
    return tuple(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) = sum_c p_c (log p_c - log q_c) of log-probabilities, [B, C] to nats, [B]."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)


def log_soft_labels(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the teacher and of the student, in this order, [B, C] float32.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = full_precision(student_logits, teacher_logits)
    log_p, log_q = (F.log_softmax(x / temperature, dim=1) for x in (teacher, student))
    return log_p, log_q


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
    log_p, log_q = log_soft_labels(student_logits, teacher_logits, temperature)
    return kl_divergence(log_p, log_q) * temperature**2


class SoftTargetKL(ClassTerm):
    """Mean of `soft_target_kl` over the batch."""

    def __init__(self, *, temperature: float, weight: float, warmup_epochs: float = 0.0) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.temperature = check_temperature(temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the label is not looked at."""
        return soft_target_kl(student_logits, teacher_logits, self.temperature).mean()


def standardized(logits: Tensor, eps: float = 1e-7) -> Tensor:
    """Z-score of each row, (z - mean) / (std + eps) with the population's std, [B, C] to [B, C]."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (logits.std(dim=1, correction=0, keepdim=True) + eps)


def standardized_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`soft_target_kl` of z-scored logits: the student need not match the teacher's scale.

    T^2 * KL(softmax(Z(teacher) / T) || softmax(Z(student) / T)); Sun et al., "Logit Standardization
    in Knowledge Distillation", 2024. Unmoved by a shift or a positive factor of either side, so
    nothing in it calibrates the student: its NLL can be poor until a temperature is fitted.
    Because of the division by std, the gradient grows as the student's logits shrink.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].
        temperature: above 0, on the scale of z-scores.

    Returns:
        Loss per example in nats times T^2, [B] float32.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = full_precision(student_logits, teacher_logits)
    return soft_target_kl(standardized(student), standardized(teacher), temperature)


class StandardizedKL(ClassTerm):
    """Mean of `standardized_kl` over the batch."""

    def __init__(self, *, temperature: float, weight: float, warmup_epochs: float = 0.0) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.temperature = check_temperature(temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the label is not looked at."""
        return standardized_kl(student_logits, teacher_logits, self.temperature).mean()


def largest_share(label: Tensor) -> Tensor:
    """Return one class per example, [B] int64: of shares [B, C] the largest, [B] as it is."""
    return label.argmax(dim=1) if label.ndim == 2 else label


def decoupled_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    label: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
) -> Tensor:
    """KL split in two: how sure of the label's class, and how the other classes share the rest.

    T^2 * (alpha * TCKD + beta * NCKD). TCKD is the KL between the two-way distributions (label's
    class, all others), NCKD the KL between the softmax over the others alone; Zhao et al.,
    "Decoupled Knowledge Distillation", 2022. With alpha = 1 and beta = 1 - p_label of the teacher
    it is `soft_target_kl`. Computed from logsumexp: log of a sum of softmax underflows to -inf.

    Args:
        student_logits: [B, C], C at least 2.
        teacher_logits: [B, C].
        label: [B] int64, or class shares [B, C], of which the class with the largest counts.
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: above 0.

    Returns:
        Loss per example in nats times T^2, [B] float32.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = full_precision(student_logits, teacher_logits)
    target = largest_share(label)[:, None]  # [B, 1]
    others = torch.arange(student.shape[1] - 1, device=student.device).expand(len(student), -1)
    others = others + (others >= target)  # [B, C - 1], every class but the label's

    def split(logits: Tensor) -> tuple[Tensor, Tensor]:
        log_p = F.log_softmax(logits / temperature, dim=1)
        rest = log_p.gather(1, others)
        of_rest = rest.logsumexp(dim=1, keepdim=True)
        return torch.cat([log_p.gather(1, target), of_rest], dim=1), rest - of_rest

    (student_two, student_rest), (teacher_two, teacher_rest) = split(student), split(teacher)
    target_class = kl_divergence(teacher_two, student_two)
    other_classes = kl_divergence(teacher_rest, student_rest)
    return (alpha * target_class + beta * other_classes) * temperature**2


class DecoupledKL(ClassTerm):
    """Mean of `decoupled_kl` over the batch."""

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        weight: float,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.alpha, self.beta = alpha, beta
        self.temperature = check_temperature(temperature)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar."""
        return decoupled_kl(
            student_logits,
            teacher_logits,
            label,
            alpha=self.alpha,
            beta=self.beta,
            temperature=self.temperature,
        ).mean()


def logit_mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean squared difference of the logits, each row centred first.

    mean_c ((z_c - mean z) - (v_c - mean v))^2; Kim et al., "Comparing Kullback-Leibler Divergence
    and Mean Squared Error Loss in Knowledge Distillation", 2021. Centred, because softmax does not
    see a shift. The mean over classes, where the paper has their sum, makes it twice the limit of
    `soft_target_kl` for a high temperature, whatever the number of classes.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].

    Returns:
        Loss per example in squared logits, [B] float32.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = full_precision(student_logits, teacher_logits)
    return (student - teacher).var(dim=1, correction=0)


class LogitMSE(ClassTerm):
    """Mean of `logit_mse` over the batch."""

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the label is not looked at."""
        return logit_mse(student_logits, teacher_logits).mean()


def cross_entropy(student_logits: Tensor, label: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the labels.

    -sum_c y_c log softmax(student)_c, with y mixed with the uniform distribution by `smoothing`.

    Args:
        student_logits: [B, C].
        label: classes, [B] int64, or shares of classes, [B, C] float.
        smoothing: 0 to 1.

    Returns:
        Loss per example in nats, [B] float32.

    Raises:
        ValueError: shares of another shape than the logits.
    """
    if label.is_floating_point():
        logits, label = full_precision(student_logits, label)
        label = label.to(logits.dtype)
    else:
        (logits,) = full_precision(student_logits)
    return F.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing)


class CrossEntropy(ClassTerm):
    """Mean of `cross_entropy` over the batch."""

    needs_teacher = False

    def __init__(
        self, *, weight: float = 1.0, smoothing: float = 0.0, warmup_epochs: float = 0.0
    ) -> None:
        super().__init__(weight=weight, warmup_epochs=warmup_epochs)
        self.smoothing = smoothing

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor | None, label: Tensor
    ) -> Tensor:
        """Return the mean, a scalar; the teacher is not looked at."""
        return cross_entropy(student_logits, label, self.smoothing).mean()


def hard_teacher_labels(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy with the class that the teacher finds likeliest.

    -log softmax(student)_k, k = argmax(teacher); Touvron et al., "Training data-efficient image
    transformers & distillation through attention", 2021.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C].

    Returns:
        Loss per example in nats, [B] float32.

    Raises:
        ValueError: the shapes differ.
    """
    student, teacher = full_precision(student_logits, teacher_logits)
    return cross_entropy(student, teacher.argmax(dim=1))


class HardTeacherLabels(ClassTerm):
    """Mean of `hard_teacher_labels` over the batch."""

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean, a scalar; the label is not looked at."""
        return hard_teacher_labels(student_logits, teacher_logits).mean()
