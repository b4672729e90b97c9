"""The gate on synthetic latencies: how often it is wrong, and how many calls it takes.

The streams have what real ones have: correlation over calls as measured on a real model (lag 1
0.7, lag 10 0.3, lag 50 0.14), processes that differ, and bursts of outliers without a variance.
"""

import math

import numpy as np
from common import check
from scipy.signal import lfilter
from scipy.stats import binomtest

from distill.deployment.device.gate import binomial_at_most, judge

PROCESSES, ROUNDS, CALLS = 5, 60, 10
LOOKS = (5, 10, 20)
SCALES = ((0.43, 4), (0.30, 25), (0.10, 300))  # weight, correlation length in calls
CONFIDENCE = 0.95
NEAR, FAR = (0.999, 1.001), (0.9, 1.1, 1.5)  # limits, as multiples of the true percentile


def stream(rng: np.random.Generator, kind: str, processes: int) -> list[np.ndarray]:
    """Draw latencies of some processes, [rounds, calls] each."""
    size, taken = ROUNDS * CALLS, []
    for _ in range(processes):
        z = rng.normal(size=size)
        if kind != "independent":
            z *= math.sqrt(1 - sum(weight for weight, _ in SCALES))
            for weight, length in SCALES:
                phi = math.exp(-1 / length)
                noise = rng.normal(size=size) * math.sqrt(1 - phi**2)
                start = [phi * rng.normal()]
                z += math.sqrt(weight) * lfilter([1], [1, -phi], noise, zi=start)[0]
            z += 0.2 * rng.normal()  # of the process
        latency = np.exp(0.1 * z)
        if kind == "heavy tails":
            burst = rng.random(size) < 0.004
            burst |= np.roll(burst, 1) | np.roll(burst, 2)
            latency *= np.where(burst, 1 + rng.pareto(1.5, size), 1)
        taken.append(latency.reshape(ROUNDS, CALLS))
    return taken


def rows(num_trials: int) -> tuple[list[dict], list[dict]]:
    """Judge streams against limits beside and away from their true percentile."""
    found, checks = [], []
    for kind in ("independent", "correlated", "heavy tails"):
        truth = np.concatenate(
            [taken.ravel() for taken in stream(np.random.default_rng(1), kind, 2000)]
        )
        for level in (50, 95, 99):
            percentile = float(np.percentile(truth, level))
            for multiple in (*NEAR, *FAR):
                near = multiple in NEAR
                trials = num_trials if near else num_trials // 4  # the others are not close
                row = _judged(kind, level, percentile, multiple, trials)
                found.append(row)
                if near:
                    checks.append(_wrong(row, trials))
    return found, checks


def _judged(kind: str, level: float, percentile: float, multiple: float, trials: int) -> dict:
    outcomes = {"pass": 0, "fail": 0, "inconclusive": 0}
    naive = dict(outcomes)
    calls = 0
    for trial in range(trials):
        rng = np.random.default_rng([trial, int(level), int(1000 * multiple)])
        taken = stream(rng, kind, LOOKS[-1])
        for count in LOOKS:
            gate = judge(taken[:count], multiple * percentile, level, CONFIDENCE, LOOKS[0])
            if gate.outcome != "inconclusive":
                break
        outcomes[gate.outcome] += 1
        calls += gate.num_calls
        naive[_fixed(taken, multiple * percentile, level)] += 1
    return {
        "subject": f"gate, {kind}, p{level}, limit {multiple} of the truth",
        "limit_over_truth": multiple,
        "trials": trials,
        "outcomes": outcomes,
        "mean_calls": calls / trials,
        "fixed_n_outcomes": naive,
        "fixed_n_calls": LOOKS[-1] * ROUNDS * CALLS,
    }


def _fixed(taken: list[np.ndarray], limit: float, level: float) -> str:
    """Judge once, after all calls, as if they were independent: the rule of MLPerf's loadgen."""
    calls = np.concatenate([part.ravel() for part in taken])
    over, share = int((calls > limit).sum()), 1 - level / 100
    if binomial_at_most(over, len(calls), share) <= 1 - CONFIDENCE:
        return "pass"
    at_least = 1 - binomial_at_most(over - 1, len(calls), share) if over else 1.0
    return "fail" if at_least <= 1 - CONFIDENCE else "inconclusive"


def _wrong(row: dict, trials: int) -> dict:
    """Hold wrong verdicts against 5 %: more than that only if it is not chance."""
    side = "pass" if row["limit_over_truth"] < 1 else "fail"
    count = row["outcomes"][side]
    by_chance = binomtest(count, trials, 1 - CONFIDENCE, alternative="greater").pvalue
    held = check(f"{row['subject']}: wrong verdicts", count / trials, 0.05, at_most=True)
    return held | {"holds": bool(by_chance > 0.05), "p_value": float(by_chance)}
