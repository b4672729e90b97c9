"""How often an unchanged world is called changed: weeks of it, looked at as `monitor` does."""

from pathlib import Path

import numpy as np
from common import check
from scipy import stats

from distill.production.monitoring.comparison import Feature, compare

NUM_WEEKS, RATE, NUM_REFERENCES = 1000, 0.05, 50
NUM_REFERENCE, NUM_ROWS, NUM_FEATURES, NUM_CLASSES = 1000, 1500, 12, 5


def _world(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features that hang together, [n, F], and logits, [n, C]."""
    common = rng.normal(size=(count, 1))
    features = rng.normal(size=(count, NUM_FEATURES)) + 0.7 * common
    features[:, ::3] = np.exp(features[:, ::3])  # some of them skewed
    logits = features[:, :NUM_CLASSES] + rng.normal(size=(count, NUM_CLASSES))
    return features, logits


def rows(work: Path, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Count weeks with an alarm, also by the customary limit of PSI, as the control."""
    weeks, rng = 40 if quick else NUM_WEEKS, np.random.default_rng(3)
    alarms = by_custom = by_each = 0
    per = max(weeks // NUM_REFERENCES, 1)
    for week in range(weeks):
        if week % per == 0:
            features, logits = _world(rng, NUM_REFERENCE)
            edges = [np.quantile(column, np.arange(1, 10) / 10) for column in features.T]
            before = [
                np.bincount(np.searchsorted(edge, column), minlength=10)
                for edge, column in zip(edges, features.T, strict=True)
            ]
        now, answers = _world(rng, NUM_ROWS)
        counted = [
            Feature(
                name=f"feature {number}",
                group="input",
                statistic="ks",
                reference=reference,
                bins=np.searchsorted(edge, column),
            )
            for number, (reference, edge, column) in enumerate(
                zip(before, edges, now.T, strict=True)
            )
        ]
        found = compare(counted, [("answers", logits, answers)], rate=RATE, seed=week)
        alarms += any(one.stands_out for one in found)
        by_each += any(one.p_value <= RATE for one in found)
        by_custom += any((one.psi or 0) > 0.1 for one in found)
    row = {
        "num_weeks": weeks,
        "num_tests": NUM_FEATURES + 2,
        "alarms": alarms / weeks,
        "alarms, each test at 5 % by itself": by_each / weeks,
        "alarms, PSI above 0.1": by_custom / weeks,
    }
    # What chance adds to the stated rate in one of a hundred such simulations.
    limit = float(stats.binom.isf(0.01, weeks, RATE)) / weeks
    return [row], [check("weeks with an alarm", alarms / weeks, limit, at_most=True)]
