"""Replayable augmentation: a view is a pure function of (seed, sample index, view number).

Works on whole batches of uint8 images in NumPy. Holds no random state, so the same view can be
made again years later, in another order, on another machine.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]


class Views(Protocol):
    """What a batch of images looks like the `view`-th time it is shown."""

    def __call__(self, images: Images, indices: NDArray[np.int64], view: int) -> Images:
        """Make the view of each image, [B, H, W, C] uint8 to the same."""
        ...


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """Show every image as it is."""

    def __call__(self, images: Images, indices: NDArray[np.int64], view: int) -> Images:
        """Return the images themselves."""
        return images


@dataclass(frozen=True, kw_only=True)
class ShiftFlip:
    """Shift each image by up to `padding` pixels over a zero border and mirror half of them.

    With padding 4 the standard augmentation for CIFAR (He et al., "Deep Residual Learning for
    Image Recognition", 2016).

    Attributes:
        padding: largest shift in pixels, in each direction.
        flip: whether to mirror left to right with probability one half.
        seed: two runs with the same seed see the same views.
    """

    padding: int
    flip: bool
    seed: int = 0

    def __call__(self, images: Images, indices: NDArray[np.int64], view: int) -> Images:
        """Make the view of each image, [B, H, W, C] uint8 to the same."""
        batch, height, width, channels = images.shape
        pad, span = self.padding, 2 * self.padding + 1
        bits = random_bits(self.seed, indices, view)
        dy = (bits & 0xFFFFFF) * span >> 24  # 24 random bits scaled to [0, span)
        dx = (bits >> 24 & 0xFFFFFF) * span >> 24
        mirrored = (bits >> 48 & 1).astype(bool) if self.flip else np.zeros(batch, bool)
        padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        rows = np.arange(height) + dy.astype(np.int64)[:, None]  # [B, H]
        columns = np.where(mirrored[:, None], np.arange(width)[::-1], np.arange(width))
        columns = columns + dx.astype(np.int64)[:, None]  # [B, W]
        stride = width + 2 * pad
        pixels = rows[:, :, None] * stride + columns[:, None, :]  # [B, H, W]
        pixels += (np.arange(batch) * stride * (height + 2 * pad))[:, None, None]
        return padded.reshape(-1, channels)[pixels]


def random_bits(seed: int, indices: NDArray[np.int64], view: int) -> NDArray[np.uint64]:
    """Hash (seed, index, view) to 64 well-mixed bits per sample, [B].

    Two rounds of the SplitMix64 finalizer (Steele et al., "Fast Splittable Pseudorandom Number
    Generators", 2014), a counter-based generator: no state, any order.
    """
    key = _mix(np.uint64((seed * 0x9E3779B97F4A7C15 + view * 0xD1B54A32D192ED03) % 2**64))
    return _mix(key + indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _mix(z: np.uint64 | NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = np.atleast_1d(z)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
