"""Whether a training comes to an end, how, and whether its schedule can know where that is."""

import inspect
from collections.abc import Callable
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer

from distill.errors import UserError


def has_no_length(trainer: lightning.Trainer) -> bool:
    """Tell whether nobody knows the number of steps beforehand: there is no limit of them."""
    # As Lightning reads it: without a timer, null is 1,000.
    is_endless = trainer.max_epochs == -1 or (trainer.max_epochs is None and _has(trainer, Timer))
    return is_endless and trainer.max_steps == -1


def has_all_steps(trainer: lightning.Trainer) -> bool:
    """Tell whether a training has had as many steps as `max_steps` allows."""
    return 0 < trainer.max_steps <= trainer.global_step


class StepLimit(Callback):
    """Ends the epoch in which `max_steps` are reached as any other ends, with its figures.

    Lightning breaks off there: it would neither validate nor log, and the figures of the epoch
    before would stand for it.
    """

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Say so before the module logs its means."""
        if has_all_steps(trainer):
            trainer.should_stop = True


def check_end(trainer: lightning.Trainer, within: str = "") -> None:
    """Refuse a training that nothing ends.

    Args:
        trainer: with all its callbacks.
        within: whose it is, such as `teacher_training.`.

    Raises:
        UserError: there is no limit, and neither early stopping nor a timer.
    """
    if has_no_length(trainer) and not _has(trainer, EarlyStopping, Timer):
        raise UserError(
            f"Expected something that ends a training of `{within}trainer.max_epochs=-1` but there "
            "is nothing. Add `callbacks=early_stopping`, or a limit: "
            f"`{within}trainer.max_epochs=100`, or `+{within}trainer.max_time=00:08:00:00`."
        )


def check_schedule(
    scheduler: Callable[..., Any], trainer: lightning.Trainer, within: str = ""
) -> None:
    """Refuse a schedule over the whole of a training whose length nobody knows.

    Args:
        scheduler: a partial call; told `total_steps`, or `T_max`, which counts epochs.
        trainer: with all its callbacks.
        within: see `check_end`.

    Raises:
        UserError: there is no limit for it.
    """
    num_epochs = getattr(scheduler, "keywords", {}).get("T_max", 1)
    is_told = isinstance(num_epochs, int | float) and num_epochs > 0
    if not is_told:
        found = f"`{within}scheduler.T_max={num_epochs}`"
    elif "total_steps" in inspect.signature(scheduler).parameters and has_no_length(trainer):
        found = f"`{within}trainer.max_epochs={trainer.max_epochs}`"
    else:
        return
    node = f"scheduler@{within}scheduler" if within else "scheduler"
    raise UserError(
        "Expected a number of epochs for a schedule of the learning rate over all of them but got "
        f"{found}. Set `{within}trainer.max_epochs`, or take `{node}=constant`."
    )


def _has(trainer: lightning.Trainer, *kinds: type[Callback]) -> bool:
    known: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(own, kinds) for own in known)
