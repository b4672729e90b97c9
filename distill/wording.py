"""How figures are named and written for people: shares as percentages, gains with their sign.

A gain is a fraction: of shares right a difference, told in points; of errors the share by which
they are lower, told in percent (see `scoring.Scoring.compare`). Minus infinity, null in JSON, is an
error beside none at all, or where nothing is known.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distill.pages import figure, percent, size
from distill.statistics.metrics import estimate_from
from distill.statistics.scoring import METRICS, Quantiles
from distill.tasks import TaskKind

NAMES = {
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "nll": "NLL",
    "ece": "ECE",
    "nll_scaled": "NLL scaled",
    "ece_scaled": "ECE scaled",
    "temperature": "T",
    "mean_average_precision": "mAP",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "mase": "MASE",
    "smape": "sMAPE (%)",
    "pinball": "pinball loss",
}
SHARES = ("accuracy", "macro_f1", "label_accuracy", "subset_accuracy", "micro_f1",
          "mean_average_precision", "coverage")  # fmt: skip
FRACTIONS = (*SHARES, "drop_vs_teacher", "drop_vs_float32", "gain_vs_baseline", "gain_vs_incumbent",
             "drop_on_old_test", "parity_top1_agreement")  # fmt: skip
ERRORS = (*METRICS[TaskKind.REGRESSION], Quantiles.metric)  # of those that decide, less is better


def metric_name(name: str) -> str:
    """Name a figure."""
    return NAMES.get(name, name.replace("_", " "))


def metric_title(name: str) -> str:
    """Name a figure at the beginning of a title."""
    own = metric_name(name)
    return own.capitalize() if own.islower() else own


def metric_text(name: str, value: float, digits: int = 2) -> str:
    """Write a figure."""
    if name in SHARES:
        return percent(value, digits)
    return f"{value:.3f}" if abs(value) < 1 else figure(value)


def check_figure(name: str, value: float | None) -> str:
    """Write a figure of a budget's check in its unit."""
    if value is None:
        return "unknown"
    if name.endswith("_bytes"):
        return size(value)
    return percent(value) if name in FRACTIONS else figure(value)


def metric_interval(name: str, interval: Sequence[float | None], digits: int = 2) -> str:
    """Write an interval of a figure; one without bounds is null in JSON."""
    known = [end for end in interval if end is not None and math.isfinite(end)]
    if len(known) < len(interval):
        return "unknown"
    low, high = (metric_text(name, end, digits) for end in known)
    return f"{low.removesuffix(' %')} to {high}"


def gain_cells(gain: Mapping[str, Any], digits: int = 2) -> tuple[str, str]:
    """Write a gain and its interval with their signs, for a table that names the unit."""
    found = estimate_from(gain)
    low, high = (_signed(end, digits) for end in found.interval)
    return _signed(found.estimate, digits), f"{low} to {high}"


def gain_phrase(metric: str, value: float | None, of: str | None = None) -> str:
    """Say a gain in words, and over whom."""
    if metric not in ERRORS:
        said = f"{_signed(value, 2)} points of {metric_name(metric)}"
        return said if of is None else f"{said} against {of}"
    size = "infinitely" if value in (None, -math.inf) else f"{abs(100 * value):.2f} %"
    lower = value is not None and value >= 0
    said = f"{metric_name(metric)} {size} {'lower' if lower else 'higher'}"
    return said if of is None else f"{said} than {of}'s"


def gain_range(metric: str, interval: Sequence[float | None]) -> str:
    """Say the interval of a gain in words."""
    low, high = (_signed(end, 2) for end in interval)
    if metric not in ERRORS:
        return f"{low} to {high}"
    return f"{low.removeprefix('+')} to {high.removeprefix('+')} % lower"


def test_name(gain: Mapping[str, Any]) -> str:
    """Name the test that a comparison's p-value is of."""
    return "McNemar" if "num_only_first_correct" in gain else "sign-flip test"


def _signed(value: float | None, digits: int) -> str:
    return "-∞" if value is None or value == -math.inf else f"{100 * value:+.{digits}f}"
