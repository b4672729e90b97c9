"""Views that hide a part of the image.

Knows nothing of how boxes are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.training.views.base import Images, check_probability, check_range
from distill.training.views.boxes import DRAWS_PER_BOX, draw_boxes
from distill.training.views.hashing import uniforms


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Paint a random box of some images in one colour.

    Zhong et al., "Random Erasing Data Augmentation" (2020), with a constant instead of noise.

    Attributes:
        probability: share of the images.
        scale: least and largest area of the box, as shares of the image's.
        ratio: least and largest width over height of the box.
        value: 0 to 255, the same for all channels or one for each.
        seed: two runs with the same seed see the same views.

    Raises:
        UserError: a probability, range or value is outside its limits.
    """

    STREAM: ClassVar[int] = 128

    probability: float = 0.5
    scale: Sequence[float] = (0.02, 0.33)
    ratio: Sequence[float] = (0.3, 3.3)
    value: int | Sequence[int] = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_probability(self.probability)
        check_range("scale", self.scale, highest=1)
        check_range("ratio", self.ratio)
        if not all(level in range(256) for level in self._levels):
            raise UserError(f"Expected `value` in whole numbers 0 to 255 but got {self.value}.")

    def __call__(self, images: Images, indices: NDArray[np.int64], view: int) -> Images:
        """Make the view of each image, [B, H, W, C] uint8 to the same.

        Raises:
            UserError: as many values as the images have channels are needed, or one.
        """
        _, *size, channels = images.shape
        if len(self._levels) not in (1, channels):
            raise UserError(
                f"Expected one `value` of RandomErasing, or {channels} (one per channel), but got "
                f"{self.value}."
            )
        draws = uniforms(self.seed, indices, view, stream=self.STREAM, count=DRAWS_PER_BOX + 1)
        chosen = np.flatnonzero(draws[-1] < self.probability)
        boxes = draw_boxes(draws[:, chosen], size, scale=self.scale, ratio=self.ratio)
        erased = np.array(images)
        erased[chosen] = boxes.fill(images[chosen], np.array(self._levels, np.uint8))
        return erased

    @property
    def _levels(self) -> Sequence[int]:
        return self.value if isinstance(self.value, Sequence) else (self.value,)
