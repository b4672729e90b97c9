"""Labelling: a teacher over every sample and view, block by block, into a soft-label store.

The trainer brings devices, ranks and progress; the store's format is `soft_labels`' business.
"""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import RichProgressBar
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from distill.errors import UserError
from distill.training.data.loading import BatchDataset
from distill.training.data.splits import Split
from distill.training.hardware import TunedProcess, has_bfloat16, interruptible, quiet
from distill.training.soft_label_writer import StoreWriter
from distill.training.soft_labels import SoftLabelStore, replay_error, sample_records
from distill.training.teachers.base import Teacher

log = logging.getLogger(__name__)

MIN_AGREEMENT = 0.99
NUM_REPLAYED = 256
# Root mean square difference of log-probabilities over their spread: float16 storage alone costs
# up to 5e-4, bfloat16 convolutions 1 to 2 %; another teacher or another view differs by far more.
TOLERANCE = {"float32": 5e-3, "bfloat16": 5e-2}


def label(
    teacher: Teacher,
    dataset: BatchDataset,
    writer: StoreWriter,
    trainer: Callable[..., lightning.Trainer],
    *,
    missing: list[tuple[int, int]],
    batch_size: int,
    show_bar: bool = False,
) -> None:
    """Label what a store still lacks, over all ranks of the trainer; `writer.finish` comes after.

    Args:
        teacher: asked in the precision of the writer's recipe.
        dataset: makes the views; its split is in the order of the writer's indices.
        writer: prepared.
        trainer: `lightning.Trainer` with devices and strategy bound.
        missing: the (view, block) to label, the same on all ranks.
        batch_size: images per forward pass.
        show_bar: a progress bar on stderr; else a line for every tenth of the views.
    """
    if not missing:
        return
    bar: list[Any] = [_Bar(console_kwargs={"stderr": True})] if show_bar else []
    predictor = trainer(
        callbacks=[TunedProcess(), *bar],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=show_bar,
        use_distributed_sampler=False,
    )
    module = LabellingModule(teacher, writer, batch_size, log_views=not show_bar)
    blocks = BlockDataModule(dataset, missing, writer)
    with quiet(), interruptible(predictor):
        predictor.predict(module, blocks, return_predictions=False)


class _Bar(RichProgressBar):
    @property
    def predict_description(self) -> str:
        return "Labelling"


class LabellingModule(lightning.LightningModule):
    """Answers blocks of images with a teacher and writes what it says."""

    def __init__(
        self, teacher: Teacher, writer: StoreWriter, batch_size: int, *, log_views: bool
    ) -> None:
        super().__init__()
        self.teacher, self._writer, self._batch_size = teacher, writer, batch_size
        self._log_views = log_views
        self._started, self._num_labelled = time.monotonic(), 0

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> int:
        """Label one block; return its number, for Lightning wants something."""
        bfloat16 = self._writer.recipe.precision == "bfloat16"
        self.teacher.show_view(batch["view"])
        sizes = batch["input"].split(self._batch_size), batch["index"].split(self._batch_size)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            answers = [
                self.teacher(image, index).logits for image, index in zip(*sizes, strict=True)
            ]
        logits = torch.cat(answers).float().cpu().numpy()
        view, block = batch["view"], batch["block"]
        self._writer.write(view, block, logits)
        self._num_labelled += len(logits)
        num_views = self._writer.num_views
        tenth = (view + 1) % max(1, num_views // 10) == 0 and block == self._writer.num_blocks - 1
        if tenth and self._log_views and self.trainer.is_global_zero:
            rate = self._num_labelled / (time.monotonic() - self._started)
            log.info("labelled view %d of %d, %.0f samples/s", view + 1, num_views, rate)
        return block


class BlockDataModule(lightning.LightningDataModule):
    """The blocks that a store lacks, shared out over the ranks."""

    def __init__(
        self, dataset: BatchDataset, missing: list[tuple[int, int]], writer: StoreWriter
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more ranks than blocks
        self._dataset, self._missing, self._writer = dataset, missing, writer

    def predict_dataloader(self) -> DataLoader:
        """This rank's share."""
        rank, num_ranks = 0, 1
        if self.trainer is not None:
            rank, num_ranks = self.trainer.global_rank, self.trainer.world_size
        keys = [
            (view, self._writer.rows(block), block)
            for view, block in self._missing[rank::num_ranks]
        ]
        return DataLoader(_Blocks(self._dataset), sampler=_Listed(keys), batch_size=None)


BlockKey = tuple[int, NDArray[np.int64], int]


class _Blocks(torch.utils.data.Dataset):
    def __init__(self, dataset: BatchDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: BlockKey) -> dict[str, Any]:
        view, rows, block = key
        return self.dataset[view, rows] | {"block": block}


class _Listed(Sampler[BlockKey]):
    def __init__(self, keys: list[BlockKey]) -> None:
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[BlockKey]:
        return iter(self.keys)


def choose_precision(teacher: Teacher, dataset: BatchDataset, num_samples: int = 1024) -> str:
    """Choose bfloat16 where this processor has it and the teacher answers the same in it.

    Returns:
        `bfloat16` if the most likely class agrees on 99 % of a view of the first samples.
    """
    if not (teacher.computes_in_torch and has_bfloat16("cpu")):
        return "float32"
    rows = np.arange(min(num_samples, len(dataset.split)))
    exact = answer(teacher, dataset, 0, rows)
    with torch.autocast("cpu", torch.bfloat16):
        quick = answer(teacher, dataset, 0, rows)
    agreement = float(np.mean(exact.argmax(axis=1) == quick.argmax(axis=1)))
    chosen = "bfloat16" if agreement >= MIN_AGREEMENT else "float32"
    log.info(
        "the teacher computes in %s: in bfloat16 it answers as in float32 on %.2f %% of %d images",
        chosen,
        100 * agreement,
        len(rows),
    )
    return chosen


def answer(
    teacher: Teacher, dataset: BatchDataset, view: int, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Ask a teacher about some rows in a view, [rows, C] float32."""
    answers = []
    teacher.show_view(view)
    for start in range(0, len(rows), 128):
        batch = dataset[view, rows[start : start + 128]]
        answers.append(teacher(batch["input"], batch["index"]).logits.float().cpu())
    return torch.cat(answers).numpy()


def ask_test(teacher: Teacher, split: Split) -> NDArray[np.float32] | None:
    """Ask a teacher about the test set as it is; None where it has no answers for it."""
    asked = teacher.on_test()
    return None if asked is None else answer(asked, BatchDataset(split), 0, np.arange(len(split)))


def check_replay(
    store: SoftLabelStore, teacher: Teacher, dataset: BatchDataset, *, of_classes: bool = True
) -> float:
    """Recompute 256 random records through the live teacher and hold the store against them.

    Args:
        store: opened.
        teacher: it is of.
        dataset: the samples in their views.
        of_classes: whether log-probabilities are compared, not the answers themselves.

    Returns:
        The root mean square difference over the spread of what is compared.

    Raises:
        UserError: they differ by more than storage and precision explain.
    """
    drawn = list(sample_records(len(store.indices), store.num_views, NUM_REPLAYED))
    stored = [store.logits(view, store.indices[rows]) for view, rows in drawn]
    fresh = [answer(teacher, dataset, view, rows) for view, rows in drawn]
    error = replay_error(stored, fresh, of_classes=of_classes)
    limit = TOLERANCE[store.precision]
    if not error <= limit:
        raise UserError(
            f"Expected {NUM_REPLAYED} records of the soft-label store {store.folder} to be what "
            f"the teacher says now, within {limit:.3g} of their spread, but they differ by "
            f"{error:.3g}. The teacher or the views have changed in a way that no fingerprint "
            "sees. Delete the folder and run `soft_labels` again."
        )
    return error
