"""Where every process of a training stands in its random numbers, kept from epoch to epoch.

Knows Lightning and torch's processes; knows nothing of what draws the numbers.
"""

import random
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import distributed


class RandomStates(Callback):
    """The random states at the end of an epoch, with which the next begins.

    They travel in the checkpoint, so dropout in a resumed run draws what it would have drawn in a
    run that was not killed. They are set in either case, and not before the first batch is there,
    because what happens between two epochs (loaders draw their seeds) differs between the two.

    Each process has its own: those of the first, which writes the checkpoint, tell nothing of the
    others, and its machine may have devices that it does not train on.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] = []  # of each process

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Begin an epoch with the states at the end of the last one."""
        if batch_idx or trainer.global_rank >= len(self._states):
            return
        own = self._states[trainer.global_rank]
        torch.set_rng_state(own["torch"])
        if pl_module.device.type == "cuda" and own["cuda"]:
            torch.cuda.set_rng_state(own["cuda"][0], pl_module.device)
        algorithm, keys, *rest = own["numpy"]
        np.random.set_state((algorithm, np.array(keys, dtype=np.uint32), *rest))
        version, words, gauss = own["python"]
        random.setstate((version, tuple(words), gauss))

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Keep the states."""
        algorithm, keys, *rest = np.random.get_state()
        version, words, gauss = random.getstate()
        device = pl_module.device
        own = {
            "torch": torch.get_rng_state(),
            "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
            "numpy": [algorithm, np.asarray(keys).tolist(), *rest],
            "python": [version, list(words), gauss],
        }
        self._states = _of_all_processes(own)

    def state_dict(self) -> dict[str, Any]:
        """Travel in the checkpoint: every state, of each process."""
        names = self._states[0] if self._states else {}
        return {name: [own[name] for own in self._states] for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, also from one of before each process had states of its own."""
        if not isinstance(state_dict["torch"], list):
            state_dict = {name: [own] for name, own in state_dict.items()}
        of_each = zip(*state_dict.values(), strict=True)
        self._states = [dict(zip(state_dict, own, strict=True)) for own in of_each]


def _of_all_processes(own: dict[str, Any]) -> list[dict[str, Any]]:
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    states: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, own)
    return states
