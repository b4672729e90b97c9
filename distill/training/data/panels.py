"""One or many series from a table: sorted, checked, without holes, each step known.

Knows nothing of windows and of splits.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.errors import UserError
from distill.tables.columns import NO_DATE, Column, Kind
from distill.tables.table_files import column_of, guess_kind, raw_values, refuse_long
from distill.training.data.grids import resample
from distill.training.data.spacing import Spacing, guess_spacing, read_spacing, written

log = logging.getLogger(__name__)

NUM_SHOWN = 3  # of what is wrong


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Series one after another, R rows in all, each sorted by time.

    Attributes:
        names: of the series.
        series: [R], the number of each row's series.
        times: [R], milliseconds since 1970 in UTC.
        columns: the value, then covariates, float64 [R] each; gaps are NaN.
        spacing: from one row of a series to its next.
    """

    names: tuple[str, ...]
    series: NDArray[np.int64]
    times: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.float64]]
    spacing: Spacing

    @property
    def value(self) -> str:
        """Name of the value's column."""
        return next(iter(self.columns))

    @property
    def follows(self) -> NDArray[np.bool_]:
        """Tell whether each row but the last is followed by one of its own series, [R - 1]."""
        return self.series[1:] == self.series[:-1]

    @property
    def steps(self) -> NDArray[np.int64]:
        """Number of each row's step, [R]; one numbering for all series."""
        return self.spacing.steps(self.times)

    def take(self, rows: NDArray) -> "Panel":
        """Keep some rows: a mask or positions."""
        columns = {name: own[rows] for name, own in self.columns.items()}
        return replace(self, series=self.series[rows], times=self.times[rows], columns=columns)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which columns of a table are what, and how holes are dealt with.

    Attributes:
        time: when.
        value: what is forecast.
        covariates: further numbers.
        series: a column that names the series; None where there is one.
        resample: None refuses holes and duplicates; `mean` averages what lies in one step, and
            fills the steps in which nothing lies.
        fill: `last` repeats the last value, `linear` goes straight to the next one.
        spacing: such as 1h; `moments` takes each moment in the table for a step; None takes the
            commonest.
        date_format: of dates that are not ISO, as of `strptime`.
        anchor: of `spacing`; see there.
    """

    time: str
    value: str
    covariates: Sequence[str] = ()
    series: str | None = None
    resample: str | None = None
    fill: str = "last"
    spacing: str | None = None
    date_format: str | None = None
    anchor: int | None = None


def read_panel(table: pa.Table, source: Source) -> tuple[Panel, Panel]:
    """Read series from a table.

    Rows in any order are sorted, and so it is said. Rows before a series' first value and after
    its last are cut off.

    Returns:
        The series, and the rows cut off after the last values: the future, if it is there.

    Raises:
        UserError: a column is missing, no number or no date; a moment is there twice; a value is
            missing or infinite; moments are not evenly spaced.
    """
    _check_options(source)
    panel = _sorted(table, source)
    if source.spacing is not None:
        spacing = read_spacing(source.spacing, panel.times, anchor=source.anchor)
        panel = replace(panel, spacing=spacing)
    if source.resample is None:
        _refuse_duplicates(panel)
    panel, future = _trimmed(panel)
    if source.resample is None:
        _refuse_gaps(panel)
    if source.spacing is None:
        panel = replace(panel, spacing=guess_spacing(panel.times, panel.follows))
    if source.resample is None:
        _refuse_uneven(panel, is_guessed=source.spacing is None)
        return panel, future
    return _resampled(panel, source.fill), future


def _check_options(source: Source) -> None:
    for name, value, known in (
        ("resample", source.resample, (None, "mean")),
        ("fill", source.fill, ("last", "linear")),
    ):
        if value not in known:
            shown = " or ".join("null" if own is None else own for own in known)
            raise UserError(f"Expected `data.{name}` to be {shown} but got {value}.")
    if source.resample is not None and source.spacing == "moments":
        raise UserError(
            "Expected a step to resample to but `data.spacing=moments` is no grid. Set a step such "
            "as `data.spacing=1d`, or leave `data.resample` out."
        )


def _sorted(table: pa.Table, source: Source) -> Panel:
    times = _times(table, source)
    names, series = _series(table, source.series)
    columns = {
        name: _numbers(column_of(table, name, what), name)
        for name, what in {
            source.value: "`data.value`",
            **dict.fromkeys(source.covariates, "a covariate"),
        }.items()
    }
    panel = Panel(names=names, series=series, times=times, columns=columns, spacing=Spacing(step=1))
    order = np.lexsort((times, series))
    by_series = np.argsort(series, kind="stable")
    earlier = np.diff(times[by_series]) < 0
    num_unsorted = int((earlier & (np.diff(series[by_series]) == 0)).sum())
    if num_unsorted:
        log.warning("rows are sorted by `%s`: %d came after a later one", source.time, num_unsorted)
    return panel.take(order)


def _times(table: pa.Table, source: Source) -> NDArray[np.int64]:
    values = column_of(table, source.time, "`data.time`")
    if not source.date_format and guess_kind(values).kind in (Kind.NUMBER, Kind.BOOLEAN):
        raise UserError(
            f"Expected dates in `{source.time}` (`data.time`) but row 0 has {values[0].as_py()!r}, "
            "a number. Write them as 2024-03-31 or 2024-03-31T12:00:00, or say how they are "
            "written, such as `data.date_format=%Y%m%d`."
        )
    column = Column(name=source.time, kind=Kind.DATE)
    times = raw_values(values, column, date_format=source.date_format)
    missing = np.flatnonzero(times == NO_DATE)
    if len(missing):
        raise UserError(
            f"Expected a date in every row of `{source.time}` (`data.time`) but {len(missing):,} "
            f"have none, the first in row {missing[0]:,}. Leave those rows out."
        )
    return times


def _series(table: pa.Table, name: str | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    if name is None:
        return ("",), np.zeros(table.num_rows, np.int64)
    values = column_of(table, name, "`data.series`")
    if values.null_count:
        raise UserError(
            f"Expected the name of a series in every row of `{name}` but {values.null_count:,} "
            "have none. Name them, or leave those rows out."
        )
    values = values.cast(pa.string())
    refuse_long(values, name)
    texts = values.to_numpy()
    names, numbers = np.unique(np.asarray(texts, np.str_), return_inverse=True)
    return tuple(map(str, names)), numbers.astype(np.int64)


def _numbers(values: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    advice = "Mend it; write a category as columns of 0 and 1."
    return raw_values(values, Column(name=name, kind=Kind.NUMBER), advice=advice)


def _at(panel: Panel, row: int) -> str:
    """Say which row: its moment, and its series where there are several."""
    name = panel.names[panel.series[row]]
    return written(panel.times[row : row + 1])[0] + (f" of `{name}`" if name else "")


def _refuse_duplicates(panel: Panel) -> None:
    twice = np.flatnonzero((np.diff(panel.times) == 0) & panel.follows)
    if len(twice):
        raise UserError(
            f"Expected every moment of a series once but {len(twice):,} are repeated, the first "
            f"{_at(panel, int(twice[0]))}. Leave one out, name the column that tells the series "
            "apart (`data.series`), or average them with `data.resample=mean`."
        )


def _trimmed(panel: Panel) -> tuple[Panel, Panel]:
    """Cut off what lies before the first value of each series, and what after its last."""
    rows = np.arange(len(panel.times))
    present = np.flatnonzero(~np.isnan(panel.columns[panel.value]))
    if not len(present):
        raise UserError(f"Expected values in `{panel.value}` but it has none.")
    first, last = np.full((2, len(panel.names)), -1)
    of_present = panel.series[present]
    last[of_present] = present
    first[of_present[::-1]] = present[::-1]
    empty = [name for name, own in zip(panel.names, last, strict=True) if own < 0]
    if empty:
        log.warning("%d series have no value and are left out, such as %s", len(empty), empty[0])
    after = (rows > last[panel.series]) & (last[panel.series] >= 0)
    inside = (rows >= first[panel.series]) & (rows <= last[panel.series])
    if not inside.all():
        log.info(
            "%d rows before the first `%s` and %d after the last have none",
            int((~inside & ~after).sum()), panel.value, int(after.sum()),
        )  # fmt: skip
    return panel.take(inside), panel.take(after)


def _refuse_gaps(panel: Panel) -> None:
    missing = np.flatnonzero(np.isnan(panel.columns[panel.value]))
    if len(missing):
        raise UserError(
            f"Expected a value at every moment but `{panel.value}` has {len(missing):,} gaps, the "
            f"first at {_at(panel, int(missing[0]))}. Mend them, or have them filled: "
            "`data.resample=mean`, with `data.fill=last` or `data.fill=linear`."
        )


def _refuse_uneven(panel: Panel, *, is_guessed: bool) -> None:
    between = np.diff(panel.spacing.positions(panel.times))
    uneven = np.flatnonzero((between != panel.spacing.step) & panel.follows)
    if not len(uneven):
        return
    shown = [
        f"{_at(panel, int(row))} to {written(panel.times[row + 1 : row + 2])[0]}"
        for row in uneven[:NUM_SHOWN]
    ]
    otherwise = (
        ", `data.spacing=1d` sets another step, and `data.spacing=moments` takes each moment there "
        "is for a step, as of business days"
    )
    raise UserError(
        f"Expected moments that are evenly spaced but of {int(panel.follows.sum()):,} steps "
        f"{len(uneven):,} are not {panel.spacing}{', the commonest' * is_guessed}: "
        f"{'; '.join(shown)}{'; ...' if len(uneven) > NUM_SHOWN else ''}. Mend them, or have them "
        "put on an even grid: `data.resample=mean` averages what lies in one step and fills empty "
        f"ones (`data.fill=last` or `linear`){otherwise * is_guessed}."
    )


def _resampled(panel: Panel, fill: str) -> Panel:
    grid = resample(panel.series, panel.steps, panel.columns, fill=fill)
    num_filled = int(grid.was_empty[panel.value].sum())
    log.info(
        "resampled to %s: %d rows are %d steps, of which %d had no `%s` and were filled (%s)",
        panel.spacing, len(panel.times), len(grid.steps), num_filled, panel.value, fill,
    )  # fmt: skip
    return replace(
        panel,
        series=grid.series,
        times=panel.spacing.moments(grid.steps),
        columns=grid.columns,
    )
