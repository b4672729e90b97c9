"""What every view is: a protocol, the view that changes nothing, and several in a row.

Also who goes with what is shown, and the checks that views share. Knows no augmentation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distill.errors import UsageError, UserError
from distill.tables.encoding import Layout

Images = NDArray[np.uint8]
Samples = NDArray[Any]  # images, uint8 [B, H, W, C]; or encoded rows, float32 [B, F]


class Views(Protocol):
    """What a batch of samples looks like the `view`-th time it is shown.

    Those of rows have a method `for_rows`, that takes a `Layout` and returns themselves, knowing
    it; those of images have none (see `bound`).
    """

    def __call__(self, samples: Samples, indices: NDArray[np.int64], view: int, /) -> Samples:
        """Make the view of each image, [B, H, W, C] to [B, H', W', C], or of each row, [B, F]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """Show every image or row as it is."""

    def __call__(self, samples: Samples, indices: NDArray[np.int64], view: int) -> Samples:
        """Return the samples themselves."""
        return samples


@dataclass(frozen=True, kw_only=True)
class Compose:
    """Apply several views one after the other.

    Steps of different classes decide independently, whatever their seeds. Two steps of the same
    class need different seeds: with one seed they would make the same decisions.

    Attributes:
        steps: the views in order, in a list or by names of your choice.
    """

    steps: Mapping[str, Views] | Sequence[Views]

    def __call__(self, samples: Samples, indices: NDArray[np.int64], view: int) -> Samples:
        """Make the view of each sample, as the steps do."""
        for step in self.in_order:
            samples = step(samples, indices, view)
        return samples

    @property
    def in_order(self) -> Sequence[Views]:
        """The steps without their names."""
        return list(self.steps.values()) if isinstance(self.steps, Mapping) else self.steps


def bound(shown: Any, layout: Layout | None) -> Any:
    """Return views, or a mixing, that know the layout of the rows that they are to show.

    Args:
        shown: views or a mixing.
        layout: of the rows; None where images are shown.

    Raises:
        UsageError: they are of images and rows are shown, or the other way round, or there is
            nothing in such rows that they could change.
    """
    if isinstance(shown, Unchanged):
        return shown
    if isinstance(shown, Compose):
        return Compose(steps=[bound(step, layout) for step in shown.in_order])
    name, is_of_rows = type(shown).__name__, hasattr(shown, "for_rows")
    if layout is None and is_of_rows:
        raise UsageError(
            f"Expected views and mixing of images but {name} is of rows of a table. Choose others, "
            "such as `views=shift` and `mixing=mixup`, or `views=none mixing=none`."
        )
    if layout is not None and layout.fields:
        raise UsageError(
            f"Expected `views=none mixing=none` for windows of a series but got {name}: a window's "
            "steps belong together. Leave both out."
        )
    if layout is not None and not is_of_rows:
        raise UsageError(
            f"Expected views and mixing of rows for a table but {name} is of images. Choose "
            "`views=noise_rows`, `mixing=mixup_rows` or `mixing=swap_columns`, or "
            "`views=none mixing=none`."
        )
    return shown if layout is None else shown.for_rows(layout)


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
