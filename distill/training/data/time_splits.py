"""Which windows learn, which choose and which report: by time alone.

A window is told by the first and the last step of its labels. Of two parts, all labels of the
earlier lie before all of the later: windows whose labels reach over a border are left out (purged:
López de Prado, "Advances in Financial Machine Learning", 2018), and with them at least
horizon - 1 origins. Steps in, positions out; knows nothing of values.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError

Steps = NDArray[np.int64]


def split_windows(
    first: Steps, last: Steps, fraction: float, *, gap: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the latest windows off.

    Args:
        first: step of each window's first label, [N]; one numbering for all series.
        last: of its last label.
        fraction: of the windows, to be the later part.
        gap: steps between the two parts' labels, for truth that comes in late.

    Returns:
        Positions of the earlier and of the later, in order.

    Raises:
        UserError: the fraction is none, or a part would be empty.
    """
    if not 0 < fraction < 1:
        raise UserError(f"Expected a fraction between 0 and 1 to split off but got {fraction}.")
    ordered = np.sort(first)
    at = min(round(len(ordered) * (1 - fraction)), len(ordered) - 1)
    return _around(first, last, int(ordered[at]), gap, what=f"{fraction:.0%} of the windows")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A moment of forecasting: what was known by then, and what was asked.

    Attributes:
        step: of the first label asked.
        train: positions of windows all of whose labels were known.
        test: positions of windows from here to the next origin.
    """

    step: int
    train: NDArray[np.int64]
    test: NDArray[np.int64]


def rolling_origins(
    first: Steps, last: Steps, *, num_origins: int, fraction: float, gap: int = 0
) -> Iterator[Origin]:
    """Go through several origins, each with all that was known by then to learn from.

    Tashman, "Out-of-sample tests of forecasting accuracy: an analysis and review", 2000. The
    latest windows are cut into equal stretches of time, and each is the test of one origin.

    Args:
        first: step of each window's first label, [N].
        last: of its last label.
        num_origins: how many.
        fraction: of the windows, in which the origins lie.
        gap: steps between the labels learnt from and those asked.

    Raises:
        UserError: there are too few windows for so many origins.
    """
    _, tested = split_windows(first, last, fraction, gap=gap)
    start, end = int(first[tested].min()), int(first[tested].max()) + 1
    if num_origins < 1 or end - start < num_origins:
        raise UserError(
            f"Expected from 1 to {end - start:,} origins, the steps in the latest {fraction:.0%} "
            f"of the windows, but got {num_origins}. Ask for fewer, or for more of the windows."
        )
    borders = np.linspace(start, end, num_origins + 1).astype(np.int64)
    for step, following in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        train, later = _around(first, last, step, gap, what="an origin")
        test = later[first[later] < following]
        if len(test):  # a stride may step over a short stretch
            yield Origin(step=step, train=train, test=test)


def _around(
    first: Steps, last: Steps, step: int, gap: int, *, what: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    earlier, later = np.flatnonzero(last < step - gap), np.flatnonzero(first >= step)
    if not len(earlier) or not len(later):
        raise UserError(
            f"Expected windows on both sides of a border to split off {what} but of "
            f"{len(first):,} {len(earlier):,} end before it and {len(later):,} begin after it "
            f"(those over the border are left out, as is a gap of {gap}). Give longer series, or a "
            "smaller `data.window`, `data.horizon`, `data.gap` or `data.stride`."
        )
    return earlier, later
