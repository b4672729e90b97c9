"""The LightningModules: which loss on which logits, and nothing else.

They know no files, no ONNX, no printing and no configuration; what cuts across is a callback.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from distill.errors import UserError
from distill.tasks import TaskKind
from distill.training.endings import check_schedule
from distill.training.losses.terms import FeatureTerm, LossTerm
from distill.training.objectives import loss_on_labels, validation_figures
from distill.training.taps import Taps
from distill.training.teachers.base import Teacher, TeacherOutput

Batch = dict[str, Any]
OptimizerFactory = Callable[[Iterable[Tensor]], torch.optim.Optimizer]
SchedulerFactory = Callable[..., Any]


class DivergenceError(UserError):
    """The loss is no longer a number."""


class _Module(lightning.LightningModule):
    """What both modules share: a student, its optimizer, means over the epoch, validation."""

    def __init__(
        self,
        student: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None,
        kind: TaskKind,
        quantiles: Sequence[float],
    ) -> None:
        super().__init__()
        self.student, self.kind, self.quantiles = student, kind, tuple(quantiles)
        self._optimizer, self._scheduler = optimizer, scheduler
        self._sums: dict[str, Tensor] = {}
        self._num_steps = 0
        self._last_loss: Tensor | None = None

    def on_train_epoch_start(self) -> None:
        """Start the epoch's means anew."""
        self._sums, self._num_steps = {}, 0

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the epoch's means, `train/loss` and every term, at its last batch.

        A timer may end an epoch before.
        """
        if batch_idx + 1 == self.trainer.num_training_batches or self.trainer.should_stop:
            means = {f"train/{n}": total / self._num_steps for n, total in self._sums.items()}
            self.log_dict(
                means, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=1
            )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log how good the student is."""
        validate(self, self.student, batch, self.kind, self.quantiles)

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its learning-rate schedule, as Lightning wants them."""
        built = self._optimizer([p for p in self.parameters() if p.requires_grad])
        if self._scheduler is None:
            return built
        check_schedule(self._scheduler, self.trainer)
        steps = self.trainer.estimated_stepping_batches  # infinite for those that ask for no number
        schedule = make_schedule(self._scheduler, built, total_steps=steps)
        return {"optimizer": built, "lr_scheduler": schedule}

    def _finite(self, loss: Tensor, terms: dict[str, Tensor]) -> Tensor:
        """Add a loss and its terms to the epoch's means; stop the run if it is no number.

        Sums, because Lightning's own bookkeeping of one figure costs as much as a batch's
        augmentation. A GPU would have to finish the step before it could tell: there the loss of
        the step before is looked at, which is done by now.

        Raises:
            DivergenceError: before anything is saved; on a CPU before the step is taken.
        """
        known = loss.detach() if loss.device.type == "cpu" else self._last_loss
        self._last_loss = loss.detach()
        self._check_finite(known)
        self._num_steps += 1
        for name, value in {"loss": loss, **terms}.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        return loss

    def on_train_epoch_end(self) -> None:
        """Look at the last step's loss before the epoch's weights are saved."""
        self._check_finite(self._last_loss)

    def _check_finite(self, loss: Tensor | None) -> None:
        if loss is not None and not torch.isfinite(loss):
            raise DivergenceError(
                f"Expected a finite loss but got {loss.item()} in epoch {self.current_epoch}, step "
                f"{self.global_step}. The last good checkpoint is kept. Lower the learning rate, "
                "set `trainer.gradient_clip_val=1.0`, or look for NaN in the data."
            )


class SupervisedModule(_Module):
    """A model trained on labels alone: a teacher, or the control beside a student.

    Args:
        student: maps inputs to logits, or to standardised numbers.
        optimizer: called with the parameters.
        scheduler: called with the optimizer, see `make_schedule`; None keeps the rate.
        kind: of the task, which says what the loss is.
        quantiles: levels at which numbers are answered; none for the numbers themselves.
    """

    def __init__(
        self,
        student: nn.Module,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        kind: TaskKind = TaskKind.CLASSIFICATION,
        quantiles: Sequence[float] = (),
    ) -> None:
        super().__init__(student, optimizer, scheduler, kind, quantiles)
        self._loss = loss_on_labels(kind, self.quantiles)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of one batch."""
        outputs = self.student(batch["input"])
        return self._finite(self._loss(outputs, batch["label"]).mean(), {})


class DistillationModule(_Module):
    """A student trained on a teacher's soft labels and, as the losses say, on the labels.

    Args:
        student: maps inputs to logits, or to standardised numbers.
        teacher: sees the same view; never trained, and no part of the checkpoint.
        losses: name to a module called with (student_logits, teacher_logits, label), or a
            `FeatureTerm`. A `LossTerm` is weighted here; any other module counts as it is.
        optimizer: called with the parameters of the student and of the losses' connectors.
        scheduler: called with the optimizer, see `make_schedule`; None keeps the rate.
        example: a batch of inputs, from which feature losses learn the shapes of their taps.
        kind: of the task, by which the best epoch is chosen.
        quantiles: see `SupervisedModule`.

    Raises:
        UserError: all weights are 0, a tap does not exist, or the teacher has no features.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        losses: dict[str, nn.Module],
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        example: Tensor | None = None,
        kind: TaskKind = TaskKind.CLASSIFICATION,
        quantiles: Sequence[float] = (),
    ) -> None:
        super().__init__(student, optimizer, scheduler, kind, quantiles)
        if not any(not isinstance(loss, LossTerm) or loss.weight for loss in losses.values()):
            raise UserError(
                f"Expected a loss with a weight above 0 but got {', '.join(losses) or 'none'}, "
                "all 0. Set one, such as `loss.kd.weight=1`."
            )
        self.losses = nn.ModuleDict(losses)
        # In a tuple the teacher is no submodule: not in the state dict, the optimizer, DDP or EMA.
        self._teacher = (teacher,)
        self._features = [loss for loss in losses.values() if isinstance(loss, FeatureTerm)]
        self._student_taps = self._connect(example) if self._features else None

    @property
    def teacher(self) -> Teacher:
        """The frozen teacher."""
        return self._teacher[0]

    def on_fit_start(self) -> None:
        """Bring the teacher to the student's device, which a submodule would have done itself."""
        self.teacher.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the sum of all weighted losses of one batch."""
        num_batches = max(1, int(self.trainer.num_training_batches))
        terms = self.terms(batch, self.current_epoch + batch_idx / num_batches)
        optimizer = self.trainer.optimizers[0]
        if hasattr(optimizer, "set_task_gradients"):
            self._hand_over_task_gradients(optimizer, terms)
        return self._finite(torch.stack(list(terms.values())).sum(), terms)

    def terms(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        """Compute every weighted loss of one batch at a (fractional) epoch."""
        image, label = batch["input"], batch["label"]
        answer = None
        if not all(map(_needs_no_teacher, self.losses.values())):
            self.teacher.show_view(batch["view"])
            answer = self.teacher(image, batch["index"])
        student_logits = self.student(image)
        return {
            name: self._term(loss, student_logits, answer, label, epoch)
            for name, loss in self.losses.items()
        }

    def _term(
        self,
        loss: nn.Module,
        student_logits: Tensor,
        answer: TeacherOutput | None,
        label: Tensor,
        epoch: float,
    ) -> Tensor:
        if isinstance(loss, FeatureTerm):
            assert self._student_taps is not None
            assert answer is not None
            assert answer.features is not None
            asked = dict(zip(self._teacher_names, answer.features, strict=True))
            features = [asked[name] for name in loss.teacher_taps]
            value = loss(self._student_taps.take(loss.student_taps), features)
        else:
            value = loss(student_logits, answer.logits if answer else None, label)
        return value * loss.weight_at(epoch) if isinstance(loss, LossTerm) else value

    def _connect(self, example: Tensor | None) -> Taps:
        if example is None:
            raise ValueError("Expected an `example` batch: a loss on features needs its shapes.")
        network = getattr(self.student, "network", self.student)
        names = sorted({name for loss in self._features for name in loss.student_taps})
        taps = Taps(network, names, "student")
        self._teacher_names = sorted({n for loss in self._features for n in loss.teacher_taps})
        self.teacher.tap(self._teacher_names)
        training = self.student.training
        with torch.no_grad():
            self.student.eval()(example)
            answer = self.teacher(example, torch.zeros(len(example), dtype=torch.int64))
        self.student.train(training)
        asked = dict(zip(self._teacher_names, answer.features or [], strict=True))
        for loss in self._features:
            loss.connect(
                [feature.shape for feature in taps.take(loss.student_taps)],
                [asked[name].shape for name in loss.teacher_taps],
            )
        return taps

    def _hand_over_task_gradients(self, optimizer: Any, terms: dict[str, Tensor]) -> None:
        """Give an optimizer that wants them the gradients of the terms that need no teacher."""
        self.check_optimizer(optimizer, self.trainer)
        task = [term for name, term in terms.items() if _needs_no_teacher(self.losses[name])]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.set_task_gradients(
            torch.autograd.grad(
                torch.stack(task).sum(), parameters, retain_graph=True, allow_unused=True
            )
        )

    def check_optimizer(self, optimizer: Any, trainer: lightning.Trainer) -> None:
        """Refuse an optimizer that keeps two kinds of loss apart where they cannot be.

        Raises:
            UserError: gradients are clipped, accumulated or averaged over processes, or there is
                no loss on the labels.
        """
        if not hasattr(optimizer, "set_task_gradients"):
            return
        if (
            trainer.accumulate_grad_batches > 1
            or trainer.gradient_clip_val
            or trainer.world_size > 1
        ):
            raise UserError(
                "Expected one process without clipping and accumulation for an optimizer that "
                "keeps the gradients of two kinds of loss apart. Use `optimizer=sgd`, or unset "
                "`trainer.gradient_clip_val`, `accumulate_grad_batches` and `devices`."
            )
        if not any(map(_needs_no_teacher, self.losses.values())):
            raise UserError(
                "Expected a loss on the labels beside the distillation losses, whose gradients "
                "this optimizer keeps apart, but there is none. Add `loss.ce`, or use another "
                "optimizer."
            )


def _needs_no_teacher(loss: nn.Module) -> bool:
    return not getattr(loss, "needs_teacher", True)


def validate(
    module: lightning.LightningModule,
    model: nn.Module,
    batch: Batch,
    kind: TaskKind,
    quantiles: Sequence[float] = (),
) -> None:
    """Log the task's figures as `val/...`, and `val/selection`, by which the best epoch is chosen.

    Raises:
        DivergenceError: a validation figure is no longer a number.
    """
    outputs = model(batch["input"])
    figures, selection = validation_figures(kind, outputs, batch["label"], quantiles)
    broken = [f"{value.item()}" for value in figures.values() if not torch.isfinite(value)]
    if broken and not module.trainer.sanity_checking:
        raise DivergenceError(
            f"Expected a finite validation loss but got {broken[0]} in epoch "
            f"{module.current_epoch}. The last good checkpoint is kept. Lower the learning rate."
        )
    shown = {f"val/{name}": value for name, value in figures.items()}
    module.log_dict(shown, batch_size=len(outputs), prog_bar=True, sync_dist=True)
    module.log("val/selection", selection, batch_size=len(outputs), sync_dist=True)


def make_schedule(
    scheduler: SchedulerFactory, optimizer: torch.optim.Optimizer, *, total_steps: float
) -> dict[str, Any]:
    """Build a learning-rate schedule and say how often it is stepped.

    A scheduler that takes `total_steps` (such as torch's `OneCycleLR`) is given the number of
    optimizer steps and stepped at each; any other (`CosineAnnealingLR`, `MultiStepLR`) is stepped
    once an epoch.
    """
    if "total_steps" in inspect.signature(scheduler).parameters:
        schedule = scheduler(optimizer, total_steps=int(total_steps))
        return {"scheduler": schedule, "interval": "step"}
    return {"scheduler": scheduler(optimizer), "interval": "epoch"}
