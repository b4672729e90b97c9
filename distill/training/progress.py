"""What a training shows of itself: a bar in a terminal, else one line an epoch."""

import logging

import lightning
from lightning.pytorch.callbacks import Callback, RichProgressBar

log = logging.getLogger(__name__)


class EpochBar(RichProgressBar):
    """Lightning's bar, which names no last epoch where none is known."""

    def _get_train_description(self, current_epoch: int) -> str:
        shown = super()._get_train_description(current_epoch)
        return shown.replace("/-2", "") if self.trainer.max_epochs == -1 else shown


class EpochLines(Callback):
    """One line an epoch, where there is no terminal to draw a bar on."""

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Log to stderr in a spawned process, too."""
        root = logging.getLogger("distill")
        if trainer.is_global_zero and trainer.world_size > 1 and not root.handlers:
            root.addHandler(logging.StreamHandler())
            root.setLevel(logging.INFO)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Log the epoch's figures."""
        figures = trainer.callback_metrics
        name = next(name for name in figures if name.startswith("val/"))
        is_endless = trainer.max_epochs == -1
        log.info(
            "epoch %d%s  loss %.4f  validation %s %.4f",
            trainer.current_epoch + 1,
            "" if is_endless else f"/{trainer.max_epochs}",
            figures["train/loss"],
            name.removeprefix("val/").replace("_", " "),
            figures[name],
        )
