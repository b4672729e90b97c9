"""Which of two models is better on the same rows: their errors, or their shares of right labels.

Rows may depend on each other in blocks. Knows nothing of models or files; two classifiers are
compared by `metrics.compare_paired`.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from distill.statistics.metrics import Array, Interval, bootstrap
from distill.statistics.resampling import Blocks, effective_rows, paired

NUM_FLIPS = 9999


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models' answers to the same samples; above 0 the first is better.

    Attributes:
        estimate: of the first's gain over the second.
        interval: two-sided.
        p_value: of the models being alike.
        num_samples: rows.
        num_blocks: taken as independent of each other; the number of rows if all are.
    """

    estimate: float
    interval: Interval
    p_value: float
    num_samples: int
    num_blocks: int


def compare_errors(
    first: Array, second: Array, *, blocks: Array | None = None, confidence: float = 0.95
) -> Comparison:
    """Compare two models' errors on the same rows: 1 - RMSE of first / RMSE of second.

    0.03 means that the first's RMSE is 3 % lower. The interval is the studentised bootstrap of the
    log ratio over blocks, the same draws for both models (Efron & Tibshirani, "An Introduction to
    the Bootstrap", 1993, chapter 12; its error from the delta method), on either side at least as
    wide as Student's t: where few rows differ, resampling alone would claim too much. The p-value
    is a sign-flip test on the blocks' differences of squared errors; with blocks it answers what
    Diebold & Mariano, "Comparing predictive accuracy", 1995, ask of dependent forecasts.

    Models that err alike on every row compare as 0 from 0 to 0; with a single block nothing is
    known and the interval is from minus infinity to 1. Against a model without any error the gain
    is 0 or minus infinity.

    Args:
        first: errors (output - label) of the first model, [N] or [N, D]; bring several outputs to
            one scale before, as in `score_numbers`.
        second: the same of the second.
        blocks: [N], rows of one block are dependent and drawn together, as in `score_forecasts`;
            None: the rows are independent.
        confidence: of the two-sided interval.

    Raises:
        UserError: an error is not finite.
        ValueError: the shapes differ, or there is no row.
    """
    first, second = paired(first, second)
    rows = Blocks(len(first), blocks)
    difference = rows.sums(((first - second) * (first + second)).sum(axis=1))
    base = rows.sums((second**2).sum(axis=1))
    return _relative_gain(difference, base, rows, confidence=confidence, power=0.5)


def compare_losses(
    first: Array, second: Array, *, blocks: Array | None = None, confidence: float = 0.95
) -> Comparison:
    """Compare two models' losses on the same rows: 1 - mean of first / mean of second.

    For what is averaged without a root: absolute errors (and those over a series' scale, MASE),
    sMAPE, pinball loss, NLL. Interval, p-value and edge cases are those of `compare_errors`.

    Args:
        first: losses of the first model, none below 0, [N] or [N, D].
        second: the same of the second.
        blocks: [N], rows of one block are dependent and drawn together; None: independent.
        confidence: of the two-sided interval.

    Raises:
        UserError: a loss is not finite.
        ValueError: the shapes differ, there is no row, or a loss is below 0.
    """
    first, second = paired(first, second)
    if min(first.min(), second.min()) < 0:
        raise ValueError("Expected losses from 0 upwards but got one below 0.")
    rows = Blocks(len(first), blocks)
    difference = rows.sums((first - second).sum(axis=1))
    base = rows.sums(second.sum(axis=1))
    return _relative_gain(difference, base, rows, confidence=confidence, power=1.0)


def compare_right_labels(
    first: Array,
    second: Array,
    *,
    blocks: Array | None = None,
    confidence: float = 0.95,
    num_flips: int = NUM_FLIPS,
) -> Comparison:
    """Compare two models' shares of right labels on the same rows: first minus second.

    The interval is that of Bonett & Price, "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data", 2012, taken to a row of C labels: one row with a
    label more for either model is added, so that models that never disagree are not taken for
    equal beyond doubt. For a single label it is `metrics.compare_paired`'s interval; of blocks, it
    is that of `resampling.effective_rows`. The p-value is a sign-flip test.

    Args:
        first: which labels the first model has right, [N, C] bool.
        second: the same of the second.
        blocks: [N], rows of one block are dependent; None: the rows are independent.
        confidence: of the two-sided interval.
        num_flips: of the p-value, which is never below 1 / (1 + num_flips).

    Raises:
        ValueError: the shapes differ, or there is no row.
    """
    first, second = paired(first, second)
    rows, unit = Blocks(len(first), blocks), 1 / first.shape[1]
    gains = (first - second).mean(axis=1)
    mean, n = float(gains.mean()), float(len(gains))
    difference = rows.sums(gains)
    if blocks is not None:
        squares = ((gains - mean) ** 2).sum()
        residuals = difference - rows.sizes * mean
        n = effective_rows(rows, residuals, squares, confidence=confidence, unit=unit**2)
    centre = mean * n / (n + 2)
    added = (unit - centre) ** 2 + (-unit - centre) ** 2
    error = np.sqrt(n * ((gains - centre) ** 2).mean() + added) / (n + 2)
    half_width = error * special.ndtri(0.5 + confidence / 2) if n else 1.0
    return Comparison(
        estimate=mean,
        interval=(float(max(centre - half_width, -1)), float(min(centre + half_width, 1))),
        p_value=sign_flip_p_value(difference, num_flips=num_flips),
        num_samples=len(gains),
        num_blocks=rows.num_blocks,
    )


def _relative_gain(
    difference: Array, base: Array, rows: Blocks, *, confidence: float, power: float
) -> Comparison:
    """1 - (sum of first / sum of second) ** power, from the blocks' sums of first - second, [G]."""
    p_value = sign_flip_p_value(difference)
    log_ratio, ends = _log_ratio(difference, base, confidence)
    if np.isinf(log_ratio):  # one model never errs: only the test can tell rule from chance
        sure = p_value <= 1 - confidence
        ends = (log_ratio if sure else 0.0, log_ratio)
    gain, *interval = -np.expm1(power * np.array([log_ratio, max(ends), min(ends)])) + 0.0
    return Comparison(
        estimate=float(gain),
        interval=(float(interval[0]), float(interval[1])),
        p_value=p_value,
        num_samples=int(rows.sizes.sum()),
        num_blocks=rows.num_blocks,
    )


def _log_ratio(difference: Array, base: Array, confidence: float) -> tuple[float, Interval]:
    """Estimate log(sum of first / sum of second) from the blocks' sums, [G].

    In terms of the differences, so that nothing cancels between two models almost alike.
    """
    if not difference.any():
        return 0.0, (0.0, 0.0)
    num = len(difference)
    sums = np.stack([difference, base, difference**2, difference * base, base**2], axis=1)

    def estimate(weights: Array) -> tuple[Array, Array]:  # log ratios and standard errors, [R]
        d, b, dd, db, bb = (weights @ sums).T
        with np.errstate(divide="ignore", invalid="ignore"):
            squares = np.maximum(b * b * dd - 2 * b * d * db + d * d * bb, 0)
            error = np.sqrt(squares * num / max(num - 1, 1)) / (b * (b + d))
            return np.log1p(np.maximum(d / b, -1)), error

    (centre,), (error,) = estimate(np.ones((1, num)))
    if np.isinf(centre):
        return float(centre), (float(centre), float(centre))
    if num == 1:
        return float(centre), (-np.inf, np.inf)

    def studentised(weights: Array) -> Array:  # 0 where a draw has no spread
        log_ratios, errors = estimate(weights)
        usable = np.isfinite(log_ratios) & np.isfinite(errors) & (errors > 1e-9 * error)
        return np.divide(log_ratios - centre, errors, out=np.zeros(len(errors)), where=usable)

    low, high = bootstrap({"t": studentised}, num, confidence, expanded=False)["t"].interval
    least = float(special.stdtrit(num - 1, 0.5 + confidence / 2))
    ends = centre - max(high, least) * error, centre - min(low, -least) * error
    return float(centre), (float(ends[0]), float(ends[1]))


def sign_flip_p_value(differences: Array, seed: int = 0, *, num_flips: int = NUM_FLIPS) -> float:
    """Test whether paired differences are symmetric about 0, two-sided, by their sum.

    Randomly drawn signs (Fisher, "The Design of Experiments", 1935); the observed signs count as
    one draw, so that the p-value is never 0 (Phipson & Smyth, "Permutation p-values should never
    be zero", 2010).

    Args:
        differences: one for each block, [G].
        seed: of the signs.
        num_flips: draws.
    """
    differences = np.asarray(differences, np.float64)
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    observed = abs(differences.sum()) * (1 - 1e-9)  # ties of other summation orders count
    rng = np.random.default_rng(seed)
    rows = max(1, 2_000_000 // len(differences))
    as_large = 0
    for start in range(0, num_flips, rows):
        shape = (min(rows, num_flips - start), len(differences))
        signs = 2.0 * rng.integers(0, 2, shape, dtype=np.int8) - 1
        as_large += int((np.abs(signs @ differences) >= observed).sum())
    return (1 + as_large) / (1 + num_flips)
