"""Images as data: their shape, the statistics of their channels, their labels checked.

Knows nothing of where images come from (`sources`) nor of how they are augmented (`views`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.training.data.splits import Data, chunks


@dataclass(frozen=True, kw_only=True)
class ImageData(Data):
    """Images, uint8 [N, H, W, C], of one class each."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.train.inputs.shape[1:]
        return height, width, channels

    @cached_property
    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the training images per channel, in units of 0..1."""
        channels = self.train.inputs.shape[3]
        values = np.arange(256) / 255
        mean, std = [], []
        histograms = np.zeros((channels, 256), np.int64)  # exact, and no float copy of the data
        for part in chunks(self.train.inputs):
            for channel in range(channels):
                pixels = part[..., channel].ravel()
                histograms[channel] += np.bincount(pixels, minlength=256)
        for counts in histograms:
            share = counts / counts.sum()
            mean.append(float(share @ values))
            std.append(float(max(np.sqrt(share @ (values - mean[-1]) ** 2), 1 / 255)))
        return mean, std


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
