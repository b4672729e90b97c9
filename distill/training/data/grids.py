"""Rows at any step to one row at every step: the mean of several, and something for none.

Pure NumPy. Knows nothing of time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every step of every series, G in all, series after series.

    Attributes:
        series: [G].
        steps: [G].
        columns: [G] each.
        was_empty: [G] each, where a column had nothing in a step.
    """

    series: NDArray[np.int64]
    steps: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.float64]]
    was_empty: Mapping[str, NDArray[np.bool_]]


def resample(
    series: NDArray[np.int64],
    steps: NDArray[np.int64],
    columns: Mapping[str, NDArray[np.float64]],
    *,
    fill: str,
) -> Grid:
    """Put rows on a grid; each series goes from its first step to its last.

    Args:
        series: [R], sorted.
        steps: [R], sorted within a series.
        columns: [R] each; NaN counts as nothing.
        fill: `last` repeats the last value of an empty step's series, `linear` goes straight from
            the last to the next one (which looks ahead: in use, the next one is not known). Ahead
            of the first value there is nothing to repeat, and the gap stays.
    """
    present = np.unique(series)
    starts = np.searchsorted(series, present)
    ends = np.searchsorted(series, present, side="right") - 1
    lengths = steps[ends] - steps[starts] + 1
    offsets = np.cumsum(lengths) - lengths
    number = np.searchsorted(present, series)
    place = offsets[number] + steps - steps[starts][number]
    size = int(lengths.sum())
    of_grid = np.repeat(np.arange(len(present)), lengths)
    means = {name: _mean(own, place, size) for name, own in columns.items()}
    return Grid(
        series=present[of_grid],
        steps=np.arange(size) - offsets[of_grid] + steps[starts][of_grid],
        columns={name: _filled(own, of_grid, fill) for name, own in means.items()},
        was_empty={name: np.isnan(own) for name, own in means.items()},
    )


def _mean(values: NDArray[np.float64], place: NDArray, size: int) -> NDArray[np.float64]:
    there = ~np.isnan(values)
    counts = np.bincount(place[there], minlength=size)
    sums = np.bincount(place[there], weights=values[there], minlength=size)
    return np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)


def _filled(values: NDArray[np.float64], series: NDArray, fill: str) -> NDArray[np.float64]:
    rows, there = np.arange(len(values)), ~np.isnan(values)
    before = np.maximum.accumulate(np.where(there, rows, -1))
    after = np.minimum.accumulate(np.where(there, rows, len(values))[::-1])[::-1]
    has_before = (before >= 0) & (series[before] == series)
    has_after = after < len(values)
    after = np.minimum(after, len(values) - 1)
    has_after &= series[after] == series
    filled = np.where(has_before, values[before], np.nan)
    if fill == "linear":
        share = (rows - before) / np.maximum(after - before, 1)
        between = values[before] + share * (values[after] - values[before])
        filled = np.where(has_before & has_after, between, filled)
    return filled
