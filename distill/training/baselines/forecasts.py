"""Naive forecasts: what anyone would say who looks at a window, and a line through its values.

A forecast has `fit(train, horizon)`, as a heuristic has, which returns a `Fitted` that answers
records (see `tables.windows`; their first field is the value's window) with [N, horizon] in the
value's own units. Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", 3rd edition,
2021, section 5.2. Knows nothing of networks.
"""

import logging

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from distill.errors import UserError
from distill.tables.columns import Records
from distill.tables.windows import fit_windows
from distill.tasks import TaskKind
from distill.training.baselines.heuristics import Fitted
from distill.training.data.splits import Split

log = logging.getLogger(__name__)

MAX_FIT_WINDOWS = 2000  # of guessing a season
MAX_LINEAR_WINDOWS = 20_000
AS_GOOD = 0.03  # errs more than the best by no larger a share,
MOST_OF_GAIN = 0.9  # or has as much of what the best gains over the last value


class LastValue:
    """Answer the window's last value; the best there is for a random walk."""

    kinds = frozenset({TaskKind.REGRESSION})

    def fit(self, train: Split, horizon: int) -> Fitted:
        """Learn nothing."""
        values_of(train.records)
        return Fitted(
            answer=lambda records: _all_alike(values_of(records)[:, -1], horizon),
            size_bytes=0,
            reads_records=True,
        )


class WindowMean:
    """Answer the window's mean."""

    kinds = frozenset({TaskKind.REGRESSION})

    def fit(self, train: Split, horizon: int) -> Fitted:
        """Learn nothing."""
        values_of(train.records)
        return Fitted(
            answer=lambda records: _all_alike(values_of(records).mean(axis=1), horizon),
            size_bytes=0,
            reads_records=True,
        )


class MovingAverage:
    """Answer the mean of the window's last values.

    Args:
        length: how many of them.
    """

    kinds = frozenset({TaskKind.REGRESSION})

    def __init__(self, length: int = 7) -> None:
        if length < 1:
            raise UserError(f"Expected `length` of a moving average, 1 or more, but got {length}.")
        self._length = length

    def fit(self, train: Split, horizon: int) -> Fitted:
        """Learn nothing.

        Raises:
            UserError: the window is shorter than that.
        """
        _check_length("moving_average", "length", self._length, values_of(train.records))

        def answer(records: Records) -> NDArray[np.float64]:
            return _all_alike(values_of(records)[:, -self._length :].mean(axis=1), horizon)

        return Fitted(answer=answer, size_bytes=0, reads_records=True)


class Drift:
    """Go on along the line from the window's first value to its last."""

    kinds = frozenset({TaskKind.REGRESSION})

    def fit(self, train: Split, horizon: int) -> Fitted:
        """Learn nothing.

        Raises:
            UserError: a window is one value, through which any line goes.
        """
        _check_length("drift", "a window", 2, values_of(train.records))

        def answer(records: Records) -> NDArray[np.float64]:
            values = values_of(records)
            slope = (values[:, -1:] - values[:, :1]) / (values.shape[1] - 1)
            return values[:, -1:] + slope * np.arange(1, horizon + 1)

        return Fitted(answer=answer, size_bytes=0, reads_records=True)


class SeasonalNaive:
    """Answer the value one season before; beyond a season, the same again.

    Args:
        season: in steps; None guesses it (see `guess_season`), and without one answers the last
            value.
    """

    kinds = frozenset({TaskKind.REGRESSION})

    def __init__(self, season: int | None = None) -> None:
        if season is not None and season < 1:
            raise UserError(f"Expected `season` in steps, 1 or more, but got {season}.")
        self._season = season

    def fit(self, train: Split, horizon: int) -> Fitted:
        """Guess the season's length, where it is not given.

        Raises:
            UserError: the window is shorter than a season.
        """
        season = self._season or guess_season(train)
        if self._season is not None:
            note = f"a season of {season} steps, as given"
        elif season > 1:
            note = f"a season of {season} steps, guessed"
        else:
            note = "no season found: the last value"
        log.info("seasonal naive: %s", note)
        _check_length("seasonal_naive", "season", season, values_of(train.records))
        back = _back(season, horizon)

        return Fitted(
            answer=lambda records: values_of(records)[:, back],
            size_bytes=back.nbytes,
            note=note,
            reads_records=True,
        )


class LinearForecast:
    """Weigh the window's values by least squares, each step of the horizon on its own.

    Windows are encoded as a student's are (see `tables.windows`), covariates left out: the linear
    model that beats many a deep one (Zeng et al., "Are Transformers Effective for Time Series
    Forecasting?", 2022).
    """

    kinds = frozenset({TaskKind.REGRESSION})

    def fit(self, train: Split, horizon: int) -> Fitted:
        """Fit on at most `MAX_LINEAR_WINDOWS`, evenly drawn."""
        rows = _some(len(values_of(train.records)), MAX_LINEAR_WINDOWS)
        assert train.records is not None
        records = train.records[rows]
        windows = fit_windows(records, horizon=horizon)
        encoded = windows(records).astype(np.float64)  # float32 would be ill-conditioned
        model = Ridge(alpha=1e-3).fit(encoded, windows.scaled(records, train.labels[rows]))

        def answer(records: Records) -> NDArray[np.float32]:
            outputs = np.asarray(model.predict(windows(records))).reshape(len(records), horizon)
            return windows.in_units(records, outputs)

        return Fitted(answer=answer, size_bytes=model.coef_.nbytes, reads_records=True)


def guess_season(train: Split) -> int:
    """Guess a season's length: the one whose forecast would have erred least in training.

    A season is a length that errs less than one step more and one step less; of those as good as
    the best, it is the shortest (24 hours, not 48). Every window weighs the same, whatever its
    units. Seasons longer than a window are not looked for: they could not be repeated.

    Returns:
        Steps; 1 where none errs less than the last value.
    """
    values = values_of(train.records)
    rows = _some(len(values), MAX_FIT_WINDOWS)
    labels, values = train.labels[rows].astype(np.float64), values[rows]
    spread = values.std(axis=1, keepdims=True)
    spread = np.where(spread > 0, spread, 1)
    window, horizon = values.shape[1], labels.shape[1]
    errors = [
        float((np.abs(values[:, _back(season, horizon)] - labels) / spread).mean())
        for season in range(1, window + 1)
    ]
    # One more than can be a season, where it tells whether the longest is one.
    beyond = np.abs(values[:, : horizon - 1] - labels[:, 1 : window + 1]) / spread
    errors.append(float(beyond.mean()) if beyond.size else -np.inf)
    own = np.array(errors)
    is_season = np.append(True, (own[1:-1] < own[:-2]) & (own[1:-1] <= own[2:]))
    best = own[:-1][is_season].min()
    enough = max(best * (1 + AS_GOOD), own[0] - MOST_OF_GAIN * (own[0] - best))
    return int(np.flatnonzero(is_season & (own[:-1] <= enough))[0]) + 1


def values_of(records: Records | None) -> NDArray[np.float64]:
    """Take the windows of the value out of records, [N, window].

    Raises:
        UserError: they are no windows of a series.
    """
    names = () if records is None else records.dtype.names or ()
    if records is None or not names or records[names[0]].ndim != 2:
        raise UserError(
            "Expected windows of a series for a forecast but got other data. Use `data=series`, or "
            "leave the forecasts out of `baselines`."
        )
    return records[names[0]]


def _some(length: int, most: int) -> NDArray[np.int64]:
    """Positions of at most so many windows, evenly drawn."""
    return np.linspace(0, length - 1, min(length, most)).astype(np.int64)


def _back(season: int, horizon: int) -> NDArray[np.int64]:
    """Where in a window, from its end, the value lies that each step repeats."""
    return np.arange(horizon) % season - season


def _all_alike(values: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
    return np.repeat(values[:, None], horizon, axis=1)


def _check_length(name: str, what: str, least: int, values: NDArray[np.float64]) -> None:
    if values.shape[1] < least:
        raise UserError(
            f"Expected windows of {least} values or more for the baseline `{name}` ({what} of "
            f"{least}) but `data.window` is {values.shape[1]}. Widen the window, or leave the "
            "baseline out of `baselines`."
        )
