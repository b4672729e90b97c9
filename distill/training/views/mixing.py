"""Mixing of two images and, by the same share, of their labels.

A sample's partner is drawn from the whole training set by hash, not from its batch: the mixed
image is a pure function of (seed, sample index, view number) too. Knows nothing of labels; rows of
a table are the business of `rows`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from distill.errors import UserError
from distill.training.views.base import Images, Samples, check_probability
from distill.training.views.boxes import Boxes
from distill.training.views.hashing import below, uniforms

Shares = NDArray[np.float32]


class Mixing(Protocol):
    """Mixes each sample with a partner: a pure function of (sample index, view), too."""

    def partners(
        self, indices: NDArray[np.int64], view: int, num_samples: int
    ) -> NDArray[np.int64]:
        """Draw each sample's partner, [B] positions among all training samples."""
        ...

    def mix(
        self, samples: Samples, partners: Samples, indices: NDArray[np.int64], view: int, /
    ) -> tuple[Samples, Shares]:
        """Return the mixed samples and the share of each one's own label, [B]."""
        ...


@dataclass(frozen=True, kw_only=True)
class DrawnPartners:
    """What all mixings share: a partner drawn at random for each sample.

    Attributes:
        seed: two runs with the same seed see the same samples.
    """

    STREAM: ClassVar[int]

    seed: int = 0

    def partners(
        self, indices: NDArray[np.int64], view: int, num_samples: int
    ) -> NDArray[np.int64]:
        """Draw each sample's partner, [B] positions among all training samples."""
        drawn = uniforms(self.seed, indices, view, stream=self.STREAM, count=1)
        return below(num_samples, drawn[0])


@dataclass(frozen=True, kw_only=True)
class MixUp(DrawnPartners):
    """Blend each image with its partner's: share * image + (1 - share) * partner.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018). The share is drawn from
    Beta(alpha, alpha) and rounded to 1/256; pixels are rounded to the nearest level, halves up.

    Attributes:
        alpha: above 0; small values mix little, 1 draws any share alike.
        probability: share of the images that are mixed at all.
        seed: two runs with the same seed see the same images.

    Raises:
        UserError: alpha or the probability is outside its limits.
    """

    STREAM: ClassVar[int] = 256

    alpha: float = 0.8
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_probability(self.probability)

    def mix(
        self, images: Images, partner_images: Images, indices: NDArray[np.int64], view: int
    ) -> tuple[Images, Shares]:
        """Return the mixed images and the share of each sample's own label, [B]."""
        check_shapes(images, partner_images)
        draws = uniforms(self.seed, indices, view, stream=self.STREAM + 1, count=2)
        steps = draw_beta(self.alpha, draws[0], levels=256)
        steps[draws[1] >= self.probability] = 256
        weights = steps.astype(np.uint16)[:, None, None, None]
        mixed = images * weights
        mixed += partner_images * (256 - weights)
        mixed += 128  # at most 255 * 256 + 128: fits 16 bits
        mixed >>= 8
        return mixed.astype(np.uint8), (steps / 256).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class CutMix(DrawnPartners):
    """Replace a box of each image by the same box of its partner's.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features" (2019). The box has the image's shape, an area share of 1 - lambda with lambda from
    Beta(alpha, alpha), and a uniform centre; what reaches over the edge is cut off, and the share
    of the label is that of the pixels left.

    Attributes:
        alpha: above 0; 1 draws any area alike.
        probability: share of the images that are mixed at all.
        seed: two runs with the same seed see the same images.

    Raises:
        UserError: alpha or the probability is outside its limits.
    """

    STREAM: ClassVar[int] = 320

    alpha: float = 1.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_probability(self.probability)

    def mix(
        self, images: Images, partner_images: Images, indices: NDArray[np.int64], view: int
    ) -> tuple[Images, Shares]:
        """Return the mixed images and the share of each sample's own label, [B]."""
        check_shapes(images, partner_images)
        _, height, width, _ = images.shape
        draws = uniforms(self.seed, indices, view, stream=self.STREAM + 1, count=4)
        side = np.sqrt(1 - draw_beta(self.alpha, draws[0], levels=2**16) / 2**16)
        side[draws[1] >= self.probability] = 0
        top, high = _clipped_stretch(height, side, draws[2])
        left, wide = _clipped_stretch(width, side, draws[3])
        mixed = Boxes(top, left, high, wide).fill(images, partner_images)
        shares = 1 - high * wide / (height * width)
        return mixed, shares.astype(np.float32)


def draw_beta(alpha: float, draws: NDArray[np.float64], *, levels: int) -> NDArray[np.int64]:
    """Turn draws in [0, 1) into draws from Beta(alpha, alpha) rounded to 1 / levels, [B].

    By a table: at 1/256 it costs a hundredth of inverting the distribution for every sample.

    Returns:
        Whole numbers from 0 to levels.
    """
    return np.searchsorted(_beta_steps(alpha, levels), draws, side="right")


def check_shapes(samples: Samples, partners: Samples) -> None:
    """Refuse partners of another shape.

    Raises:
        ValueError: they are.
    """
    if samples.shape != partners.shape:
        raise ValueError(f"Expected equal shapes, got {samples.shape}, {partners.shape}.")


def check_alpha(alpha: float) -> None:
    """Refuse what is no parameter of a Beta distribution.

    Raises:
        UserError: it is not above 0.
    """
    if not 0 < alpha < np.inf:
        raise UserError(f"Expected `alpha` above 0 but got {alpha}. Set `mixing=none` to not mix.")


@lru_cache(maxsize=8)
def _beta_steps(alpha: float, levels: int) -> NDArray[np.float64]:
    """Tabulate the distribution function half-way between levels, [levels]."""
    return betainc(alpha, alpha, (np.arange(levels) + 0.5) / levels)


def _clipped_stretch(
    length: int, share: NDArray[np.float64], draws: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place a stretch of a share of `length` around a random centre: its start and length."""
    stretch = (length * share).astype(np.int64)
    start = below(length, draws) - stretch // 2
    end = np.minimum(start + stretch, length)
    start = np.maximum(start, 0)
    return start, end - start
