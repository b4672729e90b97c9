"""Latencies to figures with intervals, from raw nanoseconds of several measuring processes.

A process is the unit that repeats: two processes of one program differ by where memory happens to
lie (Kalibera & Jones, "Rigorous benchmarking in reasonable time", 2013). Knows no files, no limits.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from distill.statistics.metrics import Estimate

BLOCK_ROUNDS = 5  # latencies are correlated over about 50 calls
NUM_RESAMPLES = 400

Processes = Sequence[NDArray[np.int64]]  # nanoseconds of each process, [rounds, calls]


def percentiles(
    processes: Processes, levels: Sequence[float], confidence: float, *, seed: int = 0
) -> list[Estimate]:
    """Estimate percentiles of correlated latencies, in nanoseconds.

    Two-stage bootstrap: processes, then circular blocks of rounds within them (Politis & Romano,
    1992); resampling single calls would pretend that they are independent and halve the width.
    With few processes a bootstrap is too narrow: its deviations are widened by
    sqrt(k / (k - 1)) t / z (Hesterberg, "What teachers should know about the bootstrap", 2015).

    Args:
        processes: at least one.
        levels: e.g. [50, 95, 99].
        confidence: of the intervals.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    draws = np.array(
        [np.percentile(_resampled(processes, rng), levels) for _ in range(NUM_RESAMPLES)]
    )
    found = np.percentile(_pooled(processes), levels)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
    widening = _widening(len(processes), confidence)
    return [
        Estimate(
            estimate=float(value),
            interval=(
                float(max(0.0, value - widening * (value - min(below, value)))),
                float(value + widening * (max(above, value) - value)),
            ),
        )
        for value, below, above in zip(found, low, high, strict=True)
    ]


def median_ratio(own: Processes, reference: Processes, confidence: float) -> Estimate:
    """Estimate how many times slower than a reference that ran in the same rounds.

    In each process the median of the rounds' own ratios; over processes Student's t of its
    logarithm. One process alone has no interval but [0, inf].
    """
    logs = [
        float(np.log(np.median(np.median(mine, axis=1) / np.median(theirs, axis=1))))
        for mine, theirs in zip(own, reference, strict=True)
    ]
    low, high = _t_interval(logs, confidence)
    return Estimate(
        estimate=float(np.exp(np.mean(logs))), interval=(float(np.exp(low)), float(np.exp(high)))
    )


def throughput(processes: Processes, batch_size: int, confidence: float) -> Estimate:
    """Estimate samples a second of calls one after the other; Student's t over processes."""
    rates = [batch_size * 1e9 / float(taken.mean()) for taken in processes]
    low, high = _t_interval(rates, confidence)
    return Estimate(estimate=float(np.mean(rates)), interval=(max(0.0, low), high))


def is_difference(ratio: Estimate, noise_floor: Estimate) -> bool:
    """Tell whether a ratio shows a difference: its interval excludes 1, and it is no noise.

    Noise is what the reference differs from itself by in the same run (A/A).
    """
    low, high = ratio.interval
    floor_low, floor_high = noise_floor.interval
    return not low <= 1 <= high and not floor_low <= ratio.estimate <= floor_high


def median_of_few(values: Sequence[float], confidence: float) -> Estimate:
    """Median with the range as its interval (David & Nagaraja, "Order Statistics", 2003).

    The range of n values covers the median with 1 - 2^(1 - n); where that is less than asked,
    nothing does, and the interval has no bounds.
    """
    covers = 1 - 2.0 ** (1 - len(values)) >= confidence
    interval = (min(values), max(values)) if covers else (0.0, np.inf)
    return Estimate(estimate=float(np.median(values)), interval=interval)


def _pooled(processes: Processes) -> NDArray[np.int64]:
    return np.concatenate([taken.ravel() for taken in processes])


def _resampled(processes: Processes, rng: np.random.Generator) -> NDArray[np.int64]:
    picked = []
    for index in rng.integers(0, len(processes), len(processes)):
        taken = processes[index]
        rounds = len(taken)
        block = min(BLOCK_ROUNDS, rounds)
        starts = rng.integers(0, rounds, -(-rounds // block))
        order = (starts[:, None] + np.arange(block)).ravel()[:rounds] % rounds
        picked.append(taken[order].ravel())
    return np.concatenate(picked)


def _widening(count: int, confidence: float) -> float:
    if count < 2:
        return 1.0
    level = (1 + confidence) / 2
    return float(
        np.sqrt(count / (count - 1)) * stats.t.ppf(level, count - 1) / stats.norm.ppf(level)
    )


def _t_interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    if len(values) < 2:
        return -np.inf, np.inf
    spread = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * spread
    return float(np.mean(values)) - half, float(np.mean(values)) + half
