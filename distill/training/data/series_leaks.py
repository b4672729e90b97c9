"""Covariates of a series that say in training what they will not say in use.

Named warnings, each with what was measured. Knows nothing of files.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from distill.tables.columns import Column, Kind
from distill.training.data.leaks import Leak, find_stops
from distill.training.data.panels import Panel

MAX_ROWS = 50_000  # of the search for copies; the first
NEAR_ONE = 0.98  # a correlation with the value some steps later, from which on it is a copy


def find_series_leaks(
    panel: Panel, future: Panel, *, observed: Sequence[str], known: Sequence[str], num_steps: int
) -> list[Leak]:
    """Look for covariates that would not help in use as they do here.

    Args:
        panel: the series.
        future: rows after their last values.
        observed: covariates known up to now.
        known: covariates known ahead.
        num_steps: how far ahead, and back, copies of the value are looked for.
    """
    found = []
    for name in known:
        found += _ends(panel, future, name)
    some = panel.take(np.arange(min(len(panel.times), MAX_ROWS)))
    for name in observed:
        found += _foresees(some, name, num_steps)
    return found


def _ends(panel: Panel, future: Panel, name: str) -> Iterator[Leak]:
    """Warn of a covariate that is said to be known ahead, and is not where the future begins."""
    values = panel.columns[name]
    column = Column(name=name, kind=Kind.NUMBER)
    varied = len(np.unique(values[~np.isnan(values)])) > 1
    ahead = future.columns[name]
    if len(ahead) and np.isnan(ahead).all():
        yield Leak(
            name="not_known_ahead",
            column=name,
            text=f"`{name}` is in `data.known` but is missing in all {len(ahead):,} rows after the "
            f"last `{panel.value}`. If it is not known ahead, move it to `data.observed`.",
        )
    elif len(ahead) > 1 and varied and (ahead == ahead[0]).all():
        yield Leak(
            name="not_known_ahead",
            column=name,
            text=f"`{name}` is in `data.known` but is always {ahead[0]:g} in the {len(ahead):,} "
            f"rows after the last `{panel.value}`, and varied before. If it is not known ahead, "
            "move it to `data.observed`.",
        )
    yield from find_stops(column, values, panel.times)


def _foresees(panel: Panel, name: str, num_steps: int) -> Iterator[Leak]:
    """Warn of an observed covariate that follows the value some steps later, and not before."""
    ahead = [_correlation(panel, name, step) for step in range(1, num_steps + 1)]
    back = [_correlation(panel, name, -step) for step in range(num_steps + 1)]
    best = max(ahead, default=0.0)
    # Of what repeats itself, a late copy resembles the next season too: the past must be worse.
    if best >= NEAR_ONE and 1 - best < (1 - max(back)) / 2:
        step = ahead.index(best) + 1
        yield Leak(
            name="future_value",
            column=name,
            text=f"`{name}` is in `data.observed` but follows `{panel.value}` {step} "
            f"step{'s' * (step > 1)} later (correlation {best:.3f}; at its own moment "
            f"{back[0]:.3f}). Is it known by then? If not, leave it out.",
        )


def _correlation(panel: Panel, name: str, step: int) -> float:
    """Correlate a covariate with the value `step` rows later, each less its series' mean."""
    length = len(panel.series) - abs(step)
    if length < 2:
        return 0.0
    now, then = (slice(max(0, -step), None), slice(max(0, step), None))
    own = panel.columns[name][now][:length]
    value = panel.columns[panel.value][then][:length]
    series = panel.series[now][:length]
    valid = (series == panel.series[then][:length]) & ~np.isnan(own) & ~np.isnan(value)
    if valid.sum() < 3:
        return 0.0
    own, value = (_centred(array[valid], series[valid]) for array in (own, value))
    size = float(np.sqrt((own @ own) * (value @ value)))
    return abs(float(own @ value)) / size if size else 0.0


def _centred(values: NDArray[np.float64], series: NDArray[np.int64]) -> NDArray[np.float64]:
    counts = np.maximum(np.bincount(series), 1)
    return values - (np.bincount(series, weights=values) / counts)[series]
