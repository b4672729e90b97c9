"""What a model of series is asked in use: windows after which the value is not known yet.

Series are read as training reads them; what is known ahead comes from rows after the last value.
Knows nothing of models.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.errors import UserError
from distill.tables.columns import NO_DATE, Records
from distill.training.data.grids import resample
from distill.training.data.panels import Panel, read_panel
from distill.training.data.pools import Pool, SeriesChoice
from distill.training.data.spacing import written

log = logging.getLogger(__name__)

NUM_SHOWN = 3  # of what is left out


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Windows to forecast from, N in all, by series and time.

    Attributes:
        records: [N], see `distill.tables.windows`.
        names: [N], of each one's series.
        origins: [N], when each window ends, in milliseconds since 1970 in UTC.
        left_out: by their names the series that are not asked about, and why.
    """

    records: Records
    names: NDArray[np.str_]
    origins: NDArray[np.int64]
    left_out: Mapping[str, str]


def read_questions(
    table: pa.Table, choice: SeriesChoice, *, anchor: int | None = None, every: bool = False
) -> Questions:
    """Make the window that ends at the last value of each series, or all windows.

    A series is left out where it is too short for a window, or where a covariate is not given for
    every step ahead.

    Args:
        table: a row for each moment of each series, also for those ahead, where the value is empty.
        choice: which columns, and how many steps.
        anchor: a moment at which a step begins; see `spacing.Spacing`.
        every: forecast from each moment that has a window behind it.

    Raises:
        UserError: no series is left, or rows are not as training takes them; see `read_panel`.
    """
    panel, future = read_panel(table, replace(choice.source, anchor=anchor))
    panel = _with_steps_ahead(panel, future, choice)
    starts = _starts(panel, choice.window, every=every)
    missing = {name: np.isnan(panel.columns[name]) & _is_ahead(panel) for name in choice.known}
    ahead = np.arange(choice.window, choice.window + choice.horizon)
    lacks = np.zeros(len(starts), bool)
    for own in missing.values():
        lacks |= own[starts[:, None] + ahead].any(axis=1)
    pool = Pool(panel=panel, starts=starts[~lacks], choice=choice)
    latest = np.full(len(panel.names), -1)
    latest[panel.series[starts]] = starts
    lengths = np.bincount(panel.series) - choice.horizon
    left_out = {}
    for number in np.setdiff1d(np.arange(len(panel.names)), pool.series).tolist():
        at = latest[number] + ahead
        left_out[panel.names[number]] = (
            f"it has {lengths[number]:,} of the {choice.window:,} steps looked back on"
            if latest[number] < 0
            else _missing_text({name: own[at] for name, own in missing.items()}, panel, at[0] - 1)
        )
    if not len(pool):
        raise UserError(
            f"Expected series that can be forecast but got none: {_shown(left_out)}. Give at least "
            f"{choice.window:,} steps up to now{_advice(choice)}."
        )
    asked_again = np.isin(panel.series[starts[lacks]], pool.series)
    _say(pool, left_out, num_lacking=int(asked_again.sum()))
    return Questions(
        records=pool.records(np.arange(len(pool))),
        names=np.array(panel.names)[pool.series],
        origins=pool.origin_times,
        left_out=left_out,
    )


def _is_ahead(panel: Panel) -> NDArray[np.bool_]:
    return panel.times == NO_DATE


def _starts(panel: Panel, window: int, *, every: bool) -> NDArray[np.int64]:
    """Find the row at which each window begins."""
    starts = np.arange(max(len(panel.series) - window, 0))
    ahead, end = _is_ahead(panel), starts + window - 1
    whole = (panel.series[starts] == panel.series[end]) & ~ahead[end]
    return starts[whole if every else whole & ahead[end + 1]]


def _with_steps_ahead(panel: Panel, future: Panel, choice: SeriesChoice) -> Panel:
    """Put a horizon of rows behind each series, without time, with nothing but what is known."""
    num_series, horizon = len(panel.names), choice.horizon
    series = np.concatenate([panel.series, np.repeat(np.arange(num_series), horizon)])
    order = np.argsort(series, kind="stable")
    known = _known_ahead(panel, future, choice)
    empty = np.full((num_series, horizon), np.nan)
    return replace(
        panel,
        series=series[order],
        times=np.concatenate([panel.times, np.full(num_series * horizon, NO_DATE)])[order],
        columns={
            name: np.concatenate([own, known.get(name, empty).ravel()])[order]
            for name, own in panel.columns.items()
        },
    )


def _known_ahead(
    panel: Panel, future: Panel, choice: SeriesChoice
) -> dict[str, NDArray[np.float64]]:
    """Find the covariates known ahead at the steps of the horizon, [series, horizon] each.

    Where training filled steps in which nothing lies, so are those between two rows ahead.
    """
    last = np.cumsum(np.bincount(panel.series, minlength=len(panel.names))) - 1
    if choice.resample is None:
        future = _on_steps(panel, future, last[future.series])
    rows = np.concatenate([panel.series, future.series])
    steps = np.concatenate([panel.steps, future.steps])
    order = np.lexsort((steps, rows))
    given = {
        name: np.concatenate([panel.columns[name], future.columns[name]])[order]
        for name in choice.known
    }
    grid = resample(rows[order], steps[order], given, fill=choice.fill)
    ahead = grid.steps - panel.steps[last[grid.series]]
    inside = (ahead > 0) & (ahead <= choice.horizon)
    known = {}
    for name, own in grid.columns.items():
        is_gap = grid.was_empty[name] & (choice.resample is None)
        known[name] = np.full((len(panel.names), choice.horizon), np.nan)
        cells = grid.series[inside], ahead[inside] - 1
        known[name][cells] = np.where(is_gap, np.nan, own)[inside]
    return known


def _on_steps(panel: Panel, future: Panel, last: NDArray[np.int64]) -> Panel:
    """Take the rows ahead that are whole steps away from the last rows of their series, [F]."""
    position = panel.spacing.positions
    away = position(future.times) - position(panel.times[last])
    return future.take(away % panel.spacing.step == 0)


def _missing_text(missing: Mapping[str, NDArray[np.bool_]], panel: Panel, row: int) -> str:
    """Say which covariates are not known at which steps after a row."""
    parts = []
    for name, own in missing.items():
        steps = [f"{step + 1:+d}" for step in np.flatnonzero(own)]
        if steps:
            more = ", ..." * (len(steps) > NUM_SHOWN)
            parts.append(f"`{name}` at {', '.join(steps[:NUM_SHOWN])}{more}")
    origin = written(panel.times[row : row + 1])[0]
    return f"of the steps after {origin} there is no {' and no '.join(parts)}"


def _advice(choice: SeriesChoice) -> str:
    if not choice.known:
        return ""
    names = " and ".join(f"`{name}`" for name in choice.known)
    return (
        f", and a row for each of the {choice.horizon:,} steps ahead, with {names} and an empty "
        f"`{choice.value}`"
    )


def _shown(left_out: Mapping[str, str]) -> str:
    parts = [f"`{name}`: {why}" if name else why for name, why in left_out.items()]
    return "; ".join(parts[:NUM_SHOWN]) + "; ..." * (len(parts) > NUM_SHOWN)


def _say(pool: Pool, left_out: Mapping[str, str], *, num_lacking: int) -> None:
    first, last = written([pool.origin_times.min(), pool.origin_times.max()])
    log.info(
        "forecast: %d of %d series, %d origins, %s",
        len(np.unique(pool.series)), len(pool.panel.names), len(pool),
        first if first == last else f"{first} to {last}",
    )  # fmt: skip
    if left_out:
        log.warning("series left out: %d (%s)", len(left_out), _shown(left_out))
    if num_lacking:
        log.warning(
            "origins left out of the others: %d (what is known ahead is missing after them)",
            num_lacking,
        )
