"""Which windows there are of a panel, and their records and labels when they are asked for.

Knows nothing of splits and of how windows are encoded.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.errors import UsageError, UserError
from distill.statistics.number_metrics import naive_error
from distill.tables.columns import Records
from distill.training.data.panels import Panel, Source

log = logging.getLogger(__name__)

Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SeriesChoice:
    """What is forecast from what, and which windows learn, choose and report.

    Attributes:
        time: the column that says when.
        value: the column that is forecast.
        series: a column that names the series; None where there is one.
        known: covariates known ahead, such as a calendar, prices, holidays.
        observed: covariates known up to now, such as the weather.
        window: steps looked back.
        horizon: steps ahead that are forecast.
        stride: steps from one forecast origin to the next.
        gap: steps left out between the labels of two splits, beside those in both.
        test_fraction: of the windows, the latest.
        validation_fraction: of the other windows, the latest of them.
        resample: see `panels.Source`, as are the next three.
        quantiles: levels at which each step is told, ascending; None tells the value itself.
    """

    time: str
    value: str
    series: str | None = None
    known: Sequence[str] = ()
    observed: Sequence[str] = ()
    window: int
    horizon: int
    stride: int = 1
    gap: int = 0
    test_fraction: float = 0.2
    validation_fraction: float = 0.15
    resample: str | None = None
    fill: str = "last"
    spacing: str | None = None
    date_format: str | None = None
    quantiles: Sequence[float] | None = None

    @property
    def source(self) -> Source:
        """Which columns of a table are what."""
        return Source(
            time=self.time,
            value=self.value,
            covariates=(*self.observed, *self.known),
            series=self.series,
            resample=self.resample,
            fill=self.fill,
            spacing=self.spacing,
            date_format=self.date_format,
        )

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: a number of steps is too small, or a column is asked for twice.
        """
        for name, least in (("window", 1), ("horizon", 1), ("stride", 1), ("gap", 0)):
            own = getattr(self, name)
            if not isinstance(own, int) or own < least:
                raise UsageError(
                    f"Expected `data.{name}` to be a whole number of steps, {least} or more, but "
                    f"got {own}."
                )
        roles = [self.time, self.value, *([self.series] if self.series else [])]
        roles += [*self.known, *self.observed]
        twice = [name for name in roles if roles.count(name) > 1]
        if twice:
            raise UsageError(
                f"Expected each column once in `data.time`, `value`, `series`, `known` and "
                f"`observed` but `{twice[0]}` is there twice. The past of the value is looked at "
                "anyway; a covariate is either known ahead or not."
            )


@dataclass(frozen=True, kw_only=True)
class Pool:
    """All windows of a panel, P in all, by series and time.

    Attributes:
        panel: the series.
        starts: [P], the row at which each window begins.
        choice: see there.
    """

    panel: Panel
    starts: NDArray[np.int64]
    choice: SeriesChoice

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def first(self) -> NDArray[np.int64]:
        """Step of each window's first label, [P]; one numbering for all series."""
        return self.panel.steps[self.starts + self.choice.window]

    @property
    def last(self) -> NDArray[np.int64]:
        """Step of each window's last label, [P]."""
        return self.first + self.choice.horizon - 1

    @property
    def origin_times(self) -> NDArray[np.int64]:
        """When each window ends, [P], milliseconds since 1970 in UTC."""
        return self.panel.times[self.starts + self.choice.window - 1]

    @property
    def series(self) -> NDArray[np.int64]:
        """Number of each window's series, [P]; see `panel.names`."""
        return self.panel.series[self.starts]

    def stretches(self, positions: Positions) -> NDArray[np.int64]:
        """Number stretches of time of twice the horizon, those of all series as one, [N].

        Windows whose origins are less than a horizon apart share labels, and so errors; series of
        one time share what happened to all of them, such as a holiday.
        """
        return self.first[positions] // (2 * self.choice.horizon)

    def naive_errors(self, positions: Positions) -> NDArray[np.float64]:
        """Find how far each series' value moves in a step, up to the last label of some windows.

        Returns:
            Of every series, in the order of `panel.names`; 0 where it never moves, or has no step.
        """
        panel = self.panel
        values, end = panel.columns[panel.value], self.last[positions].max()
        known, found = panel.steps <= end, np.zeros(len(panel.names))
        edges = np.searchsorted(panel.series, np.arange(len(found) + 1))  # one after another
        for number, rows in enumerate(map(slice, edges[:-1], edges[1:])):
            own = values[rows][known[rows]]
            found[number] = naive_error(own) if len(own) > 1 else 0.0
        return found

    def label_times(self, positions: Positions) -> NDArray[np.int64]:
        """When the labels of some windows are, [N, horizon]."""
        ahead = np.arange(self.choice.horizon) + self.choice.window
        return self.panel.times[self.starts[positions, None] + ahead]

    def records(self, positions: Positions) -> Records:
        """Make the records of some windows, [N]: see `distill.tables.windows`."""
        choice, columns = self.choice, self.panel.columns
        names = (self.panel.value, *choice.observed, *choice.known)
        ahead = {name: choice.window + choice.horizon for name in choice.known}
        widths = {name: ahead.get(name, choice.window) for name in names}
        rows = np.empty(len(positions), [(name, "f8", (width,)) for name, width in widths.items()])
        for name, width in widths.items():
            rows[name] = columns[name][self.starts[positions, None] + np.arange(width)]
        return rows

    def labels(self, positions: Positions) -> NDArray[np.float32]:
        """Take what followed some windows, [N, horizon]."""
        ahead = np.arange(self.choice.horizon) + self.choice.window
        values = self.panel.columns[self.panel.value]
        return values[self.starts[positions, None] + ahead].astype(np.float32)


def make_pool(panel: Panel, choice: SeriesChoice) -> tuple[Pool, int]:
    """Find every window.

    Returns:
        The windows, and the number of series left out because they are too short for one.

    Raises:
        UserError: all are too short.
    """
    length = choice.window + choice.horizon
    lengths = np.bincount(panel.series, minlength=len(panel.names))
    short = np.flatnonzero((lengths < length) & (lengths > 0))
    longest = int(lengths.max())
    if longest < length:
        raise UserError(
            f"Expected series of at least {length:,} steps (`data.window` {choice.window} + "
            f"`data.horizon` {choice.horizon}) but the longest has {longest:,}. Give a smaller "
            "window or horizon, or longer series."
        )
    if len(short):
        log.warning(
            "%d of %d series are shorter than window + horizon (%d steps) and are left out, such "
            "as %s", len(short), int((lengths > 0).sum()), length, panel.names[short[0]],
        )  # fmt: skip
    starts = np.arange(len(panel.series) - length + 1)
    starts = starts[panel.series[starts] == panel.series[starts + length - 1]]
    steps = panel.steps
    ends = steps[starts + length - 1]
    starts = starts[(steps.max() - ends) % choice.stride == 0]  # the latest window is among them
    return Pool(panel=panel, starts=starts, choice=choice), len(short)
