"""Fitting one module into one folder: resumable, checkpointed whole, with its history.

Knows Lightning and files; knows nothing of what is trained, nor of configuration.
"""

import io
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from numpy.typing import NDArray
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException

from distill.errors import UserError
from distill.files import read_json, write_bytes, write_json
from distill.training.endings import StepLimit, check_end, has_all_steps
from distill.training.hardware import TunedProcess, interruptible, quiet
from distill.training.progress import EpochBar, EpochLines
from distill.training.random_states import RandomStates

log = logging.getLogger(__name__)

TrainerFactory = Callable[..., lightning.Trainer]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A finished training.

    Attributes:
        history: per epoch, the logged figures.
        best_epoch: the highest on validation, from 0.
        best: weights of that epoch.
        last: weights of the last epoch.
        seconds: spent in training, over all sittings.
        was_stopped: before the end of its schedule, such as by early stopping.
    """

    history: list[dict[str, float]]
    best_epoch: int
    best: dict[str, torch.Tensor]
    last: dict[str, torch.Tensor]
    seconds: float
    was_stopped: bool


def fit(
    module: lightning.LightningModule,
    data: lightning.LightningDataModule,
    trainer: TrainerFactory,
    folder: Path,
    *,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Any] = (),
    show_bar: bool = False,
) -> Fitted:
    """Train a module, going on from `folder/last.ckpt` if it is there.

    Args:
        module: has a `student`, whose weights are kept.
        data: its batches.
        trainer: `lightning.Trainer` with the user's choices bound.
        folder: for `last.ckpt` and `best.ckpt`, each whole or absent.
        callbacks: the user's own.
        loggers: the user's own.
        show_bar: a progress bar on stderr; else one line an epoch.

    Raises:
        DivergenceError: the loss is no longer a number.
        UserError: a checkpoint is damaged, or nothing would end the training.
    """
    options = {"dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    checkpoints = [
        ModelCheckpoint(filename="best", monitor="val/selection", mode="max", **options),
        # Not `save_last` of the above: that saves only when the best is saved, too.
        ModelCheckpoint(filename="last", **options),
    ]
    kept = [StepLimit(), RandomStates(), Stopped(), History()]
    progress = EpochBar(console_kwargs={"stderr": True}) if show_bar else EpochLines()
    fitter = trainer(
        callbacks=[*callbacks, TunedProcess(), *kept, *checkpoints, progress],
        logger=list(loggers) or False,
        default_root_dir=folder,
        enable_model_summary=False,
        enable_progress_bar=show_bar,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # our samplers share out whole batches themselves
        plugins=[WholeCheckpoints()],
    )
    check_end(fitter)
    last = folder / "last.ckpt"
    with quiet():
        resume = str(last) if last.exists() else None
        if resume:
            log.info("resuming from %s", last)
        try:
            with interruptible(fitter):
                fitter.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        except ProcessRaisedException as error:
            raise _from_child(error) from error
    if not last.exists():
        raise UserError(
            "Expected at least one whole epoch but the training ended before. Raise "
            "`trainer.max_epochs`, and `trainer.max_steps` where it is set."
        )
    # From the file, because the processes that trained may have been others.
    finished = load_weights(last)
    history = finished["callbacks"][History.__name__]["epochs"]
    return Fitted(
        history=history,
        best_epoch=int(np.argmax([epoch["val/selection"] for epoch in history])),
        best=_student_weights(load_weights(folder / "best.ckpt")),
        last=_student_weights(finished),
        seconds=sum(epoch["seconds"] for epoch in history),
        was_stopped=finished.get("was_stopped", False),
    )


class Stopped(Callback):
    """Whether something has stopped the training, such as early stopping.

    It travels in the checkpoint, for Lightning forgets it: a run that was killed after its last
    epoch and before its weights were kept would train on, and end with others.
    """

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Keep it: what watches a figure, as early stopping does, has looked at it by now."""
        checkpoint["was_stopped"] = trainer.should_stop and not has_all_steps(trainer)

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Train no more where the checkpoint is a stopped training's."""
        trainer.should_stop = checkpoint.get("was_stopped", False)


class History(Callback):
    """Every epoch's logged figures and seconds; travels in the checkpoint, so a resume keeps it."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self._started = 0.0

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Keep the figures."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        figures["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        figures["seconds"] = time.monotonic() - self._started
        self.epochs.append(figures)

    def state_dict(self) -> dict[str, Any]:
        """Travel in the checkpoint."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.epochs = list(state_dict["epochs"])


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent, and are read without unpickling code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Serialise in memory, then put the file in place at once."""
        save_weights(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load tensors and plain values alone."""
        return load_weights(Path(path), map_location=map_location or "cpu")


def save_weights(content: dict[str, Any], path: Path) -> None:
    """Save tensors and plain values, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load_weights(path: Path, *, map_location: Any = "cpu") -> dict[str, Any]:
    """Load a dictionary of tensors and plain values; no code in the file is run.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise UserError(f"Expected a checkpoint at {path} but there is none.")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise UserError(
            f"Expected a checkpoint of tensors and plain values at {path} but it is damaged or "
            f"holds something else ({type(error).__name__}). Name another file, or train again."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"Expected a dictionary of weights in {path} but found {type(content)}.")
    return content


def predict_logits(
    model: nn.Module, inputs: NDArray[Any], batch_size: int = 256
) -> NDArray[np.float32]:
    """Run a model in eval mode over inputs, [N, ...] to [N, C] float32."""
    model.eval()
    batches = range(0, len(inputs), batch_size)
    with torch.inference_mode():
        outputs = [model(torch.from_numpy(inputs[i : i + batch_size])) for i in batches]
    return torch.cat(outputs).float().numpy()


def _from_child(error: Exception) -> Exception:
    """Turn what a spawned process raised back into the user's error, if it is one."""
    last = str(error).strip().splitlines()[-1]
    name, _, message = last.partition(": ")
    return UserError(message) if name.startswith("distill.") else error


def forget_other_recipe(folder: Path, recipe: str) -> None:
    """Remove the checkpoints in a folder unless they were made by this recipe.

    Args:
        folder: of one training.
        recipe: a hash of all that decides the outcome.
    """
    path = folder / "recipe.json"
    if path.exists() and read_json(path)["recipe"] == recipe:
        return
    for checkpoint in folder.glob("*.ckpt"):
        checkpoint.unlink()
    write_json(path, {"recipe": recipe})


def _student_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    state = checkpoint["state_dict"]
    prefix = "student."
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
