"""How good answers are in the task they are for: its figures, and what is compared row by row.

One front for `class_metrics`, `multi_label_metrics`, `number_metrics` and `comparison`. Answers are
what a model gives: logits [N, C], or numbers [N, D] in their own units, or their quantiles
[N, D * Q]; a baseline may give class numbers, [N]. Marks are what is kept of each row to compare
models by, all from the same answers: whether it is right, or by how much it errs. Knows nothing of
models or files.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UsageError
from distill.statistics.class_metrics import score, score_predictions
from distill.statistics.comparison import (
    Comparison,
    compare_errors,
    compare_losses,
    compare_right_labels,
)
from distill.statistics.metrics import (
    Array,
    Estimate,
    PairedComparison,
    compare_paired,
)
from distill.statistics.multi_label_metrics import right_labels, score_multi_label
from distill.statistics.number_metrics import (
    pinball_loss,
    score_forecasts,
    score_numbers,
    score_quantiles,
)
from distill.statistics.resampling import share
from distill.tasks import Task, TaskKind

Paired = PairedComparison | Comparison


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What answers are held against.

    Attributes:
        labels: see `TaskKind`.
        blocks: [N], rows of one block depend on each other; None: no row on another.
        naive_error: [N], of forecasts the mean absolute error of the naive one in training, by
            which MASE divides; None for anything else.
    """

    labels: NDArray[Any]
    blocks: NDArray[Any] | None = None
    naive_error: NDArray[np.float64] | None = None

    def take(self, rows: NDArray[Any]) -> "Truth":
        """Select some rows."""
        return Truth(
            labels=self.labels[rows],
            blocks=None if self.blocks is None else self.blocks[rows],
            naive_error=None if self.naive_error is None else self.naive_error[rows],
        )


class Scoring(ABC):
    """Figures of one task.

    Attributes:
        metric: that decides; the first of `figures`.
        figures: names of all, in the order in which they are shown.
        is_error: whether less of the metric is better.
    """

    metric: str
    figures: tuple[str, ...]
    is_error: bool

    def check(self, truth: Truth) -> None:  # noqa: B027 - most metrics go with any truth
        """Refuse a metric that there is none of.

        Raises:
            UsageError: says which to take.
        """

    @abstractmethod
    def score(self, answers: Array, truth: Truth, *, confidence: float) -> dict[str, Estimate]:
        """Compute the figures, those that are known of such answers."""

    @abstractmethod
    def marks(self, answers: Array, truth: Truth) -> Array:
        """Mark every row, [N] or [N, D]."""

    def value(self, marks: Array) -> float:
        """Put marks together to the metric: the share that is right, or the mean loss."""
        return float(marks.mean())

    @abstractmethod
    def compare(
        self, first: Array, second: Array, *, blocks: Array | None, confidence: float
    ) -> Paired:
        """Compare two models' marks of the same rows; above 0 the first is better.

        Of shares right the difference, of errors 1 - first / second: both are fractions.
        """

    @abstractmethod
    def agreement(
        self, answers: Array, reference: Array, *, blocks: Array | None, confidence: float
    ) -> Estimate:
        """Estimate how far two models say the same, from 0 to 1."""

    def pooled(self, marks: Array) -> Array:
        """Put the marks of several trainings together row by row, [K, N, ...] to [N, ...]."""
        return np.asarray(marks, np.float64).mean(axis=0)


def scoring_of(task: Task, metric: str | None = None) -> Scoring:
    """Choose the figures of a task.

    Args:
        task: what is asked for.
        metric: that decides; None takes the first that there is.

    Raises:
        UsageError: the task has no such metric.
    """
    known = (Quantiles.metric,) if task.quantiles else METRICS[task.kind]
    if metric is not None and metric not in known:
        raise UsageError(
            f"Expected `budget.accuracy.metric` of {_what(task)} to be one of "
            f"{', '.join(known)} but got {metric}. Leave it out to take {known[0]}."
        )
    if task.kind is TaskKind.CLASSIFICATION:
        return Classes(len(task.outputs))
    if task.kind is TaskKind.MULTI_LABEL:
        return Labels()
    return Quantiles(task) if task.quantiles else Numbers(task, metric or known[0])


class Classes(Scoring):
    """One of several classes: accuracy."""

    metric, is_error = "accuracy", False
    figures = ("accuracy", "macro_f1", "nll", "ece")

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def score(self, answers: Array, truth: Truth, *, confidence: float) -> dict[str, Estimate]:
        """Compute the figures; of class numbers, [N], accuracy and macro-F1."""
        given: dict[str, Any] = {"blocks": truth.blocks, "confidence": confidence}
        if answers.ndim == 2:
            return score(answers, truth.labels, **given)
        return score_predictions(answers, truth.labels, self.num_classes, **given)

    def marks(self, answers: Array, truth: Truth) -> Array:
        """Tell which rows are right, [N]."""
        return (answers.argmax(axis=1) if answers.ndim == 2 else answers) == truth.labels

    def compare(
        self, first: Array, second: Array, *, blocks: Array | None, confidence: float
    ) -> Paired:
        """Give the difference of accuracies, of dependent rows by blocks."""
        if blocks is None and first.dtype == bool and second.dtype == bool:
            return compare_paired(first, second, confidence=confidence)
        pair = (np.asarray(marks, np.float64)[:, None] for marks in (first, second))
        return compare_right_labels(*pair, blocks=blocks, confidence=confidence)

    def agreement(
        self, answers: Array, reference: Array, *, blocks: Array | None, confidence: float
    ) -> Estimate:
        """Give the share of rows with the same class."""
        same = answers.argmax(axis=1) == reference.argmax(axis=1)
        return share(same, blocks=blocks, confidence=confidence)


class Labels(Scoring):
    """Several labels at once: the share of labels right."""

    metric, is_error = "label_accuracy", False
    figures = (
        "label_accuracy", "subset_accuracy", "micro_f1", "macro_f1", "mean_average_precision", "nll"
    )  # fmt: skip

    def score(self, answers: Array, truth: Truth, *, confidence: float) -> dict[str, Estimate]:
        """Compute the figures."""
        found = score_multi_label(answers, truth.labels, blocks=truth.blocks, confidence=confidence)
        return {name: found[name] for name in self.figures if name in found}

    def marks(self, answers: Array, truth: Truth) -> Array:
        """Tell which labels are right, [N, C]."""
        return right_labels(answers, truth.labels)

    def compare(
        self, first: Array, second: Array, *, blocks: Array | None, confidence: float
    ) -> Paired:
        """Give the difference of the shares of labels right."""
        return compare_right_labels(first, second, blocks=blocks, confidence=confidence)

    def agreement(
        self, answers: Array, reference: Array, *, blocks: Array | None, confidence: float
    ) -> Estimate:
        """Give the share of rows with the same labels."""
        same = ((answers > 0) == (reference > 0)).all(axis=1)
        return share(same, blocks=blocks, confidence=confidence)


class Numbers(Scoring):
    """Numbers: RMSE, MAE, or of forecasts MASE.

    Errors of several numbers in units of their own are divided by their spread (`Task.unit`). In
    MASE, rows of series that never moved in training do not count; their marks are NaN.

    Args:
        task: what is asked for.
        metric: `rmse`, `mae` or `mase`.
    """

    is_error = True

    def __init__(self, task: Task, metric: str) -> None:
        self.task, self.metric = task, metric
        self.figures = (metric, *(n for n in ("rmse", "mae", "r2", "mase", "smape") if n != metric))

    def check(self, truth: Truth) -> None:
        """Refuse MASE where there is nothing to divide by, or zeros alone."""
        naive = truth.naive_error
        if self.metric == "mase" and (naive is None or not naive.any()):
            raise UsageError(
                "Expected forecasts of series that move for `budget.accuracy.metric=mase` but got "
                "none. Take rmse or mae."
            )

    def score(self, answers: Array, truth: Truth, *, confidence: float) -> dict[str, Estimate]:
        """Compute the figures, those of forecasts where the naive error is known."""
        self.check(truth)
        unit = self.task.unit
        given = {"blocks": truth.blocks, "confidence": confidence}
        found = score_numbers(answers / unit, truth.labels / unit, **given).overall
        if truth.naive_error is not None:
            forecast = score_forecasts(answers, truth.labels, truth.naive_error, **given)
            found = found | forecast.overall
        return {name: found[name] for name in self.figures if name in found}

    def marks(self, answers: Array, truth: Truth) -> Array:
        """Give the errors, [N, D]."""
        self.check(truth)
        errors = (np.asarray(answers, np.float64) - truth.labels) / self.task.unit
        if self.metric != "mase" or truth.naive_error is None:
            return errors
        scale = truth.naive_error[:, None]
        return np.divide(errors, scale, out=np.full_like(errors, np.nan), where=scale > 0)

    def value(self, marks: Array) -> float:
        """Give their root mean square, or mean size."""
        if self.metric == "rmse":
            return float(np.sqrt((marks**2).mean()))
        return float(np.nanmean(np.abs(marks)))

    def compare(
        self, first: Array, second: Array, *, blocks: Array | None, confidence: float
    ) -> Paired:
        """Give by what share the first errs less."""
        if self.metric == "rmse":
            return compare_errors(first, second, blocks=blocks, confidence=confidence)
        counts = ~(np.isnan(first) & np.isnan(second)).all(axis=1)
        pair = np.abs(first[counts]), np.abs(second[counts])
        blocks = None if blocks is None else blocks[counts]
        return compare_losses(*pair, blocks=blocks, confidence=confidence)

    def agreement(
        self, answers: Array, reference: Array, *, blocks: Array | None, confidence: float
    ) -> Estimate:
        """Give the share of the reference's variance that the answers explain, R^2, from 0 on."""
        found = score_numbers(answers, reference, blocks=blocks, confidence=confidence)
        low, high = np.clip(found.overall["r2"].interval, 0, 1)
        return Estimate(
            estimate=max(found.overall["r2"].estimate, 0.0), interval=(float(low), float(high))
        )

    def pooled(self, marks: Array) -> Array:
        """Give each row's root mean square error over the trainings, or mean size, [N, D]."""
        wide = np.asarray(marks, np.float64)
        return np.sqrt((wide**2).mean(axis=0)) if self.metric == "rmse" else np.abs(wide).mean(0)


class Quantiles(Scoring):
    """Quantiles of numbers, [N, D * Q]: pinball loss, and how often the outermost two cover.

    Losses of several numbers in units of their own are divided by their spread (`Task.unit`). RMSE
    and MAE are those of the median, where it is among the levels.

    Args:
        task: of quantiles.
    """

    metric, is_error = "pinball", True
    figures = ("pinball", "coverage", "width", "mae", "rmse")

    def __init__(self, task: Task) -> None:
        self.task = task

    def score(self, answers: Array, truth: Truth, *, confidence: float) -> dict[str, Estimate]:
        """Compute the figures."""
        given = {"blocks": truth.blocks, "confidence": confidence}
        quantiles, labels = self._in_one_unit(answers, truth)
        found = score_quantiles(quantiles, labels, np.array(self.task.quantiles), **given).overall
        if 0.5 in self.task.quantiles:
            median = quantiles[..., self.task.middle]
            found = found | score_numbers(median, labels, **given).overall
        return {name: found[name] for name in self.figures if name in found}

    def marks(self, answers: Array, truth: Truth) -> Array:
        """Give the pinball loss of every quantile, [N, D * Q]."""
        quantiles, labels = self._in_one_unit(answers, truth)
        losses = pinball_loss(quantiles, labels, np.array(self.task.quantiles))
        return losses.reshape(len(losses), -1)

    def compare(
        self, first: Array, second: Array, *, blocks: Array | None, confidence: float
    ) -> Paired:
        """Give by what share the first's pinball loss is less."""
        return compare_losses(first, second, blocks=blocks, confidence=confidence)

    def agreement(
        self, answers: Array, reference: Array, *, blocks: Array | None, confidence: float
    ) -> Estimate:
        """Give the share of the reference's variance that the answers explain, as of numbers."""
        rmse = Numbers(self.task, "rmse")
        return rmse.agreement(answers, reference, blocks=blocks, confidence=confidence)

    def _in_one_unit(self, answers: Array, truth: Truth) -> tuple[Array, Array]:
        """Bring quantiles, [N, D, Q], and labels, [N, D], to units that can be averaged."""
        unit, shape = self.task.unit, (len(answers), -1, len(self.task.quantiles))
        quantiles = np.asarray(answers, np.float64).reshape(shape) / unit[:, None]
        return quantiles, truth.labels / unit


def _what(task: Task) -> str:
    return "quantiles" if task.quantiles else task.kind.replace("_", " ")


METRICS = {
    TaskKind.CLASSIFICATION: (Classes.metric,),
    TaskKind.MULTI_LABEL: (Labels.metric,),
    TaskKind.REGRESSION: ("rmse", "mae", "mase"),
}
