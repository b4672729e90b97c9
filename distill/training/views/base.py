"""What every view is: a protocol, the view that changes nothing, and several in a row.

Also the checks that views share. Knows no augmentation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError

Images = NDArray[np.uint8]


class Views(Protocol):
    """What a batch of images looks like the `view`-th time it is shown."""

    def __call__(self, images: Images, indices: NDArray[np.int64], view: int) -> Images:
        """Make the view of each image, [B, H, W, C] uint8 to [B, H', W', C] uint8."""
        ...


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """Show every image as it is."""

    def __call__(self, images: Images, indices: NDArray[np.int64], view: int) -> Images:
        """Return the images themselves."""
        return images


@dataclass(frozen=True, kw_only=True)
class Compose:
    """Apply several views one after the other.

    Steps of different classes decide independently, whatever their seeds. Two steps of the same
    class need different seeds: with one seed they would make the same decisions.

    Attributes:
        steps: the views in order, in a list or by names of your choice.
    """

    steps: Mapping[str, Views] | Sequence[Views]

    def __call__(self, images: Images, indices: NDArray[np.int64], view: int) -> Images:
        """Make the view of each image, [B, H, W, C] uint8 to [B, H', W', C] uint8."""
        steps = self.steps.values() if isinstance(self.steps, Mapping) else self.steps
        for step in steps:
            images = step(images, indices, view)
        return images


def check_probability(value: float) -> None:
    """Refuse a probability outside 0 to 1.

    Raises:
        UserError: it is.
    """
    if not 0 <= value <= 1:
        raise UserError(f"Expected `probability` from 0 to 1 but got {value}.")


def check_range(name: str, values: Sequence[float], *, highest: float = np.inf) -> None:
    """Refuse what is no range of positive numbers.

    Raises:
        UserError: not two numbers, in the wrong order, not positive, or above `highest`.
    """
    if (
        not isinstance(values, Sequence)
        or len(values) != 2
        or not 0 < values[0] <= values[1] <= highest
        or np.isinf(values[1])
    ):
        limit = "" if np.isinf(highest) else f" and at most {highest:g}"
        raise UserError(
            f"Expected `{name}` to be two numbers above 0{limit}, the smaller one first, but got "
            f"{values}."
        )
