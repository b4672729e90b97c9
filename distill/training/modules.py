"""The LightningModules: which loss on which logits, and nothing else.

They know no files, no ONNX, no printing and no configuration; what cuts across is a callback.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from distill.errors import UserError
from distill.training.losses.logits import cross_entropy
from distill.training.teachers import Teacher

Batch = dict[str, Tensor]
OptimizerFactory = Callable[[Iterable[Tensor]], torch.optim.Optimizer]
SchedulerFactory = Callable[..., Any]


class DivergenceError(UserError):
    """The loss is no longer a number."""


class SupervisedModule(lightning.LightningModule):
    """A model trained on labels alone: a teacher, or the control beside a student.

    Args:
        student: maps [B, H, W, C] uint8 to logits.
        optimizer: called with the parameters.
        scheduler: called with the optimizer, see `make_schedule`; None keeps the rate.
        smoothing: of the labels.
    """

    def __init__(
        self,
        student: nn.Module,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.student, self.smoothing = student, smoothing
        self._optimizer, self._scheduler = optimizer, scheduler

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean cross-entropy of one batch."""
        logits = self.student(batch["input"])
        return finite(self, cross_entropy(logits, batch["label"], self.smoothing).mean())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log accuracy and NLL."""
        validate(self, self.student, batch)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule."""
        return configure(self, self.student.parameters(), self._optimizer, self._scheduler)


class DistillationModule(lightning.LightningModule):
    """A student trained on a teacher's soft labels and, as the losses say, on the labels.

    Args:
        student: maps [B, H, W, C] uint8 to logits.
        teacher: sees the same view; never trained, and no part of the checkpoint.
        losses: name to a module called with (student_logits, teacher_logits, label).
        optimizer: called with the parameters.
        scheduler: called with the optimizer, see `make_schedule`; None keeps the rate.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        losses: dict[str, nn.Module],
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.losses = nn.ModuleDict(losses)
        # In a tuple the teacher is no submodule: not in the state dict, the optimizer, DDP or EMA.
        self._teacher = (teacher,)
        self._optimizer, self._scheduler = optimizer, scheduler

    @property
    def teacher(self) -> Teacher:
        """The frozen teacher."""
        return self._teacher[0]

    def on_fit_start(self) -> None:
        """Bring the teacher to the student's device, which a submodule would have done itself."""
        self.teacher.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the sum of all weighted losses of one batch."""
        image, label = batch["input"], batch["label"]
        teacher_logits = self.teacher(image, batch["index"]).logits
        student_logits = self.student(image)
        terms = {
            name: loss(student_logits, teacher_logits, label) for name, loss in self.losses.items()
        }
        for name, term in terms.items():
            self.log(f"train/{name}", term.detach(), on_step=False, on_epoch=True)
        return finite(self, torch.stack(list(terms.values())).sum())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log accuracy and NLL."""
        validate(self, self.student, batch)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule."""
        parameters = [*self.student.parameters(), *self.losses.parameters()]
        return configure(self, parameters, self._optimizer, self._scheduler)


def finite(module: lightning.LightningModule, loss: Tensor) -> Tensor:
    """Log a training loss and stop the run if it is no longer a number.

    Raises:
        DivergenceError: before the step is taken and before anything is saved.
    """
    if not torch.isfinite(loss):
        raise DivergenceError(
            f"Expected a finite loss but got {loss.item()} in epoch {module.current_epoch}, step "
            f"{module.global_step}. The last good checkpoint is kept. Lower the learning rate, "
            "set `trainer.gradient_clip_val=1.0`, or look for NaN in the data."
        )
    module.log("train/loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=True)
    return loss


def validate(module: lightning.LightningModule, model: nn.Module, batch: Batch) -> None:
    """Log `val/accuracy`, `val/nll` and `val/selection`, by which the best epoch is chosen.

    `val/selection` is the accuracy with ties broken by NLL: on up to 50,000 samples one of
    them outweighs any NLL, and float32 still tells the NLLs apart.

    Raises:
        DivergenceError: the validation loss is no longer a number.
    """
    logits = model(batch["input"])
    loss = cross_entropy(logits, batch["label"]).mean()
    if not torch.isfinite(loss) and not module.trainer.sanity_checking:
        raise DivergenceError(
            f"Expected a finite validation loss but got {loss.item()} in epoch "
            f"{module.current_epoch}. The last good checkpoint is kept. Lower the learning rate."
        )
    accuracy = (logits.argmax(dim=1) == batch["label"]).float().mean()
    shown = {"val/accuracy": accuracy, "val/nll": loss}
    module.log_dict(shown, batch_size=len(logits), prog_bar=True)
    module.log("val/selection", accuracy - 1e-5 * loss.clamp(max=2), batch_size=len(logits))


def configure(
    module: lightning.LightningModule,
    parameters: Iterable[Tensor],
    optimizer: OptimizerFactory,
    scheduler: SchedulerFactory | None,
) -> Any:
    """Build an optimizer and its learning-rate schedule, as Lightning wants them."""
    built = optimizer([p for p in parameters if p.requires_grad])
    if scheduler is None:
        return built
    steps = int(module.trainer.estimated_stepping_batches)
    return {"optimizer": built, "lr_scheduler": make_schedule(scheduler, built, total_steps=steps)}


def make_schedule(
    scheduler: SchedulerFactory, optimizer: torch.optim.Optimizer, *, total_steps: int
) -> dict[str, Any]:
    """Build a learning-rate schedule and say how often it is stepped.

    A scheduler that takes `total_steps` (such as torch's `OneCycleLR`) is given the number of
    optimizer steps and stepped at each; any other (`CosineAnnealingLR`, `MultiStepLR`) is stepped
    once an epoch.
    """
    if "total_steps" in inspect.signature(scheduler).parameters:
        schedule = scheduler(optimizer, total_steps=total_steps)
        return {"scheduler": schedule, "interval": "step"}
    return {"scheduler": scheduler(optimizer), "interval": "epoch"}
