"""Losses on the relations between a batch's samples: distances, angles, similarities.

All depend on the batch and have no connector: student and teacher features need not have the same
width. Maps are flattened; the numbers of samples must be equal.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor

from distill.training.losses.logits import full_precision
from distill.training.losses.terms import FeatureTerm

_TINY = 1e-12


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between pairwise distances, each scaled by its mean, [B, D] to a scalar.

    Park et al., "Relational Knowledge Distillation", 2019. Zero for a rotated or rescaled copy.
    """
    ours, theirs = (_scaled_distances(x) for x in (student, teacher))
    return F.smooth_l1_loss(ours, theirs)


def relational_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the cosines at the middle sample of all triples, [B, D] to a scalar.

    Park et al., "Relational Knowledge Distillation", 2019. Memory grows with B^3.
    """
    ours, theirs = (_cosines(x) for x in (student, teacher))
    return F.smooth_l1_loss(ours, theirs)


class RelationalKD(FeatureTerm):
    """`relational_distance` and `relational_angle`, each with its own weight (paper: 25 and 50)."""

    def __init__(
        self,
        *,
        student_tap: str,
        teacher_tap: str,
        weight: float,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__(
            student_tap=student_tap,
            teacher_tap=teacher_tap,
            weight=weight,
            warmup_epochs=warmup_epochs,
        )
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    def forward(self, student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
        """Return the weighted sum, a scalar."""
        student, teacher = student_features[0].flatten(1), teacher_features[0].flatten(1)
        distance = self.distance_weight * relational_distance(student, teacher)
        return distance + self.angle_weight * relational_angle(student, teacher)


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of row-normalised Gram matrices over B^2, [B, D] to a scalar.

    Tung & Mori, "Similarity-Preserving Knowledge Distillation", 2019.
    """
    ours, theirs = (F.normalize(_products(x), dim=1) for x in (student, teacher))
    return (ours - theirs).square().mean()


class SimilarityPreserving(FeatureTerm):
    """`similarity_preserving` of flattened features."""

    def forward(self, student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
        """Return the loss of the batch, a scalar."""
        return similarity_preserving(student_features[0].flatten(1), teacher_features[0].flatten(1))


def probabilistic_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """KL between the samples' neighbourhoods, [B, D] to a scalar: the mean over samples.

    A neighbourhood is the cosine similarities to all samples, shifted to 0..1 and scaled to sum 1;
    Passalis & Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", 2018.
    """
    log_q, log_p = (_log_neighbourhoods(x) for x in (student, teacher))
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


class ProbabilisticTransfer(FeatureTerm):
    """`probabilistic_transfer` of flattened features."""

    def forward(self, student_features: list[Tensor], teacher_features: list[Tensor]) -> Tensor:
        """Return the loss of the batch, a scalar."""
        return probabilistic_transfer(
            student_features[0].flatten(1), teacher_features[0].flatten(1)
        )


def _scaled_distances(features: Tensor) -> Tensor:
    """Distances [B, B] over the mean of those that are not 0."""
    (x,) = full_precision(features)
    squared = (x[:, None] - x[None]).square().sum(dim=2)
    # The root has no gradient at 0, where two embeddings coincide.
    distances = torch.where(squared > _TINY, squared.clamp(min=_TINY).sqrt(), squared)
    apart = (distances.detach() > 0).sum().clamp(min=1)
    return distances / (distances.sum() / apart).clamp(min=_TINY)


def _cosines(features: Tensor) -> Tensor:
    """Cosine at sample i between samples j and k, [B, B, B]."""
    (x,) = full_precision(features)
    towards = F.normalize(x[None] - x[:, None], dim=2)  # [i, j, D]
    with torch.autocast(x.device.type, enabled=False):
        return torch.bmm(towards, towards.transpose(1, 2))


def _products(features: Tensor) -> Tensor:
    (x,) = full_precision(features)
    with torch.autocast(x.device.type, enabled=False):
        return x @ x.T


def _log_neighbourhoods(features: Tensor) -> Tensor:
    (x,) = full_precision(features)
    similarity = (_products(F.normalize(x, dim=1)) + 1) / 2
    similarity = similarity.clamp(min=1e-7)
    return similarity.log() - similarity.sum(dim=1, keepdim=True).log()
