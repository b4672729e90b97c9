"""Rows that may depend on each other, as blocks that are resampled as one.

A block is a row, or all rows of a group, a patient, a stretch of forecast origins. More than
`MAX_BLOCKS` are merged at random, so that resampling costs the same at any number of rows. Knows
nothing of metrics or models.
"""

import numpy as np
from scipy import sparse, special

from distill.errors import UserError
from distill.statistics.metrics import Array, Estimate, proportion, wilson

MAX_BLOCKS = 4000


class Blocks:
    """Which rows are resampled together.

    Merging blocks at random keeps the variance of a sum unbiased: G groups estimate it with
    G - 1 degrees of freedom, its root to 1.1 % at 4000 of them.

    Args:
        num_rows: N.
        blocks: the name of each row's block, [N], numbers or strings; None: every row is its own.

    Attributes:
        num_blocks: before merging.
        num_groups: after it, at most `MAX_BLOCKS`.
        sizes: rows in each group, [num_groups].
        mean_size: rows in the block of a row that is drawn at random, before merging.

    Raises:
        ValueError: there is not one block for each row.
    """

    def __init__(self, num_rows: int, blocks: Array | None = None) -> None:
        groups = np.arange(num_rows)
        if blocks is not None:
            if np.shape(blocks) != (num_rows,):
                raise ValueError(f"Expected {num_rows} blocks but got shape {np.shape(blocks)}.")
            groups = np.unique(np.asarray(blocks), return_inverse=True)[1]
        self.num_blocks = int(groups.max()) + 1
        self.mean_size = float((np.bincount(groups) ** 2.0).sum() / num_rows)
        self.num_groups = min(self.num_blocks, MAX_BLOCKS)
        if self.num_blocks > MAX_BLOCKS:
            merged = np.random.default_rng(0).permutation(np.arange(self.num_blocks) % MAX_BLOCKS)
            groups = merged[groups]
        self._membership = sparse.csr_array(  # [G, N]
            (np.ones(num_rows), (groups, np.arange(num_rows))), shape=(self.num_groups, num_rows)
        )
        self.sizes = self.sums(np.ones(num_rows))

    def sums(self, values: Array) -> Array:
        """Add up the rows of each group: [N, ...] to [num_groups, ...]."""
        values = np.asarray(values, np.float64)
        flat = self._membership @ values.reshape(len(values), -1)
        return flat.reshape(-1, *values.shape[1:])


def share(hits: Array, *, blocks: Array | None = None, confidence: float = 0.95) -> Estimate:
    """A share of successes, [N], or the mean of shares of each row, with a score interval.

    That of Wilson (1927), of as many rows as say as much alone (`effective_rows`).
    """
    hits = np.asarray(hits, np.float64)
    if blocks is None and ((hits == 0) | (hits == 1)).all():
        return proportion(hits, confidence=confidence)
    rows, mean = Blocks(len(hits), blocks), float(hits.mean())
    squares = ((hits - mean) ** 2).sum()
    n = effective_rows(rows, rows.sums(hits) - rows.sizes * mean, squares, confidence=confidence)
    return Estimate(estimate=mean, interval=wilson(mean, n, confidence) if n else (-np.inf, np.inf))


def effective_rows(
    rows: Blocks, residuals: Array, squares: float, *, confidence: float, unit: float = 1.0
) -> float:
    """Tell how many rows that stand alone would say as much of a mean as rows in blocks do.

    N over the design effect, less what Student's t takes of few blocks (Korn & Graubard,
    "Confidence intervals for proportions with small expected number of positive counts estimated
    from survey data", 1998). The design effect is taken as if one more row of another answer had
    been there, and its whole block with it: rows that are all alike do not tell how far those of a
    block depend on each other, and then a block counts as one row.

    Args:
        rows: their blocks.
        residuals: sums over each group of what rows differ from the mean, [num_groups].
        squares: sum over all rows of the squares of what they differ from it.
        confidence: of the interval.
        unit: square of what one row of another answer differs.

    Returns:
        0 for a single block, which tells nothing of others.
    """
    if rows.num_groups == 1:
        return 0.0
    freedom, tail = rows.num_groups - 1, 0.5 + confidence / 2
    between = residuals @ residuals * rows.num_groups / freedom + unit * rows.mean_size
    n = rows.sizes.sum() * (squares + unit) / between
    return float(n * (special.ndtri(tail) / special.stdtrit(freedom, tail)) ** 2)


def paired(first: Array, second: Array) -> tuple[Array, Array]:
    """Check that two arrays [N] or [N, D] are finite and fit each other; both as float64 [N, D].

    Raises:
        UserError: a number is not finite.
        ValueError: the shapes differ, or there is no row.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(
            f"Expected paired numbers but got {np.shape(first)} and {np.shape(second)}."
        )
    first, second = finite(first, "numbers"), finite(second, "numbers")
    return first.reshape(len(first), -1), second.reshape(len(second), -1)


def finite(values: Array, name: str) -> Array:
    """Check that every number in the rows is finite; as float64.

    Raises:
        UserError: the rows with NaN or infinity are counted and the first is named.
        ValueError: there is no row.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        raise ValueError("Expected at least one row to score but got none.")
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if bad.size:
        raise UserError(
            f"Expected finite {name} but got NaN or infinity in {bad.size} of {len(values)} rows, "
            f"the first at row {bad[0]}: mend the model or leave those rows out."
        )
    return values
