"""Losses on the features of one layer each: hints, attention, channels, projections.

Pure functions on features that match, under modules whose connectors bring the student's features
to the teacher's shape. Left out on purpose: CRD (a memory bank of every sample's embedding, keyed
by sample, larger than the student's whole state), OFD and AB (margins placed by hand in each
architecture), FSP (a pretraining stage of its own); none of them is reproduced to beat those here.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor, nn

from distill.errors import UserError
from distill.training.losses.logits import full_precision
from distill.training.losses.terms import FeatureTerm, check_temperature


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool the larger of two maps [B, C, H, W] to the smaller one's height and width."""
    (height, width), (their_height, their_width) = student.shape[2:], teacher.shape[2:]
    size = (min(height, their_height), min(width, their_width))
    pooled = [
        x if tuple(x.shape[2:]) == size else F.adaptive_avg_pool2d(x, size)
        for x in (student, teacher)
    ]
    return pooled[0], pooled[1]


def check_maps(term: FeatureTerm, shapes: Sequence[torch.Size], whose: str) -> None:
    """Refuse features that are no maps.

    Raises:
        UserError: names the tap.
    """
    names = term.student_taps if whose == "student" else term.teacher_taps
    for name, shape in zip(names, shapes, strict=True):
        if len(shape) != 4:
            raise UserError(
                f"Expected maps [B, C, H, W] at the {whose}'s tap `{name}` for "
                f"{type(term).__name__} but it gives {list(shape)}. Tap a convolutional layer."
            )


def connector(student: torch.Size, teacher: torch.Size) -> nn.Module:
    """Build a 1x1 convolution (or linear layer) from the student's channels to the teacher's.

    Raises:
        UserError: one side gives maps and the other vectors.
    """
    if len(student) != len(teacher) or len(student) not in (2, 4):
        raise UserError(
            "Expected maps [B, C, H, W] at both taps, or vectors [B, D], but the student's are "
            f"{list(student)} and the teacher's {list(teacher)}. Tap other layers."
        )
    if len(student) == 4:
        return nn.Conv2d(student[1], teacher[1], 1)
    return nn.Linear(student[1], teacher[1])


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of features of one shape, [B, ...] to [B].

    Romero et al., "FitNets: Hints for Thin Deep Nets", 2015.
    """
    student, teacher = full_precision(student, teacher)
    return (student - teacher).square().flatten(1).mean(dim=1)


class HintLoss(FeatureTerm):
    """Mean of `hint` between the teacher's features and a regressor on the student's."""

    def connect(
        self, student_shapes: Sequence[torch.Size], teacher_shapes: Sequence[torch.Size]
    ) -> None:
        """Make a regressor for each tap."""
        pairs = zip(student_shapes, teacher_shapes, strict=True)
        self.regressors = nn.ModuleList(connector(s, t) for s, t in pairs)

    def forward(self, student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
        """Return the mean over taps and batch, a scalar."""
        losses = []
        for regress, s, t in zip(self.regressors, student_features, teacher_features, strict=True):
            if s.ndim == 4:
                s, t = same_size(s, t)
            losses.append(hint(regress(s), t).mean())
        return torch.stack(losses).mean()


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of normalised attention maps, [B, C, H, W] to [B].

    Attention is the mean over channels of the squared activations, flattened and scaled to unit
    length; Zagoruyko & Komodakis, "Paying More Attention to Attention", 2017 (the mean over
    positions, as their code has it). The channels need not be as many.
    """
    maps = [
        F.normalize(full_precision(x)[0].square().mean(dim=1).flatten(1), dim=1)
        for x in same_size(student, teacher)
    ]
    return (maps[0] - maps[1]).square().mean(dim=1)


class AttentionTransfer(FeatureTerm):
    """Sum over taps of the mean of `attention_transfer`; has no connector."""

    def connect(
        self, student_shapes: Sequence[torch.Size], teacher_shapes: Sequence[torch.Size]
    ) -> None:
        """See that both sides give maps."""
        check_maps(self, student_shapes, "student")
        check_maps(self, teacher_shapes, "teacher")

    def forward(self, student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
        """Return the sum over taps, a scalar."""
        pairs = zip(student_features, teacher_features, strict=True)
        return torch.stack([attention_transfer(s, t).mean() for s, t in pairs]).sum()


def channel_wise_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL between spatial distributions, channel by channel, [B, C, H, W] to [B].

    T^2 / C * sum_c KL(softmax(teacher_c / T) || softmax(student_c / T)) over positions; Shu et al.,
    "Channel-wise Knowledge Distillation for Dense Prediction", 2021.
    """
    student, teacher = full_precision(student, teacher)
    log_q = F.log_softmax(student.flatten(2) / temperature, dim=2)
    log_p = F.log_softmax(teacher.flatten(2) / temperature, dim=2)
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=2)
    return divergence.mean(dim=1) * temperature**2


class ChannelWiseKL(FeatureTerm):
    """Mean of `channel_wise_kl`; a 1x1 convolution where the channels differ."""

    def __init__(
        self,
        *,
        student_tap: str,
        teacher_tap: str,
        weight: float,
        temperature: float = 4.0,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(
            student_tap=student_tap,
            teacher_tap=teacher_tap,
            weight=weight,
            warmup_epochs=warmup_epochs,
        )
        self.temperature = check_temperature(temperature)

    def connect(
        self, student_shapes: Sequence[torch.Size], teacher_shapes: Sequence[torch.Size]
    ) -> None:
        """Make the convolution if it is needed."""
        check_maps(self, student_shapes, "student")
        check_maps(self, teacher_shapes, "teacher")
        same = student_shapes[0][1] == teacher_shapes[0][1]
        self.align = nn.Identity() if same else connector(student_shapes[0], teacher_shapes[0])

    def forward(self, student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
        """Return the mean, a scalar."""
        student, teacher = same_size(student_features[0], teacher_features[0])
        return channel_wise_kl(self.align(student), teacher, self.temperature).mean()


def log_power_distance(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """Log of the summed powers of differences, [B, D] to a scalar that depends on the batch.

    log sum_{b,d} |student - teacher|^alpha; Miles & Mikolajczyk, "Understanding the Role of the
    Projector in Knowledge Distillation", 2024. The floor of 1e-12 keeps its gradient finite where
    the two are equal.
    """
    student, teacher = full_precision(student, teacher)
    return (student - teacher).abs().pow(alpha).sum().clamp(min=1e-12).log()


class SingleProjector(FeatureTerm):
    """`log_power_distance` between batch-normalised teacher features and a linear projection.

    Maps are averaged over positions first. Both sides are normalised over the batch without affine
    parameters, which makes the loss depend on the batch.
    """

    def __init__(
        self,
        *,
        student_tap: str,
        teacher_tap: str,
        weight: float,
        alpha: float = 4.0,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(
            student_tap=student_tap,
            teacher_tap=teacher_tap,
            weight=weight,
            warmup_epochs=warmup_epochs,
        )
        if alpha <= 0:
            raise UserError(f"Expected `alpha` > 0 but got {alpha}. Try 4.")
        self.alpha = alpha

    def connect(
        self, student_shapes: Sequence[torch.Size], teacher_shapes: Sequence[torch.Size]
    ) -> None:
        """Make the projector."""
        self.project = nn.Linear(student_shapes[0][1], teacher_shapes[0][1], bias=False)

    def forward(self, student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
        """Return the loss of the batch, a scalar."""
        student, teacher = (pooled(x[0]) for x in (student_features, teacher_features))
        sides = full_precision(self.project(student), teacher)
        normal = [F.batch_norm(side, None, None, training=True) for side in sides]
        return log_power_distance(normal[0], normal[1], self.alpha)


def pooled(features: Tensor) -> Tensor:
    """Average maps [B, C, H, W] over positions; vectors [B, D] stay."""
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features


def variational_information(mean: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """Negative log-likelihood of the teacher's features, up to a constant, [B, C, ...] to [B].

    Mean over features of 0.5 * (log variance_c + (teacher - mean)^2 / variance_c), a Gaussian with
    one variance a channel; Ahn et al., "Variational Information Distillation", 2019. Negative where
    the variance is small.
    """
    mean, teacher = full_precision(mean, teacher)
    spread = variance.to(mean.dtype).view(1, -1, *[1] * (mean.ndim - 2))
    return 0.5 * (spread.log() + (teacher - mean).square() / spread).flatten(1).mean(dim=1)


class VariationalInformation(FeatureTerm):
    """Mean of `variational_information`; the Gaussian's mean is a small network on the student's.

    The variance of each channel is softplus of a learned number, plus 1e-5, and begins at 5.
    """

    def connect(
        self, student_shapes: Sequence[torch.Size], teacher_shapes: Sequence[torch.Size]
    ) -> None:
        """Make the network and the variances."""
        student, teacher = student_shapes[0], teacher_shapes[0]
        widened = torch.Size([student[0], 2 * teacher[1], *student[2:]])
        self.mean = nn.Sequential(
            connector(student, torch.Size([teacher[0], widened[1], *teacher[2:]])),
            nn.ReLU(),
            connector(widened, teacher),
        )
        self.raw_variance = nn.Parameter(torch.full((teacher[1],), 5.0).expm1().log())

    def forward(self, student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
        """Return the mean, a scalar."""
        student, teacher = student_features[0], teacher_features[0]
        if student.ndim == 4:
            student, teacher = same_size(student, teacher)
        variance = F.softplus(self.raw_variance) + 1e-5
        return variational_information(self.mean(student), teacher, variance).mean()
