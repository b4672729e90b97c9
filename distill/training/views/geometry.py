"""Views that move pixels: shift and mirror, crop and resize.

Whole batches at once: rows of pixels are copied as single items, which NumPy does at the speed of
memory. All arithmetic on pixels is in whole numbers, the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.training.views.base import Images, check_range
from distill.training.views.boxes import DRAWS_PER_BOX, Boxes, draw_boxes
from distill.training.views.hashing import random_bits, uniforms

BLOCK_PIXELS = 2**15  # resized at a time, so that what is in between stays in the cache


@dataclass(frozen=True, kw_only=True)
class ShiftFlip:
    """Shift each image by up to `padding` pixels over a zero border and mirror half of them.

    With padding 4 the standard augmentation for CIFAR (He et al., "Deep Residual Learning for
    Image Recognition", 2016).

    Attributes:
        padding: largest shift in pixels, in each direction.
        flip: whether to mirror left to right with probability one half.
        seed: two runs with the same seed see the same views.

    Raises:
        UserError: the padding is negative.
    """

    STREAM: ClassVar[int] = 0

    padding: int
    flip: bool
    seed: int = 0

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise UserError(f"Expected `padding` of 0 or more pixels but got {self.padding}.")

    def __call__(self, images: Images, indices: NDArray[np.int64], view: int) -> Images:
        """Make the view of each image, [B, H, W, C] uint8 to the same."""
        span = 2 * self.padding + 1
        bits = random_bits(self.seed, indices, view, self.STREAM)
        dy = (bits & 0xFFFFFF) * span >> 24  # 24 random bits scaled to [0, span)
        dx = (bits >> 24 & 0xFFFFFF) * span >> 24
        shifted = _shift(images, dy.astype(np.int64), dx.astype(np.int64), self.padding)
        if self.flip:
            _mirror(shifted, (bits >> 48 & 1).astype(bool))
        return shifted


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """Cut out a box of random size and shape, resize it to `size`, and mirror half of them.

    The standard augmentation for ImageNet (Szegedy et al., "Going Deeper with Convolutions",
    2015). Bilinear with pixel centres at one half, weights in steps of 1/256, no antialiasing: an
    image much larger than `size` should be shrunk once, beforehand.

    Attributes:
        size: height and width of the view; one number for a square, None for the image's own.
        scale: least and largest area of the box, as shares of the image's.
        ratio: least and largest width over height of the box.
        flip: whether to mirror left to right with probability one half.
        seed: two runs with the same seed see the same views.

    Raises:
        UserError: a range is reversed or not positive, or the size is not.
    """

    STREAM: ClassVar[int] = 64

    size: int | Sequence[int] | None = None
    scale: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    flip: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("scale", self.scale, highest=1)
        check_range("ratio", self.ratio)
        if self._size is not None and (
            len(self._size) != 2 or not all(isinstance(n, int) and n >= 1 for n in self._size)
        ):
            raise UserError(
                f"Expected `size` to be one or two whole numbers, at least 1, but got {self.size}."
            )

    def __call__(self, images: Images, indices: NDArray[np.int64], view: int) -> Images:
        """Make the view of each image, [B, H, W, C] uint8 to [B, H', W', C] uint8."""
        _, height, width, _ = images.shape
        draws = uniforms(self.seed, indices, view, stream=self.STREAM, count=DRAWS_PER_BOX + 1)
        boxes = draw_boxes(draws, (height, width), scale=self.scale, ratio=self.ratio)
        mirrored = draws[-1] < 0.5 if self.flip else np.zeros(len(images), bool)
        return resize_boxes(images, boxes, self._size or (height, width), mirrored=mirrored)

    @property
    def _size(self) -> Sequence[int] | None:
        if self.size is None or isinstance(self.size, Sequence):
            return self.size
        return self.size, self.size


def resize_boxes(
    images: Images, boxes: Boxes, size: Sequence[int], *, mirrored: NDArray[np.bool_]
) -> Images:
    """Resize one box of each image bilinearly, [B, H, W, C] to [B, *size, C]."""
    out = np.empty((len(images), *size, images.shape[3]), np.uint8)
    down = _sample(boxes.top, boxes.height, size[0])
    across = _sample(boxes.left, boxes.width, size[1])
    across = Points(*(np.where(mirrored[:, None], line[:, ::-1], line) for line in across))
    step = max(1, BLOCK_PIXELS // (size[0] * max(size[1], images.shape[2])))
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        rows = _blend(images[part].astype(np.uint16), down.take(part))  # 16 bits, [b, H', W, C]
        columns = _blend(_turned(rows).astype(np.uint32), across.take(part))  # 24 bits
        columns += 1 << 15
        columns >>= 16
        out[part] = _turned(columns.astype(np.uint8))
    return out


class Points(NamedTuple):
    """Places along one axis, between two pixels each, [B, N]."""

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    weight: NDArray[np.int64]  # of the pixel after, in 1/256

    def take(self, part: slice) -> "Points":
        """Select those of some images."""
        return Points(self.before[part], self.after[part], self.weight[part])


def _sample(start: NDArray[np.int64], length: NDArray[np.int64], count: int) -> Points:
    """Place `count` points evenly in each stretch of whole pixels."""
    centres = 2 * np.arange(count) + 1
    points = (centres * (256 * length[:, None]) + count) // (2 * count) - 128  # in 1/256 pixel
    last = length[:, None] - 1
    points = np.clip(points, 0, 256 * last)
    before = points >> 8
    after = np.minimum(before + 1, last)
    return Points(start[:, None] + before, start[:, None] + after, points & 255)


def _blend(lines: NDArray[Any], points: Points) -> NDArray[Any]:
    """Blend two lines for each line to be, [B, N, M, C] to [B, N', M, C] in 1/256 level."""
    batch, count, *shape = lines.shape
    flat = lines.reshape(batch * count, -1)
    first = count * np.arange(batch)[:, None]
    weight = points.weight.astype(lines.dtype)[:, :, None]
    blended = flat.take(first + points.before, axis=0)
    blended *= 256 - weight
    after = flat.take(first + points.after, axis=0)
    after *= weight
    blended += after
    return blended.reshape(batch, -1, *shape)


def _turned(images: NDArray[Any]) -> NDArray[Any]:
    """Make rows of columns, [B, H, W, C] to [B, W, H, C]."""
    batch, height, width, channels = images.shape
    turned = np.empty((batch, width, height, channels), images.dtype)
    for channel in range(channels):  # NumPy copies numbers faster than pixels
        turned[..., channel] = images[..., channel].transpose(0, 2, 1)
    return turned


def _shift(images: Images, dy: NDArray[np.int64], dx: NDArray[np.int64], padding: int) -> Images:
    """Cut each image out of a zero border, `dy` rows and `dx` columns from its corner."""
    batch, height, width, channels = images.shape
    high, wide = height + 2 * padding, width + 2 * padding
    padded = np.zeros((batch, high, wide, channels), np.uint8)
    padded[:, padding : padding + height, padding : padding + width] = images
    row = width * channels  # bytes, copied as one item from wherever a pixel starts
    starts = np.ndarray(
        ((padded.size - row) // channels + 1,), f"V{row}", buffer=padded, strides=(channels,)
    )
    first = (np.arange(batch) * high + dy) * wide + dx
    cut = starts[first[:, None] + wide * np.arange(height)]
    return cut.view(np.uint8).reshape(images.shape)


def _mirror(images: Images, mirrored: NDArray[np.bool_]) -> None:
    """Mirror some of the images in place, left to right."""
    chosen = images[mirrored]
    turned = np.empty_like(chosen)
    for channel in range(images.shape[3]):  # four times the speed of whole pixels
        turned[..., channel] = chosen[:, :, ::-1, channel]
    images[mirrored] = turned
