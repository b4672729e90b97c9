"""How a model that stands still wears out: how good it is by age, half-life, the day it is beaten.

Shares right fall with age and errors rise: an error counts as its negative, which falls, too. Knows
arrays alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

NUM_RESAMPLES, NUM_LIVES = 400, 300
SHAPES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # below 1 it slows down, above it speeds up
MAX_LIFE = 1e4  # times the span that was seen: as good as for ever
MIN_WINDOWS = 4


@dataclass(frozen=True, kw_only=True)
class Window:
    """What was seen of a model at an age.

    Attributes:
        age_days: the middle of the window, since the model's first day.
        estimate: how good it was: a share right, or an error.
        interval: at 95 %.
        count: of labelled rows.
    """

    age_days: float
    estimate: float
    interval: tuple[float, float]
    count: int


@dataclass(frozen=True, kw_only=True)
class Decay:
    """A curve through windows: floor + (start - floor) * 2 ** -((age / half_life) ** shape).

    Attributes:
        floor: what is left of a model that knows nothing any more; of errors how large they get.
        start: how good it is on the first day.
        shape: of the curve (Weibull's): 1 halves what is left in equal times, 2 wears out faster
            the older it is.
        half_life_days: until half of what it knows above the floor is gone; None if it does not
            wear out as far as can be seen.
        half_life_interval: at 95 %; an end without bound is None.
        crossing_day: from which on the baseline is better; None if never, or not within `MAX_LIFE`.
        crossing_interval: at 95 %; None for an end that never comes.
    """

    floor: float
    start: float
    shape: float
    half_life_days: float | None
    half_life_interval: tuple[float | None, float | None]
    crossing_day: float | None
    crossing_interval: tuple[float | None, float | None]

    def at(self, age_days: float) -> float:
        """The curve."""
        if self.half_life_days is None:
            return self.start
        left = 2 ** -((age_days / self.half_life_days) ** self.shape)
        return self.floor + (self.start - self.floor) * left


def fit_decay(
    windows: Sequence[Window],
    *,
    floor: float,
    baseline: float | None = None,
    is_error: bool = False,
    seed: int = 0,
) -> Decay | None:
    """Fit the curve by least squares, weighted; intervals by resampling the windows' labels.

    Args:
        windows: labelled rows by age.
        floor: how good knowing nothing is, such as the share of the commonest class.
        baseline: how good that is which the model must beat.
        is_error: whether less is better.
        seed: of the resamples.

    Returns:
        None where there are fewer than `MIN_WINDOWS` windows.
    """
    windows = [own for own in windows if np.isfinite(own.interval).all()]
    if len(windows) < MIN_WINDOWS:
        return None
    ages = np.array([w.age_days for w in windows])
    sign = -1 if is_error else 1
    values = sign * np.array([w.estimate for w in windows])
    drawn, spread = (_errors if is_error else _shares)(windows, np.random.default_rng(seed))
    fitted = _fitted(
        ages,
        np.vstack([values[None], sign * drawn]),
        spread**-2,
        floor=sign * floor,
        top=0 if is_error else 1,
    )
    starts, lives, shapes = fitted
    beaten = None if baseline is None else sign * baseline
    days = _crossings(*fitted, floor=sign * floor, baseline=beaten)
    return Decay(
        floor=floor,
        start=sign * float(starts[0]),
        shape=float(shapes[0]),
        half_life_days=_finite(lives[0]),
        half_life_interval=_interval(lives[1:]),
        crossing_day=_finite(days[0]),
        crossing_interval=_interval(days[1:]),
    )


def _shares(windows: Sequence[Window], rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Draw shares right again, [S, windows], and tell how far each is off, [windows].

    A row that is right in part varies less than one that is right or wrong.
    """
    counts = np.array([w.count for w in windows])
    right = np.array([w.estimate for w in windows]) * counts
    # One more right and wrong in each window: a window that is all right is not known to stay so.
    chances = (right + 1) / (counts + 2)
    drawn = rng.binomial(counts, chances, (NUM_RESAMPLES, len(windows))) / counts
    return drawn, np.sqrt(chances * (1 - chances) / counts)


def _errors(windows: Sequence[Window], rng: np.random.Generator) -> tuple[Numbers, Numbers]:
    """Likewise of errors, as wide as their intervals; of few rows these are too narrow."""
    values = np.array([w.estimate for w in windows])
    spread = np.array([(w.interval[1] - w.interval[0]) / 2 / 1.96 for w in windows])
    # That of normal errors is 0.7 of their size by the root of their number.
    least = 0.5 * values / np.sqrt([w.count for w in windows])
    spread = np.maximum(spread, np.maximum(least, 1e-12))
    return np.maximum(rng.normal(values, spread, (NUM_RESAMPLES, len(windows))), 0), spread


def _fitted(
    ages: Numbers, values: Numbers, weights: Numbers, *, floor: float, top: float
) -> tuple[Numbers, Numbers, Numbers]:
    """Start, half-life and shape of each row of values, [S, windows]: the best on a grid."""
    lives = max(float(ages.max()), 1e-9) * np.geomspace(3e-2, MAX_LIFE, NUM_LIVES)
    lives[-1] = np.inf
    lives, shapes = (g.ravel() for g in np.meshgrid(lives, SHAPES))
    left = 2.0 ** -((ages / lives[:, None]) ** shapes[:, None])  # [grid, windows]
    squares = (left**2) @ weights
    products = ((values - floor) * weights) @ left.T  # [S, grid]
    starts = np.clip(products / np.maximum(squares, 1e-12), 0, top - floor)
    # The sum of weight * (value - start * left)^2, less what is the same for all.
    best = (starts**2 * squares - 2 * starts * products).argmin(axis=1)
    return floor + starts[np.arange(len(values)), best], lives[best], shapes[best]


def _crossings(
    starts: Numbers, lives: Numbers, shapes: Numbers, *, floor: float, baseline: float | None
) -> Numbers:
    if baseline is None:
        return np.full(len(starts), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        halvings = np.log2((starts - floor) / max(baseline - floor, 0.0))
        days = lives * np.maximum(halvings, 0) ** (1 / shapes)
    days = np.where(np.isinf(lives), np.inf, days)
    return np.where(starts <= baseline, 0.0, days)


def _interval(values: Numbers) -> tuple[float | None, float | None]:
    low, high = np.quantile(values, [0.025, 0.975], method="nearest")
    return _finite(float(low)), _finite(float(high))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
