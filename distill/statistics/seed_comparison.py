"""Two ways of training over several seeds: would other seeds say the same, and other samples?

Knows nothing of models or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from distill.statistics.metrics import Array, Interval
from distill.statistics.scoring import Paired, Scoring


@dataclass(frozen=True, kw_only=True)
class SeedComparison:
    """Two ways of training over the same seeds; above 0 the first is better.

    Attributes:
        estimate: mean gain over the seeds, see `Scoring.compare`.
        seed_interval: Student's t over the seeds' differences: would other seeds say the same?
        seed_p_value: paired t-test over the seeds; None for a single seed.
        sample_interval: over the test samples, each one's marks pooled over the seeds:
            would other samples say the same?
        num_seeds: trained with each.
        num_samples: of the test set.
    """

    estimate: float
    seed_interval: Interval | None
    seed_p_value: float | None
    sample_interval: Interval
    num_seeds: int
    num_samples: int


def compare_over_seeds(
    scoring: Scoring,
    first: Sequence[Array],
    second: Sequence[Array],
    *,
    blocks: Array | None = None,
    confidence: float = 0.95,
) -> SeedComparison:
    """Compare two ways of training, each run with the same seeds and asked the same rows.

    Args:
        scoring: of the task.
        first: marks of each seed's model, [N, ...].
        second: the same of the other way.
        blocks: see `Truth`.
        confidence: of the two-sided intervals.
    """
    given: dict[str, Any] = {"blocks": blocks, "confidence": confidence}
    if len(first) == 1:
        alone = scoring.compare(first[0], second[0], **given)
        return _of_seeds(np.array([alone.estimate]), alone, confidence)
    ours, theirs = (np.array([scoring.value(own) for own in way]) for way in (first, second))
    by_seed = ours - theirs
    if scoring.is_error:
        ratios = np.divide(ours, theirs, out=np.full_like(ours, np.inf), where=theirs > 0)
        by_seed = np.where(ours == theirs, 0.0, 1 - ratios)
    together = scoring.compare(
        scoring.pooled(np.stack(first)), scoring.pooled(np.stack(second)), **given
    )
    return _of_seeds(by_seed, together, confidence)


def _of_seeds(by_seed: Array, together: Paired, confidence: float) -> SeedComparison:
    num_seeds, estimate = len(by_seed), float(by_seed.mean())
    seed_interval, p_value = None, None
    if num_seeds > 1 and np.isfinite(estimate):  # it is not beside a model without any error
        error = float(by_seed.std(ddof=1)) / np.sqrt(num_seeds)
        half = float(stats.t.ppf(0.5 + confidence / 2, num_seeds - 1)) * error
        seed_interval = (estimate - half, estimate + half)
        t = abs(estimate) / error if error else np.inf
        p_value = float(2 * stats.t.sf(t, num_seeds - 1)) if estimate else 1.0
    return SeedComparison(
        estimate=estimate,
        seed_interval=seed_interval,
        seed_p_value=p_value,
        sample_interval=together.interval,
        num_seeds=num_seeds,
        num_samples=together.num_samples,
    )
