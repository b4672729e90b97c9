"""Does a percentile of the latency hold its limit? Binomial, three outcomes, several looks.

Of n calls t are over the limit. If the limit were exactly the level-p percentile, t would be
binomial with a share of 1 - p; far fewer is a pass, far more a fail, anything else inconclusive.
Three things make a naive count wrong, and are corrected here: neighbouring calls are slow together
(an effective number of calls), so are the calls of one process (processes are clusters), and
looking again after more calls gives chance another try (the error is spent over the looks).

Standard library and numpy, Python 3.9 syntax: it decides on the device when to stop.
"""

import math
from typing import List, NamedTuple, Optional, Sequence

import numpy as np

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
NUM_SLOWEST = 30


class Gate(NamedTuple):
    """What the calls say about one limit.

    Attributes:
        outcome: pass, fail or inconclusive.
        num_calls: looked at.
        num_over: of them, over the limit.
        design_effect: how many correlated calls are worth one independent one.
        num_looks: taken until then.
        calls_needed: for a pass if no call were over the limit; None once it is decided.
    """

    outcome: str
    num_calls: int
    num_over: int
    design_effect: float
    num_looks: int
    calls_needed: Optional[int]


def judge(
    processes: Sequence[np.ndarray],
    limit_ns: float,
    level: float,
    confidence: float,
    first_look: int,
) -> Gate:
    """Decide at looks after `first_look` processes, twice as many, and so on, and at the end.

    The error of look k is (1 - confidence) / (k (k + 1)); over all looks it stays below
    1 - confidence, for a wrong pass and for a wrong fail alike (Bonferroni).

    Args:
        processes: nanoseconds of each measuring process, [rounds, calls], in the order of time.
        limit_ns: the limit.
        level: of the percentile, e.g. 95.
        confidence: of the verdict.
        first_look: number of processes before the first decision.
    """
    looks, at = [], first_look
    while at < len(processes):
        looks.append(at)
        at *= 2
    looks.append(len(processes))
    gate = None
    for number, count in enumerate(looks, start=1):
        error = (1 - confidence) / (number * (number + 1))
        gate = _look(processes[:count], limit_ns, level, error, number)
        if gate.outcome != INCONCLUSIVE:
            return gate
    assert gate is not None
    return gate


def _look(
    processes: Sequence[np.ndarray], limit_ns: float, level: float, error: float, number: int
) -> Gate:
    calls = np.concatenate([taken.ravel() for taken in processes])
    over = calls > limit_ns
    n, t = len(calls), int(over.sum())
    share = 1 - level / 100
    # How calls over the limit cluster; where they are too few to tell, how the slowest ones do.
    threshold = min(limit_ns, float(np.sort(calls)[-min(n, NUM_SLOWEST + 1)]))
    effect = design_effect([taken > threshold for taken in processes])
    outcome = INCONCLUSIVE
    if binomial_at_most(t / effect, n / effect, share) <= error:
        outcome = PASS
    elif binomial_at_least(t / effect, n / effect, share) <= error:
        outcome = FAIL
    needed = None
    if outcome == INCONCLUSIVE:
        next_error = error * number / (number + 2)  # more calls mean another look
        needed = math.ceil(effect * math.log(next_error) / math.log(1 - share))
    return Gate(outcome, n, t, effect, number, needed)


def design_effect(processes: Sequence[np.ndarray]) -> float:
    """Estimate by how much correlation inflates the variance of a share.

    Batch means (Schmeiser, "Batch size effects in the analysis of simulation output", 1982) at
    doubling block lengths, up to whole processes; the largest of them counts, so that a wrong
    guess errs towards more calls.

    Args:
        processes: booleans of each process, [rounds, calls], in the order of time.

    Returns:
        At least 1; 1 where all calls are alike.
    """
    flat = [np.asarray(taken).ravel() for taken in processes]
    share = float(np.concatenate(flat).mean())
    binomial = share * (1 - share)
    if binomial == 0:
        return 1.0
    shortest, largest = min(map(len, flat)), 1.0
    lengths: List[int] = []
    length = 10
    while length < shortest:
        lengths.append(length)
        length *= 2
    for length in [*lengths, shortest]:
        means = np.concatenate([_block_means(taken, length) for taken in flat])
        if len(means) >= 4:
            # Two standard errors of the variance on top: few blocks tell it badly.
            slack = 1 + 2 * math.sqrt(2 / (len(means) - 1))
            largest = max(largest, slack * length * float(means.var(ddof=1)) / binomial)
    return largest


def _block_means(values: np.ndarray, length: int) -> np.ndarray:
    count = len(values) // length
    return values[: count * length].reshape(count, length).mean(axis=1)


def binomial_at_most(t: float, n: float, share: float) -> float:
    """P(X <= t) of a binomial with n trials, continued to numbers that are not whole."""
    if t >= n:
        return 1.0
    return incomplete_beta(n - t, t + 1, 1 - share)


def binomial_at_least(t: float, n: float, share: float) -> float:
    """P(X >= t), likewise."""
    if t <= 0:
        return 1.0
    return incomplete_beta(t, n - t + 1, share)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b), for a, b > 0.

    Its continued fraction (DLMF 8.17.22), evaluated by the modified Lentz method.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, mirror it
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front += a * math.log(x) + b * math.log1p(-x) - math.log(a)
    tiny = 1e-300
    fraction, c, d = 1.0, 1.0, 0.0
    for i in range(2000):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _away_from_zero(1 + term * d, tiny)
        c = _away_from_zero(1 + term / c, tiny)
        fraction *= c * d
        if abs(1 - c * d) < 1e-12:
            break
    return math.exp(log_front) * (fraction - 1)


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
