"""Batches for a trainer: whole ones at once, in an order that a resumed run repeats.

Knows nothing of where samples come from, nor of how they are augmented (`views`).
"""

from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from distill.errors import UserError
from distill.training.data.splits import Data, Split
from distill.training.views import Mixing, Unchanged, Views, bound


class BatchDataModule(lightning.LightningDataModule):
    """Batches of {"input": see `Split.inputs`, "label", "index": [B], "view": int}.

    Each epoch is one view of the training samples, in an order drawn from (seed, epoch): what a
    model sees depends on nothing else, so a resumed run sees what the killed one would have.

    Args:
        data: the splits.
        batch_size: over all ranks together; each takes its share.
        views: what each sample looks like in a view.
        mixing: of each sample with a partner; numbers and several labels are mixed as they are
            learnt, float [B, D], and a class becomes class shares, float [B, C].
        num_views: how many views there are, shown in turn; None makes a new one every epoch.
        seed: of the order.
        num_workers: processes that make batches ahead; for images in memory none is quickest.
        taught: what is shown in place of `data.train`, with whatever labels a teacher gave.
    """

    def __init__(
        self,
        data: Data,
        *,
        batch_size: int,
        views: Views | None = None,
        mixing: Mixing | None = None,
        num_views: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        taught: Split | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"Expected `batch_size` of at least 1 but got {batch_size}.")
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.num_views, self.num_workers = num_views, num_workers
        shown = data.train if taught is None else taught
        self.shown = BatchDataset(shown, views, mixing, num_classes=len(data.classes))

    def train_dataloader(self) -> DataLoader:
        """Shuffled, augmented, in batches of even size: none too small for batch norm."""
        sampler = ShuffledBatches(
            len(self.shown.split),
            self.batch_size,
            self.seed,
            num_views=self.num_views,
            share=self._share,
            weights=self._weights,
        )
        return self._loader(self.shown, sampler)

    def val_dataloader(self) -> DataLoader:
        """In order, as they are."""
        split = self.data.validation
        sampler = OrderedBatches(len(split), self.batch_size, share=self._share)
        return self._loader(BatchDataset(split), sampler)

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Move samples and labels; indices stay where stored answers are looked up."""
        moved = {k: batch[k].to(device, non_blocking=True) for k in ("input", "label")}
        return batch | moved

    def _loader(self, dataset: "BatchDataset", sampler: Sampler) -> DataLoader:
        workers = self.num_workers
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    @property
    def _weights(self) -> NDArray[np.float64] | None:
        weights = self.data.weights
        if weights is None:
            return None
        count = len(self.shown.split)
        return np.concatenate([weights, np.ones(max(count - len(weights), 0))])[:count]

    @property
    def _share(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


BatchKey = tuple[int, NDArray[np.int64]]  # (view number, positions)


class BatchDataset(Dataset):
    """Whole batches by key: making a batch at once costs a tenth of making its samples.

    Args:
        split: the samples.
        views: see `BatchDataModule`.
        mixing: see `BatchDataModule`; partners come from the same split.
        num_classes: width of the class shares, for mixing alone.

    Raises:
        UsageError: views or mixing are not for such samples.
    """

    def __init__(
        self,
        split: Split,
        views: Views | None = None,
        mixing: Mixing | None = None,
        *,
        num_classes: int = 0,
    ) -> None:
        self.split, self.num_classes = split, num_classes
        self.views: Views = bound(views or Unchanged(), split.layout)
        self.mixing: Mixing | None = None if mixing is None else bound(mixing, split.layout)

    def __getitem__(self, key: BatchKey) -> dict[str, Any]:
        """Make one batch."""
        view, positions = key
        indices = self.split.indices[positions]
        inputs = self.views(self.split.inputs[positions], indices, view)
        labels: NDArray[Any] = self.split.learnt[positions]
        if self.mixing is not None:
            partners = self.mixing.partners(indices, view, len(self.split))
            others = self.views(self.split.inputs[partners], self.split.indices[partners], view)
            inputs, shares = self.mixing.mix(inputs, others, indices, view)
            own, other = self._in_shares(labels), self._in_shares(self.split.learnt[partners])
            labels = shares[:, None] * own + (1 - shares[:, None]) * other
        return {
            "input": torch.from_numpy(np.ascontiguousarray(inputs)),
            "label": torch.from_numpy(labels),
            "index": torch.from_numpy(indices),
            "view": view,
        }

    def _in_shares(self, labels: NDArray[Any]) -> NDArray[np.float32]:
        """Write classes, [B], as shares of all of them, [B, C]; numbers and labels stay, [B, D]."""
        return labels if labels.ndim == 2 else np.eye(self.num_classes, dtype=np.float32)[labels]


class ShuffledBatches(Sampler[BatchKey]):
    """Every sample once an epoch, or by weight, in an order of (seed, epoch) alone.

    Args:
        num_samples: in the split.
        batch_size: of all ranks together.
        seed: of the order.
        num_views: shown in turn, one an epoch; None for as many as there are epochs.
        share: (rank, number of ranks); each takes its part of every batch.
        weights: how often each sample is shown in the mean, [N] of mean 1: whole times, and once
            more by chance; None shows each once.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        *,
        num_views: int | None = None,
        share: tuple[int, int] = (0, 1),
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.num_views, self.share, self.weights = num_views, share, weights
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, round(self.num_samples / self.batch_size))

    def __iter__(self) -> Iterator[BatchKey]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self.num_samples if self.weights is None else self._drawn(rng))
        view = self.epoch % self.num_views if self.num_views else self.epoch
        rank, num_ranks = self.share
        for positions in np.array_split(order, len(self)):
            yield view, positions[rank::num_ranks]

    def _drawn(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw as many positions as there are samples, each as often as its weight says."""
        assert self.weights is not None
        ends = np.cumsum(self.weights)
        steps = (np.arange(self.num_samples) + rng.random()) * (ends[-1] / self.num_samples)
        return np.minimum(np.searchsorted(ends, steps, side="right"), self.num_samples - 1)


class OrderedBatches(Sampler[BatchKey]):
    """Every sample once, in order, as view 0; each rank takes its part of every batch."""

    def __init__(
        self, num_samples: int, batch_size: int, *, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.num_samples, self.batch_size, self.share = num_samples, batch_size, share

    def __len__(self) -> int:
        return max(1, round(self.num_samples / self.batch_size))

    def __iter__(self) -> Iterator[BatchKey]:
        rank, num_ranks = self.share
        for positions in np.array_split(np.arange(self.num_samples), len(self)):
            yield 0, positions[rank::num_ranks]
