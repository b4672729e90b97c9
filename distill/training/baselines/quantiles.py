"""Predictors of numbers made predictors of quantiles: those of their own errors in training.

A mean, a line or a last value says nothing of how far off it may be; what it erred by in training
does. Knows nothing of how it answers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.statistics.number_metrics import pinball_loss
from distill.tables.windows import Windows
from distill.training.baselines.heuristics import Fitted
from distill.training.data.splits import Data

MAX_ROWS = 20_000


def with_error_quantiles(fitted: Fitted, data: Data) -> Fitted:
    """Answer a number plus the quantiles of its errors, [N, D * Q] in the labels' own units.

    Errors are those on at most `MAX_ROWS` training rows, evenly drawn. Of windows they are as they
    are, or divided by each window's spread: whichever has less pinball loss on those rows.

    Args:
        fitted: answers numbers, [N, D].
        data: of a task of quantiles, on which it was fitted.
    """
    rows = np.linspace(0, len(data.train) - 1, min(len(data.train), MAX_ROWS)).astype(np.int64)
    train, levels = data.train.take(rows), np.array(data.task.quantiles)
    asked = train.records if fitted.reads_records else train.inputs
    numbers, labels = fitted.answer(asked), train.labels.astype(np.float64)
    units: list[Callable[[Any], Any]] = [lambda asked: 1.0]
    if fitted.reads_records and isinstance(data.encoder, Windows):
        windows = data.encoder
        units.append(lambda records: windows.level_and_spread(records)[1])

    def loss(unit: Callable[[Any], Any]) -> float:
        found = _around(numbers, _offsets(numbers, labels, unit(asked), levels), unit(asked))
        return float(pinball_loss(found, labels, levels).mean())

    unit = min(units, key=loss)
    offsets = _offsets(numbers, labels, unit(asked), levels)

    def answer(asked: Any) -> NDArray[np.float64]:
        return _around(fitted.answer(asked), offsets, unit(asked)).reshape(len(asked), -1)

    return dataclasses.replace(fitted, answer=answer, size_bytes=fitted.size_bytes + offsets.nbytes)


def _offsets(
    numbers: NDArray[Any], labels: NDArray[Any], unit: Any, levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Quantiles of the errors of each number in some unit, [D, Q]."""
    return np.quantile((labels - numbers) / unit, levels, axis=0).T


def _around(numbers: NDArray[Any], offsets: NDArray[np.float64], unit: Any) -> NDArray[np.float64]:
    """Put quantiles around numbers, [N, D, Q]."""
    return numbers[:, :, None] + offsets * np.reshape(unit, (-1, 1, 1))
