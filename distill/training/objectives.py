"""What a network is trained for on labels alone, and by what its best epoch is chosen.

Outputs are [B, C], targets as `Split.learnt` gives them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor

from distill.tasks import TaskKind
from distill.training.losses.logits import cross_entropy
from distill.training.losses.multi_label import binary_cross_entropy
from distill.training.losses.quantiles import pinball


def loss_on_labels(
    kind: TaskKind, quantiles: Sequence[float] = ()
) -> Callable[[Tensor, Tensor], Tensor]:
    """Choose the loss of a task, per example, [B].

    Cross-entropy of classes, binary cross-entropy of labels, of numbers half the squared error,
    mean over them: its minimum is the mean, by which RMSE is lowest. Of their quantiles, at these
    levels, it is the pinball loss.
    """
    return partial(pinball_at, levels=quantiles) if quantiles else _LOSSES[kind]


def validation_figures(
    kind: TaskKind, outputs: Tensor, target: Tensor, quantiles: Sequence[float] = ()
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute what is logged of a validation batch, and by what the best epoch is chosen.

    Of classes and labels it is the share that is right, with ties broken by NLL: up to 50,000 of
    them, one outweighs any NLL, and float32 still tells the NLLs apart. Of labels both are means
    over the labels, too. Of numbers it is the mean squared error, in units of the targets, of their
    quantiles the pinball loss.

    Returns:
        Means over the batch by name, and the selection, of which more is better.
    """
    if quantiles:
        loss = pinball_at(outputs, target, quantiles).mean()
        return {"pinball": loss}, -loss
    if kind is TaskKind.REGRESSION:
        error = F.mse_loss(outputs.float(), target.float())
        return {"mse": error}, -error
    nll = loss_on_labels(kind)(outputs, target).mean()
    if kind is TaskKind.MULTI_LABEL:
        name, right = "label_accuracy", (outputs > 0) == (target > 0)
        nll = nll / outputs.shape[1]
    else:
        name, right = "accuracy", outputs.argmax(dim=1) == target
    share = right.float().mean()
    return {name: share, "nll": nll}, share - 1e-5 * nll.clamp(max=2)


def half_squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    """Half the squared error, mean over the numbers, [B]."""
    return 0.5 * F.mse_loss(outputs.float(), target.float(), reduction="none").mean(dim=1)


def pinball_at(outputs: Tensor, target: Tensor, levels: Sequence[float]) -> Tensor:
    """Pinball loss of quantiles [B, D * Q] at Q levels, mean over all, [B]."""
    return pinball(outputs, target, torch.tensor(levels, device=outputs.device))


_LOSSES: dict[TaskKind, Callable[[Tensor, Tensor], Tensor]] = {
    TaskKind.CLASSIFICATION: cross_entropy,
    TaskKind.MULTI_LABEL: binary_cross_entropy,
    TaskKind.REGRESSION: half_squared_error,
}
