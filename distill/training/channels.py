"""A normalisation as somebody writes it: a mean and a spread for each channel of an image."""

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

from distill.errors import UserError

Written = float | Sequence[float] | None


def per_channel(
    mean: Written, std: Written, channels: int, whose: str
) -> tuple[list[float], list[float]]:
    """Read a teacher's mean and standard deviation; a single number is that of every channel.

    Args:
        mean: in units of 0..1.
        std: as `mean`, above 0.
        channels: of the images.
        whose: whom the message names.

    Raises:
        UserError: one is missing, of another length, no number, or `std` is not above 0.
    """
    read = [_spread(values, channels) for values in (mean, std)]
    if any(len(values) != channels for values in read) or min(read[1]) <= 0:
        raise UserError(
            f"Expected `teacher.mean` and `teacher.std` (above 0) of {channels} channels in units "
            f"of 0..1 for {whose}, but got {mean} and {std}. Use those it was trained with; mean "
            f"{[0.0] * channels} and std {[1.0] * channels} feed it pixels / 255."
        )
    return read[0], read[1]


def _spread(values: Any, channels: int) -> list[float]:
    """Make a list of numbers, one a channel; an empty one of what is none."""
    values = [values] * channels if _is_number(values) else values
    if not isinstance(values, Iterable) or not all(map(_is_number, values)):
        return []
    return [float(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)
