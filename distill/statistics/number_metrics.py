"""How good predicted numbers are: regression, quantiles and forecasts.

Outputs and labels are [N, D] in the labels' own units: D numbers, or the D steps of a horizon.
Every figure has a percentile-bootstrap interval over rows or blocks of rows. Knows nothing of
models or files.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distill.errors import UserError
from distill.statistics.metrics import Array, Estimate, bootstrap
from distill.statistics.resampling import Blocks, finite, paired, share


@dataclass(frozen=True, kw_only=True)
class NumberScores:
    """Figures by name over all outputs, and the same for each output or step alone."""

    overall: dict[str, Estimate]
    by_output: list[dict[str, Estimate]]


def score_numbers(
    outputs: Array, labels: Array, *, blocks: Array | None = None, confidence: float = 0.95
) -> NumberScores:
    """RMSE, MAE and R^2, named `rmse`, `mae` and `r2`.

    Over several outputs the squared errors, the absolute errors and R^2 are averaged with equal
    weight, as scikit-learn's `uniform_average`; RMSE is the root of the mean squared error over
    rows and outputs (not the mean of the outputs' RMSE), so that
    `comparison.compare_errors` is exactly 1 minus the quotient of two of them. RMSE and MAE are in
    the labels' units. Of outputs in different units the largest unit would rule: divide
    outputs and labels by the labels' scale first, then they are in standard deviations; R^2 is
    the same either way.

    R^2 of a constant label is 1 if every answer is exact and 0 otherwise, as in scikit-learn.
    Percentile intervals at 95 % cover RMSE in 88 % of cases at 20 rows, and in 93 % at 50.

    Args:
        outputs: [N, D], or [N] for one number.
        labels: likewise.
        blocks: [N], rows of one block are drawn together; None: the rows are independent.
        confidence: of the two-sided intervals.

    Raises:
        UserError: an output or a label is not finite.
        ValueError: the shapes differ, or there is no row.
    """
    outputs, labels = paired(outputs, labels)
    rows = Blocks(len(labels), blocks)
    errors = outputs - labels
    squared = rows.sums(errors**2)
    centred = labels - labels.mean(axis=0)  # or a far mean would drown the variance
    spread = np.stack([squared, rows.sums(centred), rows.sums(centred**2)], axis=-1)
    metrics = {
        "rmse": _Metric(sums=squared, finish=np.sqrt),
        "mae": _Metric(sums=rows.sums(np.abs(errors))),
        "r2": _Metric(sums=spread, per_output=_r2),
    }
    return _score(metrics, rows, confidence)


def pinball_loss(quantiles: Array, labels: Array, levels: Array) -> Array:
    """Pinball loss of each predicted quantile, [..., Q].

    max(level * (label - quantile), (level - 1) * (label - quantile)), as in Koenker & Bassett,
    "Regression quantiles", 1978.

    Args:
        quantiles: [..., Q].
        labels: [...].
        levels: [Q], each inside 0 to 1.

    Raises:
        ValueError: the shapes do not fit.
    """
    quantiles, labels = np.asarray(quantiles, np.float64), np.asarray(labels, np.float64)
    levels = np.asarray(levels, np.float64)
    if quantiles.shape != (*labels.shape, *levels.shape) or levels.ndim != 1:
        raise ValueError(
            f"Expected quantiles of shape {(*labels.shape, *levels.shape)} but got "
            f"{quantiles.shape}."
        )
    gaps = labels[..., None] - quantiles
    return np.maximum(levels * gaps, (levels - 1) * gaps)


def score_quantiles(
    quantiles: Array,
    labels: Array,
    levels: Array,
    *,
    blocks: Array | None = None,
    confidence: float = 0.95,
) -> NumberScores:
    """Pinball loss, and coverage and width of the outermost interval.

    `pinball` is the mean over the levels, `pinball_0.1` that of level 0.1. `coverage` is the share
    of labels from the lowest to the highest quantile, both included, and should be near the
    difference of their levels; `width` is the mean distance between the two, below 0 where they
    cross. Where all labels are covered, or none, the bootstrap sees no spread, and the interval of
    coverage is Wilson's (1927) over the blocks.

    Args:
        quantiles: [N, D, Q], in the labels' units.
        labels: [N, D].
        levels: [Q], ascending, each inside 0 to 1.
        blocks: [N], rows of one block are drawn together; None: the rows are independent.
        confidence: of the two-sided intervals.

    Raises:
        UserError: a quantile or a label is not finite.
        ValueError: the shapes do not fit, or the levels are not ascending inside 0 to 1.
    """
    levels = np.asarray(levels, np.float64)
    if levels.ndim != 1 or not (np.diff([0.0, *levels, 1.0]) > 0).all():
        raise ValueError(f"Expected levels that ascend inside 0 to 1 but got {levels.tolist()}.")
    losses = pinball_loss(quantiles, labels, levels)  # [N, D, Q]
    quantiles, labels = finite(quantiles, "quantiles"), finite(labels, "labels")
    rows = Blocks(len(labels), blocks)
    low, high = quantiles[..., 0], quantiles[..., -1]
    covered = (low <= labels) & (labels <= high)
    metrics = {"pinball": _Metric(sums=rows.sums(losses.mean(axis=-1)))}
    for q, level in enumerate(levels):
        metrics[f"pinball_{level:g}"] = _Metric(sums=rows.sums(losses[..., q]))
    if len(levels) > 1:
        metrics["width"] = _Metric(sums=rows.sums(high - low))
    scores = _score(metrics, rows, confidence)
    if len(levels) > 1:
        for figures, hits in zip(
            (scores.overall, *scores.by_output), (covered.mean(axis=1), *covered.T), strict=True
        ):
            figures["coverage"] = share(hits, blocks=blocks, confidence=confidence)
    return scores


def naive_error(series: Array, season: int = 1) -> float:
    """Mean absolute error of the seasonal naive forecast inside a training series.

    mean |y_t - y_(t - season)|: the scale of MASE (Hyndman & Koehler, "Another look at measures of
    forecast accuracy", 2006). Pairs with a missing value do not count. 0 for a series that repeats
    itself exactly: MASE is undefined there.

    Args:
        series: the training part alone, [T], evenly spaced in time.
        season: steps in a period; 1 is the last value.

    Raises:
        UserError: no pair of values is `season` apart.
        ValueError: the season is below 1.
    """
    if season < 1:
        raise ValueError(f"Expected a season of at least 1 step but got {season}.")
    series = np.asarray(series, np.float64)
    gaps = np.abs(series[season:] - series[:-season])
    gaps = gaps[~np.isnan(gaps)]
    if not gaps.size:
        raise UserError(
            f"Expected a training series with values {season} steps apart but got {len(series)} "
            "steps without such a pair: give a longer training part or a shorter season."
        )
    return float(gaps.mean())


def score_forecasts(
    forecasts: Array,
    labels: Array,
    scale: Array | float,
    *,
    blocks: Array | None = None,
    confidence: float = 0.95,
) -> NumberScores:
    """MASE and sMAPE, named `mase` and `smape`; by output means by step of the horizon.

    MASE is the mean of |error| / scale (Hyndman & Koehler, 2006): below 1 the forecast is better
    than one step of the seasonal naive forecast was on the training part. Rows of scale 0 do not
    count in it, and without any other row there is no `mase`; the caller says how many there were.

    sMAPE is the mean of 200 |error| / (|label| + |forecast|), from 0 to 200 %, and 0 where both
    are 0, as in the M4 competition (Makridakis et al., 2020). It punishes low forecasts more than
    high ones and means little for values near 0.

    Args:
        forecasts: [N, H], one row for each series and forecast origin.
        labels: likewise.
        scale: `naive_error` of each row's series, [N], or one for all.
        blocks: [N], rows of one block are drawn together. Forecasts from origins less than H steps
            apart share labels, so stretches of origins several times as long as H belong together;
            None: the rows are independent.
        confidence: of the two-sided intervals.

    Raises:
        UserError: a forecast, a label or a scale is not finite.
        ValueError: the shapes do not fit, or there is no row.
    """
    forecasts, labels = paired(forecasts, labels)
    rows = Blocks(len(labels), blocks)
    errors, size = np.abs(forecasts - labels), np.abs(forecasts) + np.abs(labels)
    scales = finite(np.broadcast_to(scale, len(labels)), "scales")[:, None]
    known = np.broadcast_to(scales > 0, errors.shape)
    relative = np.divide(200 * errors, size, out=np.zeros_like(size), where=size > 0)
    metrics = {"smape": _Metric(sums=rows.sums(relative))}
    if known.any():
        scaled = np.divide(errors, scales, out=np.zeros_like(size), where=known)
        sums = np.stack([rows.sums(scaled), rows.sums(known)], axis=-1)
        metrics["mase"] = _Metric(sums=sums, per_output=lambda m: _ratio(m[..., 0], m[..., 1]))
    return _score(metrics, rows, confidence)


@dataclass(frozen=True, kw_only=True)
class _Metric:
    """A figure that is a function of means over rows.

    finish(mean over outputs of per_output(means)); `sums` over each group are [G, D] or [G, D, K],
    `per_output` maps [R, D, K] to [R, D].
    """

    sums: Array
    per_output: Callable[[Array], Array] = lambda means: means
    finish: Callable[[Array], Array] = lambda values: values

    def of(self, sizes: Array, outputs: slice) -> Callable[[Array], Array]:
        sums = self.sums[:, outputs]

        def value(weights: Array) -> Array:
            totals = weights @ sums.reshape(len(sums), -1)
            means = (totals / (weights @ sizes)[:, None]).reshape(len(weights), *sums.shape[1:])
            return self.finish(self.per_output(means).mean(axis=1))

        return value


def _score(metrics: dict[str, _Metric], rows: Blocks, confidence: float) -> NumberScores:
    num_outputs = next(iter(metrics.values())).sums.shape[1]
    spans = [slice(None), *(slice(d, d + 1) for d in range(num_outputs))]
    functions = {
        f"{i} {name}": metric.of(rows.sizes, span)
        for i, span in enumerate(spans)
        for name, metric in metrics.items()
    }
    found = bootstrap(functions, rows.num_groups, confidence)
    overall, *by_output = (
        {name: found[f"{i} {name}"] for name in metrics} for i in range(len(spans))
    )
    return NumberScores(overall=overall, by_output=by_output)


def _r2(means: Array) -> Array:
    squared_error, label, squared_label = np.moveaxis(means, -1, 0)
    variance = squared_label - label**2
    variance[variance <= 1e-12 * squared_label] = 0  # constant up to rounding
    constant = np.where(squared_error > 0, 0.0, 1.0)
    return np.where(variance > 0, 1 - _ratio(squared_error, variance), constant)


def _ratio(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
