"""Series made by a formula, for trying things out: nobody measured them.

Knows nothing of training.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.errors import UsageError, nearest
from distill.tables.encoding import DAY_MS
from distill.training.data.pools import SeriesChoice
from distill.training.data.series import SeriesData, series_of

START = np.datetime64("2020-01-06", "ms").astype(np.int64)  # a Monday
HOUR_MS = DAY_MS // 24
CALM = 0.3  # of the short season's amplitude is left at weekends


def generated_series(
    *,
    length: int = 1500,
    num_series: int = 4,
    kind: str = "seasonal",
    frequency: str = "hourly",
    noise: float = 0.3,
    seed: int = 0,
    **choice: Any,
) -> SeriesData:
    """Generate series; they are of no use but to try things out on.

    `seasonal` is, for each series with figures of its own, trend + daily season + weekly season +
    level shift + noise; of daily data weekly and yearly season. `random_walk` adds up normal
    steps: by construction nothing forecasts it better than its last value.

    Args:
        length: steps of each series.
        num_series: how many.
        kind: `seasonal` or `random_walk`.
        frequency: `hourly` or `daily`.
        noise: standard deviation, where the first season's amplitude is about 1.
        seed: of all that is drawn.
        choice: see `pools.SeriesChoice`; `time`, `value` and `series` are there already.

    Raises:
        UsageError: the kind or the frequency is unknown.
    """
    kinds: dict[str, Callable[..., NDArray[np.float64]]] = {
        "seasonal": _seasonal,
        "random_walk": _random_walk,
    }
    frequencies = {"hourly": (HOUR_MS, (24, 168)), "daily": (DAY_MS, (7, 365.25))}
    for name, own, known in (("kind", kind, kinds), ("frequency", frequency, frequencies)):
        if own not in known:
            raise UsageError(
                f"Expected `data.{name}` of a generated series to be one of {', '.join(known)} but "
                f"got {own}. {nearest(own, known)}"
            )
    step, seasons = frequencies[frequency]
    rng = np.random.default_rng(seed)
    values = [kinds[kind](rng, length, seasons, noise) for _ in range(num_series)]
    times = pa.array(np.tile(START + step * np.arange(length), num_series), pa.timestamp("ms"))
    names = np.repeat([f"generated {number}" for number in range(num_series)], length)
    weekend = np.tile(is_weekend(np.arange(length), seasons), num_series).astype(np.float64)
    table = pa.table(
        {"time": times, "series": names, "value": np.concatenate(values), "weekend": weekend}
    )
    return series_of(
        table,
        f"generated {kind.replace('_', ' ')}",
        SeriesChoice(time="time", value="value", series="series", **choice),
    )


def is_weekend(time: NDArray[np.int64], seasons: tuple[float, float]) -> NDArray[np.bool_]:
    """Tell which steps are in the last two sevenths of the long season; it begins on a Monday."""
    return time % seasons[1] >= seasons[1] * 5 / 7


def _seasonal(
    rng: np.random.Generator, length: int, seasons: tuple[float, float], noise: float
) -> NDArray[np.float64]:
    """Trend, two seasons, a level shift somewhere in the middle, and noise."""
    time = np.arange(length)
    phases = rng.uniform(0, 2 * np.pi, 3)
    short, long = (2 * np.pi * time / season for season in seasons)
    season = np.sin(short + phases[0]) + 0.4 * np.sin(2 * short + phases[1])
    season *= np.where(is_weekend(time, seasons), CALM, 1)
    season += 0.5 * np.sin(long + phases[2])
    trend = rng.uniform(-1, 2) * time / length
    shift = rng.choice([-1, 1]) * rng.uniform(1, 2) * (time >= length * rng.uniform(0.3, 0.6))
    return 10 + trend + rng.uniform(0.8, 1.2) * season + shift + rng.normal(0, noise, length)


def _random_walk(
    rng: np.random.Generator, length: int, seasons: tuple[float, float], noise: float
) -> NDArray[np.float64]:
    return 10 + np.cumsum(rng.normal(0, noise, length))
