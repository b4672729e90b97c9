"""Random boxes of a given range of areas and shapes, one per sample.

Knows nothing of what is done with them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill.training.views.base import Images
from distill.training.views.hashing import below

ATTEMPTS = 10
DRAWS_PER_BOX = 2 * ATTEMPTS + 2


class Boxes(NamedTuple):
    """One box per sample, in whole pixels, [B] each."""

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    height: NDArray[np.int64]
    width: NDArray[np.int64]

    def fill(self, images: Images, content: Images) -> Images:
        """Return images, [B, H, W, C], that show the content inside the boxes.

        Args:
            images: what they show outside.
            content: of any shape that broadcasts to theirs.
        """
        _, height, width, channels = images.shape
        rows = _mask(height, self.top, self.height)[:, :, None]
        columns = _mask(width, self.left, self.width).repeat(channels, axis=1)[:, None, :]
        changes = (images ^ content).reshape(len(images), height, width * channels)
        changes &= rows & columns  # on whole bytes, several times the speed of `np.where`
        return images ^ changes.reshape(images.shape)


def draw_boxes(
    draws: NDArray[np.float64],
    image_size: Sequence[int],
    *,
    scale: Sequence[float],
    ratio: Sequence[float],
) -> Boxes:
    """Draw boxes inside an image: area uniform, width over height log-uniform, place uniform.

    Of ten proposals per sample the first that fits into the image is taken; where none does, the
    largest box with a ratio in range and an area of at most the largest asked for.

    Args:
        draws: [22, B] in [0, 1).
        image_size: height and width of the images.
        scale: least and largest area, as shares of the image's.
        ratio: least and largest width over height.
    """
    high, wide = image_size
    areas = high * wide * _between(scale, draws[:ATTEMPTS])
    ratios = np.exp(_between(np.log(ratio).tolist(), draws[ATTEMPTS : 2 * ATTEMPTS]))
    heights, widths = np.rint(np.sqrt(areas / ratios)), np.rint(np.sqrt(areas * ratios))
    fits = (heights >= 1) & (heights <= high) & (widths >= 1) & (widths <= wide)
    first = (fits.argmax(axis=0), np.arange(draws.shape[1]))
    nearest = min(max(wide / high, ratio[0]), ratio[1])
    area = scale[1] * high * wide
    fallback_height = max(1, round(min(high, wide / nearest, np.sqrt(area / nearest))))
    fallback_width = max(1, round(min(wide, high * nearest, np.sqrt(area * nearest))))
    height = np.where(fits[first], heights[first], fallback_height).astype(np.int64)
    width = np.where(fits[first], widths[first], fallback_width).astype(np.int64)
    top = below(high - height + 1, draws[2 * ATTEMPTS])
    return Boxes(top, below(wide - width + 1, draws[2 * ATTEMPTS + 1]), height, width)


def _between(limits: Sequence[float], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    return limits[0] + (limits[1] - limits[0]) * draws


def _mask(size: int, start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Mark a stretch of each line, [B, size]: 255 inside, 0 outside."""
    positions = np.arange(size)
    inside = (positions >= start[:, None]) & (positions < (start + length)[:, None])
    return inside.astype(np.uint8) * np.uint8(255)
