"""Image data in memory: three splits of uint8 arrays, and the module that feeds a trainer.

Knows nothing of where images come from (`sources`) nor of how they are augmented (`views`).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import lightning
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from distill.errors import UserError
from distill.training.views import Mixing, Unchanged, Views


class Rows:
    """Some rows of an array on disk, read when they are asked for.

    Stands for the array of those rows where a copy would not fit in memory: it has a shape and can
    be sliced and indexed along its first axis.

    Args:
        array: [M, H, W, C].
        rows: [N] positions in it.
    """

    def __init__(self, array: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        self._array, self._rows = array, rows
        self.shape, self.ndim = (len(rows), *array.shape[1:]), array.ndim
        self.dtype = array.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        return np.asarray(self._array[self._rows[key]])

    def __reduce__(self) -> Any:
        """Refuse to travel: all of the array would.

        Raises:
            UserError: always.
        """
        raise UserError(
            "Expected images that stay on disk (`data.scratch`) to be read by the process that "
            "uses them but `trainer=ddp` hands them to others. Start the processes with torchrun "
            "(see `conf/trainer/ddp.yaml`), or set `data.scratch=null`."
        )

    def take(self, positions: NDArray[np.int64]) -> "Rows":
        """Select some of the rows, still unread."""
        return Rows(self._array, self._rows[positions])


def chunks(images: Any, size: int = 1024) -> Iterator[NDArray[np.uint8]]:
    """Read images piece by piece, so that they never are in memory all at once."""
    return (images[start : start + size] for start in range(0, len(images), size))


@dataclass(frozen=True, kw_only=True)
class ImageSplit:
    """Images and their labels; the images in memory, or `Rows` of an array on disk."""

    images: Any  # [N, H, W, C] uint8
    labels: NDArray[np.int64]  # [N]
    indices: NDArray[np.int64]  # [N], stable numbers within the file or folder they came from
    paths: pa.Array | None = None  # [N], as in that file or below that folder, if it has any

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> "ImageSplit":
        """Select some samples; each keeps its index."""
        images = self.images
        if isinstance(images, np.memmap):
            images = Rows(images, np.arange(len(images)))
        return ImageSplit(
            images=images.take(positions) if isinstance(images, Rows) else images[positions],
            labels=self.labels[positions],
            indices=self.indices[positions],
            paths=None if self.paths is None else self.paths.take(pa.array(positions)),
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
        histograms = np.zeros((channels, 256), np.int64)  # exact, and no float copy of the data
        for part in chunks(self.train.images):
            for channel in range(channels):
                pixels = part[..., channel].ravel()
                histograms[channel] += np.bincount(pixels, minlength=256)
        for counts in histograms:
            share = counts / counts.sum()
            mean.append(float(share @ values))
            std.append(float(max(np.sqrt(share @ (values - mean[-1]) ** 2), 1 / 255)))
        return mean, std

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every pixel, label and class name, and of which sample is in which split."""
        return self._hash((self.train, self.validation, self.test))

    @cached_property
    def test_fingerprint(self) -> str:
        """Hash of the test set alone: figures of two runs are comparable where it is the same."""
        return self._hash((self.test,))

    def _hash(self, splits: tuple[ImageSplit, ...]) -> str:
        digest = hashlib.sha256(repr((self.classes, self.image_shape)).encode())
        for split in splits:
            for part in chunks(split.images):
                digest.update(np.ascontiguousarray(part).data)
            for array in (split.labels, split.indices):
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
    """Batches of {"input": uint8 [B, H, W, C], "label", "index": [B], "view": int}.

    Each epoch is one view of the training images, in an order drawn from (seed, epoch): what a
    model sees depends on nothing else, so a resumed run sees what the killed one would have.

    Args:
        data: the splits.
        batch_size: over all ranks together; each takes its share.
        views: what each sample looks like in a view.
        mixing: of each image with a partner; the label becomes class shares, float [B, C].
        num_views: how many views there are, shown in turn; None makes a new one every epoch.
        seed: of the order.
        num_workers: processes that make batches ahead; for images in memory none is quickest.
    """

    def __init__(
        self,
        data: ImageData,
        *,
        batch_size: int,
        views: Views | None = None,
        mixing: Mixing | None = None,
        num_views: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"Expected `batch_size` of at least 1 but got {batch_size}.")
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.num_views, self.num_workers = num_views, num_workers
        self.shown = BatchDataset(data.train, views, mixing, num_classes=len(data.classes))

    def train_dataloader(self) -> DataLoader:
        """Shuffled, augmented, in batches of even size: none too small for batch norm."""
        sampler = ShuffledBatches(
            len(self.data.train),
            self.batch_size,
            self.seed,
            num_views=self.num_views,
            share=self._share,
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
        """Move images and labels; indices stay where stored answers are looked up."""
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
    def _share(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


BatchKey = tuple[int, NDArray[np.int64]]  # (view number, positions)


class BatchDataset(Dataset):
    """Whole batches by key: making a batch at once costs a tenth of making its samples.

    Args:
        split: the samples.
        views: see `ImageDataModule`.
        mixing: see `ImageDataModule`; partners come from the same split.
        num_classes: width of the class shares, for mixing alone.
    """

    def __init__(
        self,
        split: ImageSplit,
        views: Views | None = None,
        mixing: Mixing | None = None,
        *,
        num_classes: int = 0,
    ) -> None:
        self.split, self.views, self.mixing = split, views or Unchanged(), mixing
        self.num_classes = num_classes

    def __getitem__(self, key: BatchKey) -> dict[str, Any]:
        """Make one batch."""
        view, positions = key
        indices = self.split.indices[positions]
        images = self.views(self.split.images[positions], indices, view)
        labels: NDArray[Any] = self.split.labels[positions]
        if self.mixing is not None:
            partners = self.mixing.partners(indices, view, len(self.split))
            others = self.views(self.split.images[partners], self.split.indices[partners], view)
            images, shares = self.mixing.mix(images, others, indices, view)
            one_hot = np.eye(self.num_classes, dtype=np.float32)
            own, other = one_hot[labels], one_hot[self.split.labels[partners]]
            labels = shares[:, None] * own + (1 - shares[:, None]) * other
        return {
            "input": torch.from_numpy(np.ascontiguousarray(images)),
            "label": torch.from_numpy(labels),
            "index": torch.from_numpy(indices),
            "view": view,
        }


class ShuffledBatches(Sampler[BatchKey]):
    """Every sample once an epoch, in an order that depends on (seed, epoch) alone.

    Args:
        num_samples: in the split.
        batch_size: of all ranks together.
        seed: of the order.
        num_views: shown in turn, one an epoch; None for as many as there are epochs.
        share: (rank, number of ranks); each takes its part of every batch.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        *,
        num_views: int | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.num_views, self.share = num_views, share
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, round(self.num_samples / self.batch_size))

    def __iter__(self) -> Iterator[BatchKey]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_samples)
        view = self.epoch % self.num_views if self.num_views else self.epoch
        rank, num_ranks = self.share
        for positions in np.array_split(order, len(self)):
            yield view, positions[rank::num_ranks]


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
