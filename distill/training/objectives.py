"""What a network is trained for on labels alone, and by what its best epoch is chosen.

Outputs are [B, C], targets as `Split.learnt` gives them.
"""

from collections.abc import Callable

import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor

from distill.tasks import TaskKind
from distill.training.losses.logits import cross_entropy
from distill.training.losses.multi_label import binary_cross_entropy


def loss_on_labels(kind: TaskKind) -> Callable[[Tensor, Tensor], Tensor]:
    """Choose the loss of a task, per example, [B].

    Cross-entropy of classes, binary cross-entropy of labels, of numbers half the squared error,
    mean over them: its minimum is the mean, by which RMSE is lowest.
    """
    return _LOSSES[kind]


def validation_figures(
    kind: TaskKind, outputs: Tensor, target: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute what is logged of a validation batch, and by what the best epoch is chosen.

    Of classes and labels it is the share that is right, with ties broken by NLL: on up to 50,000
    samples one of them outweighs any NLL, and float32 still tells the NLLs apart. Of numbers it is
    the mean squared error, in units of the targets.

    Returns:
        Means over the batch by name, and the selection, of which more is better.
    """
    if kind is TaskKind.REGRESSION:
        error = F.mse_loss(outputs.float(), target.float())
        return {"mse": error}, -error
    nll = loss_on_labels(kind)(outputs, target).mean()
    if kind is TaskKind.MULTI_LABEL:
        right, name = (outputs > 0) == (target > 0), "label_accuracy"
    else:
        right, name = outputs.argmax(dim=1) == target, "accuracy"
    share = right.float().mean()
    return {name: share, "nll": nll}, share - 1e-5 * nll.clamp(max=2)


def half_squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    """Half the squared error, mean over the numbers, [B]."""
    return 0.5 * F.mse_loss(outputs.float(), target.float(), reduction="none").mean(dim=1)


_LOSSES: dict[TaskKind, Callable[[Tensor, Tensor], Tensor]] = {
    TaskKind.CLASSIFICATION: cross_entropy,
    TaskKind.MULTI_LABEL: binary_cross_entropy,
    TaskKind.REGRESSION: half_squared_error,
}
