"""How far apart the moments of a series are, and which step each of them is.

Milliseconds since 1970 in UTC in, step numbers out. Months are steps too, long or short. Knows
nothing of values.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.tables.encoding import DAY_MS

Moments = NDArray[np.int64]  # [R] milliseconds
UNITS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
NAMES = ("millisecond", "second", "minute", "hour", "day", "week")


@dataclass(frozen=True, kw_only=True)
class Spacing:
    """The step from one moment to the next.

    Attributes:
        step: in milliseconds, or in months.
        in_months: which of the two.
        anchor: a moment at which a step begins; of months, how far into the month moments lie,
            negative from its end.
    """

    step: int
    in_months: bool = False
    anchor: int = 0

    def __str__(self) -> str:
        if self.in_months:
            return f"{self.step} month{'s' * (self.step > 1)}"
        unit, name = max(
            (ms, name)
            for ms, name in zip(UNITS.values(), NAMES, strict=True)
            if self.step % ms == 0 and name != "week"
        )
        count = self.step // unit
        return f"{count} {name}{'s' * (count > 1)}"

    @property
    def text(self) -> str:
        """What `read_spacing` makes it of again, with its anchor."""
        if self.in_months:
            return f"{self.step}M"
        ms, unit = max((ms, unit) for unit, ms in UNITS.items() if self.step % ms == 0)
        return f"{self.step // ms}{unit}"

    def positions(self, times: Moments) -> Moments:
        """Say when each moment is, in the unit of `step`."""
        return _months(times) if self.in_months else times - self.anchor

    def steps(self, times: Moments) -> Moments:
        """Number the step that each moment lies in."""
        return self.positions(times) // self.step

    def moments(self, steps: Moments) -> Moments:
        """Tell when each step is."""
        if not self.in_months:
            return steps * self.step + self.anchor
        month = steps * self.step + (self.anchor < 0)
        return month.astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64) + self.anchor


@dataclass(frozen=True, kw_only=True)
class EachMoment(Spacing):
    """Every moment at which any series has a row is a step: business days, opening hours.

    Attributes:
        known: the moments, sorted.
    """

    step: int = 1
    known: Moments

    def __str__(self) -> str:
        return "one moment of those in the table"

    @property
    def text(self) -> str:
        """What `read_spacing` makes it of again."""
        return "moments"

    def positions(self, times: Moments) -> Moments:
        """Say which of the moments each is."""
        return np.searchsorted(self.known, times)


def read_spacing(text: str, times: Moments, *, anchor: int | None = None) -> Spacing:
    """Read a spacing such as 15min, 1h, 1d, 1w or 1M; `moments` takes each moment for a step.

    Args:
        text: to read.
        times: of all rows.
        anchor: see `Spacing`; None is the first day's midnight, and of months their beginning.

    Raises:
        UserError: it is none.
    """
    if text == "moments":
        return EachMoment(known=np.unique(times))
    found = re.fullmatch(r"([1-9]\d*)\s*(ms|s|min|h|d|w|M)", str(text))
    if found is None:
        raise UserError(
            f"Expected `data.spacing` such as 15min, 1h, 1d, 1w or 1M but got {text}. Units are "
            "ms, s, min, h, d, w and M (months); `moments` takes each moment in the table for a "
            "step."
        )
    if found[2] == "M":
        return Spacing(step=int(found[1]), in_months=True, anchor=anchor or 0)
    if anchor is None:
        anchor = int(times.min() // DAY_MS * DAY_MS)
    return Spacing(step=int(found[1]) * UNITS[found[2]], anchor=anchor)


def guess_spacing(times: Moments, follows: NDArray[np.bool_]) -> Spacing:
    """Take the commonest step.

    Months, where all moments lie equally far into theirs, or before its end.

    Args:
        times: sorted, series after series.
        follows: [R - 1], whether the next moment is of the same series.
    """
    step = commonest(np.diff(times)[follows])
    if step >= 28 * DAY_MS:
        months = _months(times)
        between = commonest(np.diff(months)[follows])
        for later in (0, 1):  # from the beginning of the month, from its end
            edge = (months + later).astype("datetime64[M]").astype("datetime64[ms]")
            away = times - edge.astype(np.int64)
            if between and (away == away[0]).all():
                return Spacing(step=between, in_months=True, anchor=int(away[0]))
    return Spacing(step=step, anchor=int(times.min() // DAY_MS * DAY_MS))


def commonest(steps: NDArray[np.int64]) -> int:
    """Find the commonest step that is not 0, the smallest of several."""
    values, counts = np.unique(steps[steps > 0], return_counts=True)
    return int(values[counts.argmax()]) if len(values) else DAY_MS


def written(times: Moments | Sequence[int]) -> list[str]:
    """Write moments as ISO dates, with the time of day where there is one."""
    moments = np.asarray(times, np.int64).astype("datetime64[ms]")
    texts = np.datetime_as_string(moments, unit="s").tolist()
    return [text.removesuffix("T00:00:00") for text in texts]


def _months(times: Moments) -> Moments:
    return times.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
