"""Predictors of numbers that need no training run: means, medians, group means, a linear model.

Fitted as those of classes are (`heuristics`); the answers are [N, D] in the labels' own units.
Forecasts from windows are `forecasts`' business.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from distill.errors import UserError, kind_advice, nearest
from distill.tables.columns import Records
from distill.tables.encoding import codes_of
from distill.tasks import TaskKind
from distill.training.baselines.features import features_of
from distill.training.baselines.heuristics import Fitted, look_up
from distill.training.data.splits import Split

MAX_LINEAR_ROWS = 100_000
ALPHA = 1.0  # of the ridge: as one row that says nothing


class Mean:
    """Answer the training labels' mean, which has the least squared error of all constants."""

    kinds = frozenset({TaskKind.REGRESSION})

    def fit(self, train: Split, num_outputs: int) -> Fitted:
        """Average the labels."""
        return _always(train.labels.mean(axis=0, dtype=np.float64))


class Median:
    """Answer the training labels' median, which has the least absolute error of all constants."""

    kinds = frozenset({TaskKind.REGRESSION})

    def fit(self, train: Split, num_outputs: int) -> Fitted:
        """Take the median of the labels."""
        return _always(np.median(train.labels.astype(np.float64), axis=0))


class GroupMean:
    """Answer the mean label of a row's group; that of all rows for a group never seen.

    Rows are of one group where they have the same values in some columns, a gap being a value.
    Each group's mean is smoothed by one more row that has the mean of all.

    Args:
        columns: names of categories or booleans.
    """

    kinds = frozenset({TaskKind.REGRESSION})

    def __init__(self, columns: Sequence[str]) -> None:
        if isinstance(columns, str) or not columns:
            raise UserError(
                f"Expected a list of names in `columns` of a group mean but got {columns!r}. Name "
                "columns, such as `[shop,weekday]`."
            )
        self._columns = [str(name) for name in columns]

    def fit(self, train: Split, num_outputs: int) -> Fitted:
        """Average the labels of every group.

        Raises:
            UserError: the data has no such columns, or they are no categories or booleans.
        """
        texts = self._texts(train.records)
        values = [np.unique(text).tolist() for text in texts]
        keys, group, counts = np.unique(
            _codes(values, texts), axis=0, return_inverse=True, return_counts=True
        )
        labels = train.labels.astype(np.float64)
        means = np.zeros((len(keys) + 1, num_outputs))
        np.add.at(means, group.ravel(), labels)
        means[:-1] = (means[:-1] + labels.mean(axis=0)) / (counts[:, None] + 1)
        means[-1] = labels.mean(axis=0)
        rows = {tuple(key): row for row, key in enumerate(keys.tolist())}
        return Fitted(
            answer=lambda records: look_up(rows, means, _codes(values, self._texts(records))),
            size_bytes=means.nbytes,
            reads_records=True,
        )

    def _texts(self, records: Records | None) -> list[NDArray[np.str_]]:
        """Take the columns out of records, each as text."""
        known = () if records is None else records.dtype.names or ()
        missing = [name for name in self._columns if name not in known]
        if records is None or missing:
            raise UserError(
                f"Expected columns of the data in `columns` of a group mean but it has no "
                f"`{(missing or self._columns)[0]}`. "
                + (nearest(missing[0], known) if known else "Leave it out of `baselines`.")
            )
        return [_text(name, records[name]) for name in self._columns]


class LinearRegression:
    """Weigh a row's features by least squares, with a ridge as weak as one row.

    Features are a student's, but each value of a category has a weight of its own. Fitted on at
    most `MAX_LINEAR_ROWS` at random.
    """

    kinds = frozenset({TaskKind.REGRESSION})

    def fit(self, train: Split, num_outputs: int) -> Fitted:
        """Fit in double precision: float32 would be ill-conditioned.

        Raises:
            UserError: the data are windows of a series.
        """
        if train.records is not None and any(
            train.records.dtype[name].shape for name in train.records.dtype.names or ()
        ):
            raise UserError(
                "Expected rows of a table for the baseline `linear_regression` but got windows of "
                "a series. Use `linear_forecast`, which knows their units."
            )
        rng = np.random.default_rng(0)
        few = train.take(np.sort(rng.permutation(len(train))[:MAX_LINEAR_ROWS]))
        layout = train.layout
        features = features_of(few.inputs, layout).astype(np.float64)
        model = Ridge(alpha=ALPHA).fit(features, few.labels.astype(np.float64))

        def answer(inputs: Any) -> NDArray[np.float64]:
            outputs = np.asarray(model.predict(features_of(inputs, layout)))
            return outputs.reshape(len(inputs), num_outputs)

        return Fitted(answer=answer, size_bytes=model.coef_.nbytes + 8 * num_outputs)


def _always(answer: NDArray[np.float64]) -> Fitted:
    return Fitted(answer=lambda inputs: np.tile(answer, (len(inputs), 1)), size_bytes=answer.nbytes)


def _text(name: str, values: NDArray[Any]) -> NDArray[np.str_]:
    """Write a category or a boolean as text; a gap is empty."""
    if values.dtype.kind == "U":
        return values
    gap = np.isnan(values)
    others = values[~gap & (values != 0) & (values != 1)]
    if values.ndim != 1 or len(others):
        shown = f", such as {others[0]:g}" if len(others) else ""
        raise UserError(
            f"Expected categories or booleans in `columns` of a group mean but `{name}` holds "
            f"other values{shown}. Name columns that name groups, or declare it one "
            f"(`{kind_advice(name)}`)."
        )
    return np.where(gap, "", np.where(values == 1, "true", "false"))


def _codes(values: Sequence[Sequence[str]], texts: Sequence[NDArray[np.str_]]) -> NDArray[np.int64]:
    """Number the value of each column, [N, columns]; 0 for one never seen."""
    return np.stack([codes_of(*own) for own in zip(values, texts, strict=True)], axis=1)
