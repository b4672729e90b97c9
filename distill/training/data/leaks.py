"""Columns that know the answer, or stop being known: what looks good in a table and fails in use.

Named warnings, each with what was measured. Knows nothing of files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from distill.tables.columns import Column, Kind, Records, is_missing
from distill.tables.encoding import codes_of
from distill.tasks import Task, TaskKind

MAX_ROWS = 20_000  # of a check; drawn at random
NEAR_PERFECT = 0.98  # share of what guessing gets wrong that one column gets right
CONSTANT_SHARE = 0.1  # of the rows, the latest, in which a column that varied before does not


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A warning about a column.

    Attributes:
        name: of the check.
        column: which column.
        text: what was found and what to do, a sentence.
    """

    name: str
    column: str
    text: str

    def __str__(self) -> str:
        """Write it as a warning: its name, then what was found."""
        return f"{self.name.replace('_', ' ').capitalize()}: {self.text}"


def find_leaks(
    columns: Sequence[Column],
    rows: Records,
    task: Task,
    labels: NDArray[Any],
    *,
    times: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> list[Leak]:
    """Look for columns that would not help in use as they do here.

    Args:
        columns: that a model is to take.
        rows: training rows, raw.
        task: of the labels.
        labels: of those rows.
        times: in milliseconds, [N]; None where the table has none.
        seed: of the rows drawn and of the folds.
    """
    drawn = np.random.default_rng(seed).permutation(len(labels))[:MAX_ROWS]
    found = []
    for column in columns:
        values = rows[column.name]
        share = _explained(column, values[drawn], task, labels[drawn])
        if share >= NEAR_PERFECT:
            found.append(
                Leak(
                    name="near_perfect_predictor",
                    column=column.name,
                    text=f"`{column.name}` alone tells {share:.1%} of the label. Is it known "
                    "before the label is? If not, add it to `data.unavailable`.",
                )
            )
        if times is not None:
            found += find_stops(column, values, times)
    return found


def _explained(column: Column, values: NDArray[Any], task: Task, labels: NDArray[Any]) -> float:
    """Tell which share of the label one column explains, on rows that a small tree has not seen.

    Of classes 1 - errors / errors of the commonest class, of numbers R^2 of their ranks; of several
    outputs the best told.
    """
    gap = is_missing(column, values)
    if column.kind is Kind.CATEGORY:
        names, counts = np.unique(values, return_counts=True)
        codes = codes_of([str(n) for n in names[np.argsort(-counts)[:255]]], values)
        features = np.eye(codes.max() + 1, dtype=np.float32)[codes]
    else:
        filled = np.where(gap, 0, values).astype(np.float64)
        features = np.stack([filled, gap], axis=1)
    outputs = labels[:, None] if labels.ndim == 1 else labels
    return max(_tree_explains(features, own, task) for own in outputs.T)


def _tree_explains(features: NDArray[Any], labels: NDArray[Any], task: Task) -> float:
    leaf = max(1, len(labels) // 200)
    if task.kind is TaskKind.REGRESSION:
        tree = DecisionTreeRegressor(max_leaf_nodes=64, min_samples_leaf=leaf, random_state=0)
        ranks = rankdata(labels)  # a few large numbers would decide alone
        answers = cross_val_predict(tree, features, ranks, cv=3)
        return 1 - float(np.mean((answers - ranks) ** 2) / np.var(ranks))
    if len(np.unique(labels)) < 2 or np.unique(labels, return_counts=True)[1].min() < 3:
        return 0.0
    tree = DecisionTreeClassifier(max_leaf_nodes=64, min_samples_leaf=leaf, random_state=0)
    answers = cross_val_predict(tree, features, labels, cv=3)
    guessed = 1 - np.unique(labels, return_counts=True)[1].max() / len(labels)
    return 1 - float(np.mean(answers != labels) / guessed)


def find_stops(column: Column, values: NDArray[Any], times: NDArray[np.int64]) -> list[Leak]:
    """Warn of a column that varies, and then, for the latest rows, no longer does."""
    order = np.argsort(times, kind="stable")
    ordered = values[order]
    same = ordered == ordered[-1]
    if column.kind in (Kind.NUMBER, Kind.BOOLEAN) and np.isnan(ordered[-1]):
        same = np.isnan(ordered)
    changes = np.flatnonzero(~same)
    if not len(changes):
        return []
    rest = len(values) - 1 - changes[-1]
    # A rare value is constant most of the time; only what varied as often before is suspicious.
    varied = np.mean(ordered[1 : changes[-1] + 1] != ordered[: changes[-1]])
    if rest < CONSTANT_SHARE * len(values) or rest * varied < 10:
        return []
    since = datetime.fromtimestamp(float(times[order][changes[-1] + 1]) / 1000, UTC)
    is_gap = bool(is_missing(column, ordered[-1:])[0])
    what = "has only gaps" if is_gap else f"is always {ordered[-1]}"
    return [
        Leak(
            name="constant_after_a_date",
            column=column.name,
            text=f"`{column.name}` {what} from {since:%Y-%m-%d} on ({rest:,} rows), and varied "
            "before: will it be known in future? If not, add it to `data.unavailable`.",
        )
    ]
