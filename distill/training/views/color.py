"""Views that change colours: brightness, contrast, saturation and hue.

The `adjust_*` functions work on planes, float32 [C, B, H, W] in whole levels 0 to 255, and give
the same; sums are of whole numbers and so the same in any order, on any machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.training.views.base import Images
from distill.training.views.hashing import uniforms

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, of red, green and blue
BLOCK_PIXELS = 2**15  # changed at a time, so that they stay in the cache

Planes = NDArray[np.float32]
Factors = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue of each image, in this order.

    With strength s a factor is drawn uniformly from [1 - s, 1 + s], from 0 on; the hue is turned by
    [-s, s] of a full circle. Grey images have neither saturation nor hue to change.

    Attributes:
        brightness: strength, 0 for none.
        contrast: strength, 0 for none.
        saturation: strength, 0 for none.
        hue: strength, 0 for none, at most 0.5; costs more time than the others together.
        seed: two runs with the same seed see the same views.

    Raises:
        UserError: a strength is outside its limits.
    """

    STREAM: ClassVar[int] = 192

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UserError(f"Expected `{name}` of 0 or more but got {getattr(self, name)}.")
        if not 0 <= self.hue <= 0.5:
            raise UserError(f"Expected `hue` from 0 to 0.5 but got {self.hue}.")

    def __call__(self, images: Images, indices: NDArray[np.int64], view: int) -> Images:
        """Make the view of each image, [B, H, W, C] uint8 to the same.

        Raises:
            UserError: the images have neither one channel nor three.
        """
        _, height, width, channels = images.shape
        if channels not in (1, 3):
            raise UserError(
                f"Expected images with 1 or 3 channels for ColorJitter but got {channels}."
            )
        changes = self._changes(indices, view, grey=channels == 1)
        out = np.empty_like(images)
        step = max(1, BLOCK_PIXELS // (height * width))
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            planes = np.moveaxis(images[part], 3, 0).astype(np.float32, order="C")
            for adjust, factors in changes:
                planes = adjust(planes, factors[part])
            for channel in range(channels):
                out[part, :, :, channel] = planes[channel]
        return out

    def _changes(
        self, indices: NDArray[np.int64], view: int, *, grey: bool
    ) -> list[tuple[Callable[[Planes, Factors], Planes], Factors]]:
        draws = uniforms(self.seed, indices, view, stream=self.STREAM, count=4)
        changes = []
        if self.brightness:
            changes.append((adjust_brightness, _factors(self.brightness, draws[0])))
        if self.contrast:
            changes.append((adjust_contrast, _factors(self.contrast, draws[1])))
        if self.saturation and not grey:
            changes.append((adjust_saturation, _factors(self.saturation, draws[2])))
        if self.hue and not grey:
            turns = self.hue * (2 * draws[3] - 1)
            changes.append((adjust_hue, turns.astype(np.float32)))
        return changes


def adjust_brightness(planes: Planes, factors: Factors) -> Planes:
    """Multiply each image by its factor, [B]: 0 is black."""
    return _whole(planes * factors[:, None, None])


def adjust_contrast(planes: Planes, factors: Factors) -> Planes:
    """Blend each image with its mean grey: 0 is all grey, 1 changes nothing."""
    sums = planes.sum(axis=3).sum(axis=2, dtype=np.float64)  # exact: whole numbers below 2**24
    means = sums / (planes.shape[2] * planes.shape[3])  # [C, B]
    grey = means[0] if len(planes) == 1 else _luma(means)
    offsets = ((1 - factors) * grey).astype(np.float32)
    changed = planes * factors[:, None, None]
    changed += offsets[:, None, None]
    return _whole(changed)


def adjust_saturation(planes: Planes, factors: Factors) -> Planes:
    """Blend each image with itself in grey: 0 is grey, 1 changes nothing."""
    changed = planes * factors[:, None, None]
    changed += _luma(planes) * (1 - factors)[:, None, None]
    return _whole(changed)


def adjust_hue(planes: Planes, factors: Factors) -> Planes:
    """Turn the hue of each image by its factor, in full circles of the HSV model."""
    red, green, blue = planes
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    safe = np.maximum(chroma, 1)  # levels are whole, so only 0 is changed
    hue = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )  # in sixths of the circle, from -1 to 5
    hue += 6 * factors[:, None, None]
    turned = np.empty_like(planes)
    for plane, offset in zip(turned, (5, 3, 1), strict=True):
        angle = hue + np.float32(offset)
        angle -= 6 * np.floor(angle / 6)
        np.minimum(angle, 4 - angle, out=angle)
        np.subtract(value, chroma * np.clip(angle, 0, 1), out=plane)
    return _whole(turned)


def _factors(strength: float, draws: NDArray[np.float64]) -> Factors:
    least, most = max(0.0, 1 - strength), 1 + strength
    return (least + (most - least) * draws).astype(np.float32)


def _luma(planes: NDArray) -> NDArray:
    return LUMA[0] * planes[0] + LUMA[1] * planes[1] + LUMA[2] * planes[2]


def _whole(planes: Planes) -> Planes:
    np.rint(planes, out=planes)
    return np.clip(planes, 0, 255, out=planes)
