"""Image data in memory: three splits of uint8 arrays, and the module that feeds a trainer.

Knows nothing of where images come from (`sources`) nor of how they are augmented (`views`).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from distill.errors import UserError
from distill.training.views import Unchanged, Views


@dataclass(frozen=True, kw_only=True)
class ImageSplit:
    """Images and their labels."""

    images: NDArray[np.uint8]  # [N, H, W, C]
    labels: NDArray[np.int64]  # [N]
    indices: NDArray[np.int64]  # [N], stable numbers within the file or folder they came from

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> "ImageSplit":
        """Select some samples; each keeps its index."""
        return ImageSplit(
            images=self.images[positions],
            labels=self.labels[positions],
            indices=self.indices[positions],
        )


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A data set: train to learn, validation to choose, test to report."""

    name: str
    classes: tuple[str, ...]
    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    num_skipped: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @cached_property
    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the training images per channel, in units of 0..1."""
        channels = self.train.images.shape[3]
        values = np.arange(256) / 255
        mean, std = [], []
        for channel in range(channels):  # by histogram: exact, and no float copy of the data
            counts = np.bincount(self.train.images[..., channel].ravel(), minlength=256)
            share = counts / counts.sum()
            mean.append(float(share @ values))
            std.append(float(max(np.sqrt(share @ (values - mean[-1]) ** 2), 1 / 255)))
        return mean, std

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every pixel, label and class name, and of which sample is in which split."""
        digest = hashlib.sha256(repr((self.classes, self.image_shape)).encode())
        for split in (self.train, self.validation, self.test):
            for array in (split.images, split.labels, split.indices):
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def split_stratified(
    labels: NDArray[np.int64], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw `fraction` of every class at random; return (the rest, the drawn) as sorted positions.

    Raises:
        UserError: the fraction is not between 0 and 1, or leaves a side empty.
    """
    if not 0 < fraction < 1:
        raise UserError(f"Expected a fraction between 0 and 1 to split off but got {fraction}.")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # classes together, random within
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    drawn_counts = np.round(np.repeat(counts, counts) * fraction)
    drawn = rank < drawn_counts
    if drawn.all() or not drawn.any():
        raise UserError(
            f"Expected enough samples to split {fraction:.0%} of them off but found {len(labels)}."
        )
    return np.sort(order[~drawn]), np.sort(order[drawn])


def check_labels(labels: NDArray[np.int64], classes: tuple[str, ...], where: str) -> None:
    """Refuse labels outside the classes.

    Raises:
        UserError: names the first such label.
    """
    outside = (labels < 0) | (labels >= len(classes))
    if outside.any():
        position = int(np.flatnonzero(outside)[0])
        raise UserError(
            f"Expected labels from 0 to {len(classes) - 1} (the {len(classes)} classes) in {where} "
            f"but row {position} has {labels[position]}. Mend the labels, or name all classes in "
            "`data.classes`."
        )


class ImageDataModule(lightning.LightningDataModule):
    """Batches of {"input": uint8 [B, H, W, C], "label": [B], "index": [B]}.

    Each epoch is one view of the training images, in an order drawn from (seed, epoch): what a
    model sees depends on nothing else, so a resumed run sees what the killed one would have.
    """

    def __init__(
        self, data: ImageData, *, batch_size: int, views: Views | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"Expected `batch_size` of at least 1 but got {batch_size}.")
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.views: Views = views or Unchanged()

    def train_dataloader(self) -> DataLoader:
        """Shuffled, augmented; a last batch too small for batch norm joins the one before it."""
        split = self.data.train
        sampler = ShuffledBatches(len(split), self.batch_size, self.seed)
        return DataLoader(BatchDataset(split, self.views), sampler=sampler, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """In order, as they are."""
        split = self.data.validation
        sampler = OrderedBatches(len(split), self.batch_size)
        return DataLoader(BatchDataset(split, Unchanged()), sampler=sampler, batch_size=None)


BatchKey = tuple[int, NDArray[np.int64]]  # (view number, positions)


class BatchDataset(Dataset):
    """Whole batches by key: making a batch at once costs a tenth of making its samples."""

    def __init__(self, split: ImageSplit, views: Views) -> None:
        self.split, self.views = split, views

    def __getitem__(self, key: BatchKey) -> dict[str, torch.Tensor]:
        """Make one batch."""
        view, positions = key
        indices = self.split.indices[positions]
        images = self.views(self.split.images[positions], indices, view)
        return {
            "input": torch.from_numpy(np.ascontiguousarray(images)),
            "label": torch.from_numpy(self.split.labels[positions]),
            "index": torch.from_numpy(indices),
        }


class ShuffledBatches(Sampler[BatchKey]):
    """Every sample once an epoch, in an order that depends on (seed, epoch) alone."""

    def __init__(self, num_samples: int, batch_size: int, seed: int) -> None:
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, round(self.num_samples / self.batch_size))

    def __iter__(self) -> Iterator[BatchKey]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_samples)
        for positions in np.array_split(order, len(self)):
            yield self.epoch, positions


class OrderedBatches(Sampler[BatchKey]):
    """Every sample once, in order, as view 0."""

    def __init__(self, num_samples: int, batch_size: int) -> None:
        self.num_samples, self.batch_size = num_samples, batch_size

    def __len__(self) -> int:
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[BatchKey]:
        for start in range(0, self.num_samples, self.batch_size):
            yield 0, np.arange(start, min(start + self.batch_size, self.num_samples))
