"""A measuring process of `tables_memory`: what a large table takes, and how fast an epoch is.

python tables_memory_worker.py memory|pace TABLE WORK ROUNDS

Prints one JSON line. `memory` loads the table, fits the encoder and trains one epoch, once;
`pace` trains epochs by the product and by a plain loop over the same encoded rows, in turn.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lightning
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from tables_rows import LABEL
from tables_training import Settings, network, on_labels

from distill.deployment.device.machine import peak_rss_bytes
from distill.training.data.splits import Data
from distill.training.data.tables import table
from distill.training.hardware import tune_allocator

SETTINGS = Settings(max_epochs=1, batch_size=1024, lr=0.001, dropout=0.0)


Seconds = tuple[float, float]  # on the wall, and of this process's own


def now() -> Seconds:
    """Read both clocks; beside other programs only the second tells what a loop costs."""
    return time.perf_counter(), time.process_time()


def since(start: Seconds) -> Seconds:
    """Say what has passed on both."""
    wall, own = now()
    return wall - start[0], own - start[1]


class Clock(lightning.Callback):
    """Seconds of the training steps of the last epoch, validation left out."""

    def __init__(self) -> None:
        self.seconds = self._start = (0.0, 0.0)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: object) -> None:
        """Start."""
        self._start = now()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: object) -> None:
        """Stop."""
        self.seconds = since(self._start)


def main() -> None:
    """Do what the command line asks for."""
    what, path, work, rounds = sys.argv[1:]
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    measure = {"memory": memory, "pace": pace}[what]
    print(json.dumps(measure(Path(path), Path(work), int(rounds))))


def memory(path: Path, work: Path, rounds: int) -> dict:
    """Say what each step took, and the most memory the process held up to its end."""
    steps, found = {"imports": lambda: None}, {}
    holder: dict = {}
    steps["load, split, encode"] = lambda: holder.update(data=load(path))
    steps["one epoch"] = lambda: holder.update(seconds=epoch(holder["data"], work / "memory"))
    for name, step in steps.items():
        start = now()
        step()
        wall, own = since(start)
        found[name] = {"seconds": wall, "cpu_seconds": own, "peak_rss_bytes": peak_rss_bytes()}
    data = holder["data"]
    return {
        "steps": found,
        "num_train": len(data.train),
        "num_features": data.encoder.layout.num_features,
        "num_columns": len(data.encoder.takes),
    }


def pace(path: Path, work: Path, rounds: int) -> dict:
    """Time epochs in turn, after one of each to warm up; rows a second by either clock."""
    tune_allocator()  # as the product does for itself
    data = load(path)
    contenders: dict[str, Callable[[int], Seconds]] = {
        "product": lambda number: epoch(data, work / f"pace_{number}"),
        "plain loop": lambda number: plain_epoch(data, number),
    }
    rates: dict[str, list[Seconds]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name in sorted(contenders, reverse=bool(number % 2)):
            wall, own = contenders[name](number)
            if number:
                rates[name].append((len(data.train) / wall, len(data.train) / own))
    return {"rates": rates, "threads": torch.get_num_threads()}


def load(path: Path) -> Data:
    """Load the table by the product."""
    return table(path=str(path), label=LABEL, test_fraction=0.1, validation_fraction=0.1)


def epoch(data: Data, folder: Path) -> Seconds:
    """Train one epoch by the product; return the seconds of its steps."""
    clock = Clock()
    on_labels(data, SETTINGS, folder, 0, callbacks=[clock])
    return clock.seconds


def plain_epoch(data: Data, seed: int) -> Seconds:
    """Train one epoch of the same network by the shortest loop there is."""
    model = network(data, SETTINGS, 0).train()
    inputs = torch.from_numpy(data.train.inputs)
    labels = torch.from_numpy(data.train.labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=SETTINGS.lr)
    start = now()
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    for rows in order.tensor_split(round(len(inputs) / SETTINGS.batch_size)):
        loss = F.cross_entropy(model(inputs[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return since(start)


if __name__ == "__main__":
    main()
