"""What numbers of a configuration may be. Imports nothing heavy: a mistake shows at once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distill.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Number:
    """What a number may be.

    Attributes:
        is_whole: whether it counts something.
        least, most: that it may be.
        above: it may not be; None takes `least`.
        below: likewise.
        is_optional: whether null will do.
    """

    is_whole: bool = False
    least: float = -math.inf
    most: float = math.inf
    above: float | None = None
    below: float | None = None
    is_optional: bool = False

    def takes(self, value: Any) -> bool:
        """Tell whether it may be this."""
        if value is None:
            return self.is_optional
        if isinstance(value, bool) or not isinstance(value, int if self.is_whole else int | float):
            return False
        return (
            math.isfinite(value)
            and self.least <= value <= self.most
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Say it in words."""
        bounds = [
            f"> {self.above}" if self.above is not None else "",
            f">= {self.least}" if math.isfinite(self.least) else "",
            f"< {self.below}" if self.below is not None else "",
            f"<= {self.most}" if math.isfinite(self.most) else "",
        ]
        said = "a whole number " if self.is_whole else "a number "
        said += " and ".join(bound for bound in bounds if bound)
        return said + (", or null," if self.is_optional else "")


COUNT, POSITIVE = Number(is_whole=True, above=0), Number(above=0)


def check_numbers(cfg: DictConfig, numbers: Mapping[str, Number]) -> None:
    """Refuse a value that is of another kind, or beyond its bounds.

    Args:
        cfg: the configuration.
        numbers: by the path of a key.

    Raises:
        UsageError: there is one.
    """
    for name, number in numbers.items():
        value = OmegaConf.select(cfg, name)
        if not number.takes(value):
            raise UsageError(f"Expected `{name}` to be {number} but got {value!r}.")
