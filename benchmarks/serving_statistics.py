"""Do decisions survive being looked at after every observation? Simulated, and held against ville.

Worlds in which nothing differs (drifting, rare, skewed, one in ten) count false alarms of our
statistics and, as the control, of a z-test that peeks; worlds in which something does show how soon
it is told.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from common import check
from numpy.typing import NDArray
from scipy import stats

from distill.statistics.sequential import (
    MIN_EVENTS,
    MIN_UNITS,
    TUNED_AT,
    half_width,
    log_e_value,
    squared_error,
)

ALPHA, RATIO_ALPHA = 0.05, 0.01
NUM_EXPERIMENTS, NUM_UNITS, AT_ONCE = 2000, 20_000, 50

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class World:
    """Units that come one after another, each in an arm, each with an outcome.

    Attributes:
        name: for the table.
        draw: outcomes of the control and of the challenger, had each met all: two of [K, N].
        share: of the units that meet the challenger.
        is_event: whether outcomes are events, which exact counts can weigh.
        differs: whether there is something to tell.
    """

    name: str
    draw: Callable[[np.random.Generator, tuple[int, int]], tuple[Values, Values]]
    share: float = 0.5
    is_event: bool = True
    differs: bool = False


def events(rate: float, other: float | None = None) -> Callable:
    """Events at one rate, and at another with the challenger."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Values, Values]:
        luck = rng.random(shape)
        return (luck < rate) * 1.0, (luck < (rate if other is None else other)) * 1.0

    return draw


def drifting(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Values, Values]:
    """Events whose rate goes from 2 % to 20 % and back, and up for good in the middle."""
    at = np.arange(shape[1]) / shape[1]
    rate = 0.02 + 0.09 * (1 - np.cos(6 * np.pi * at)) + 0.1 * (at > 0.5)
    happened = (rng.random(shape) < rate) * 1.0
    return happened, happened


def skewed(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Values, Values]:
    """Revenue: lognormal, sigma 1.5."""
    values = rng.lognormal(0, 1.5, shape)
    return values, values


WORLDS = (
    World(name="a tenth", draw=events(0.1)),
    World(name="drifting", draw=drifting),
    World(name="rare, 0.2 %", draw=events(0.002)),
    World(name="10:90", draw=events(0.1), share=0.1),
    World(name="10:90, rare 0.5 %", draw=events(0.005), share=0.1),
    World(name="10:90, drifting", draw=drifting, share=0.1),
    World(name="skewed revenue", draw=skewed, is_event=False),
    World(name="skewed revenue, 10:90", draw=skewed, share=0.1, is_event=False),
    World(name="10 % to 11.5 %", draw=events(0.1, 0.115), differs=True),
    World(name="10 % to 12 %", draw=events(0.1, 0.12), differs=True),
    World(name="90 % to 92 %", draw=events(0.9, 0.92), differs=True),
    World(name="10:90, errors 1 % to 5 %", draw=events(0.01, 0.05), share=0.1, differs=True),
    World(name="10:90, errors 1 % to 2 %", draw=events(0.01, 0.02), share=0.1, differs=True),
)


def rows(*, quick: bool) -> tuple[list[dict], list[dict]]:
    """Simulate all worlds, and pairs; return rows and checks."""
    count = 100 if quick else NUM_EXPERIMENTS
    found = [_row(world, count) for world in WORLDS] + [_pairs(count)]
    checks = [
        check(
            f"{row['world']}: false alarms, {method}",
            share,
            _limit(count, RATIO_ALPHA if method == "sample ratio" else ALPHA),
            at_most=True,
        )
        for row in found
        if not row["differs"]
        for method, share in row["alarms"].items()
        if method != "peeked z-test"
    ]
    return found, checks + _against_ville()


def _limit(count: int, alpha: float) -> float:
    """Alpha, and what chance adds to it in one of a hundred such simulations."""
    return float(stats.binom.isf(0.01, count, alpha)) / count


def _row(world: World, count: int) -> dict:
    rng = np.random.default_rng(7)
    firsts: dict[str, list[NDArray[np.int64]]] = {}
    for size in _sizes(count):
        shape = (size, NUM_UNITS)
        control, treated = world.draw(rng, shape)
        challenged = rng.random(shape) < world.share
        for method, alarms in _alarms(world, np.where(challenged, treated, control), challenged):
            first = np.where(alarms.any(axis=1), alarms.argmax(axis=1), NUM_UNITS)
            firsts.setdefault(method, []).append(first)
    return _summary(world.name, world.differs, firsts, count)


def _summary(name: str, differs: bool, firsts: dict, count: int) -> dict:
    shares, medians = {}, {}
    for method, parts in firsts.items():
        first = np.concatenate(parts)
        shares[method] = float((first < NUM_UNITS).mean())
        median = float(np.median(first))
        medians[method] = int(median) + 1 if median < NUM_UNITS else None
    return {
        "world": name,
        "differs": differs,
        "num_experiments": count,
        "num_units": NUM_UNITS,
        "alarms": shares,
        "median_units": medians,
    }


def _sizes(count: int) -> Iterator[int]:
    for start in range(0, count, AT_ONCE):
        yield min(AT_ONCE, count - start)


def _alarms(world: World, outcome: Values, challenged: NDArray[np.bool_]) -> Iterator:
    """Whether each method alarms after each unit, [K, N]."""
    number = np.arange(1, outcome.shape[1] + 1)
    counts = np.stack([challenged.cumsum(axis=1), (~challenged).cumsum(axis=1)])
    sums = np.stack([(outcome * challenged).cumsum(axis=1), (outcome * ~challenged).cumsum(axis=1)])
    squares = outcome**2
    seconds = np.stack(
        [(squares * challenged).cumsum(axis=1), (squares * ~challenged).cumsum(axis=1)]
    )
    safe = np.maximum(counts, 2)
    means = sums / safe
    variances = np.maximum(seconds - safe * means**2, 0) / (safe - 1)
    squared = squared_error(safe, variances)
    difference = np.abs(means[0] - means[1])
    enough = (counts >= MIN_UNITS).all(axis=0)
    if world.is_event:
        enough &= (np.minimum(sums, counts - sums) >= MIN_EVENTS).all(axis=0)
    half = half_width(number, number * squared, alpha=ALPHA, tuned_at=TUNED_AT)
    yield "confidence sequence", enough & (difference > half)
    yield "peeked z-test", enough & (difference > 1.96 * np.sqrt((variances / safe).sum(axis=0)))
    if world.is_event:
        limit = math.log(1 / ALPHA)
        yield "exact counts", log_e_value(sums[0], sums[1], share=world.share) >= limit
        harm = log_e_value(sums[0], sums[1], share=world.share, harm_only=True)
        yield "exact counts, harm", harm >= limit
    yield (
        "sample ratio",
        log_e_value(counts[0], counts[1], share=world.share) >= math.log(1 / RATIO_ALPHA),
    )


def _pairs(count: int) -> dict:
    """Pairs of a shadow, of two models that are alike, wrong in a tenth with 80 % in common."""
    rng = np.random.default_rng(8)
    firsts = []
    for size in _sizes(count):
        luck = rng.random((size, NUM_UNITS))
        wins, losses = (luck < 0.02).cumsum(axis=1), (luck > 0.98).cumsum(axis=1)
        alarms = log_e_value(wins, losses) >= math.log(1 / ALPHA)
        firsts.append(np.where(alarms.any(axis=1), alarms.argmax(axis=1), NUM_UNITS))
    return _summary("pairs, alike", False, {"pairs": firsts}, count)


def _against_ville() -> list[dict]:
    """Hold both of our statistics against the library's, on a stream each."""
    from ville import AsymptoticCS, BernoulliTest

    rng = np.random.default_rng(9)
    happened, normal = rng.random(5000) < 0.13, rng.normal(size=5000)
    theirs = BernoulliTest(0.1, prior=(2.0, 18.0)).update(happened * 1.0).log_e_values_
    ours = log_e_value(happened.cumsum(), (~happened).cumsum(), share=0.1)
    sequence = AsymptoticCS(alpha=ALPHA, t_opt=TUNED_AT).update(normal)
    at = np.arange(2, 5001)
    variance = np.array([normal[:n].var(ddof=1) for n in at])
    half = half_width(at, variance, alpha=ALPHA, tuned_at=TUNED_AT)
    width = (sequence.upper_ - sequence.lower_)[1:] / 2
    ratio = np.abs(half / width - 1)[MIN_UNITS:].max()
    return [
        check(
            "log e-values of counts: largest difference from ville",
            float(np.abs(theirs - ours).max()),
            1e-6,
            at_most=True,
        ),
        check("half widths of means: share off ville's", float(ratio), 0.02, at_most=True),
    ]
