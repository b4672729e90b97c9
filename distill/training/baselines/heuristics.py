"""Predictors that need no training run, each fitted on the training samples in a second or so.

A heuristic has `fit(train, num_outputs)`, which returns a `Fitted` that answers any samples: class
numbers [N], or log-probabilities [N, C] where it has them; of several labels logits [N, C]. It
names the `kinds` of tasks that it is for. Knows nothing of networks.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from distill.errors import UserError
from distill.tasks import TaskKind
from distill.training.baselines.features import features_of
from distill.training.data.splits import Split, chunks

MAX_FIT_SAMPLES = 5000


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A heuristic that has seen the training set.

    Attributes:
        answer: inputs of N samples, or their records, to class numbers [N], or to outputs [N, D]:
            log-probabilities, logits, or numbers in the labels' own units.
        size_bytes: of the numbers that it keeps.
        note: what it has chosen for itself, if anything.
        reads_records: whether it answers a split's `records`, not its `inputs`.
    """

    answer: Callable[[Any], NDArray[Any]]
    size_bytes: int
    note: str | None = None
    reads_records: bool = False


class MajorityClass:
    """Always answer the commonest class of the training set."""

    kinds = frozenset({TaskKind.CLASSIFICATION})

    def fit(self, train: Split, num_classes: int) -> Fitted:
        """Count the classes."""
        commonest = np.bincount(train.labels, minlength=num_classes).argmax()
        return Fitted(
            answer=lambda images: np.full(len(images), commonest), size_bytes=commonest.nbytes
        )


class ClassPrior:
    """Answer the training set's class shares, with add-one smoothing (Laplace)."""

    kinds = frozenset({TaskKind.CLASSIFICATION})

    def fit(self, train: Split, num_classes: int) -> Fitted:
        """Count the classes."""
        shares = _log_shares(np.bincount(train.labels, minlength=num_classes))
        return Fitted(
            answer=lambda images: np.tile(shares, (len(images), 1)), size_bytes=shares.nbytes
        )


class LabelShares:
    """Answer the logit of each label's share in the training set, with add-one smoothing."""

    kinds = frozenset({TaskKind.MULTI_LABEL})

    def fit(self, train: Split, num_outputs: int) -> Fitted:
        """Count each label."""
        logits = _label_logits(train.labels)
        return Fitted(
            answer=lambda inputs: np.tile(logits, (len(inputs), 1)), size_bytes=logits.nbytes
        )


class NearestCentroid:
    """Answer the class whose mean training sample is nearest, in pixels or a row's features."""

    kinds = frozenset({TaskKind.CLASSIFICATION})

    def fit(self, train: Split, num_classes: int) -> Fitted:
        """Average the samples of every class."""
        layout, seen = train.layout, features_of(train.inputs, train.layout)
        present = np.flatnonzero(np.bincount(train.labels, minlength=num_classes))
        means = [np.asarray(seen[train.labels == c].mean(axis=0)) for c in present]
        centroids = np.stack(means).astype(np.float64)
        halves = (centroids**2).sum(axis=1) / 2

        def answer(inputs: Any) -> NDArray[np.int64]:  # of |x - c|^2, |x|^2 is every class's
            return present[(halves - features_of(inputs, layout) @ centroids.T).argmin(axis=1)]

        return Fitted(answer=answer, size_bytes=centroids.nbytes)


class LogisticRegressionOnPixels:
    """A linear model on pixels, or on a row's features; of several labels one for each.

    Fitted on at most `MAX_FIT_SAMPLES` training samples drawn at random: a baseline must take
    seconds. The solver's stop at 200 iterations is part of the baseline. A label that all of them
    have, or none, is answered with its share.
    """

    kinds = frozenset({TaskKind.CLASSIFICATION, TaskKind.MULTI_LABEL})

    def fit(self, train: Split, num_outputs: int) -> Fitted:
        """Fit by scikit-learn's default solver."""
        rng = np.random.default_rng(0)
        layout = train.layout
        chosen = rng.permutation(len(train))[:MAX_FIT_SAMPLES]
        train = train.take(np.sort(chosen))
        features = features_of(train.inputs, layout)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit = _fit_labels if train.labels.ndim == 2 else _fit_classes
            answer, size_bytes = fit(features, train.labels, num_outputs)
        return Fitted(
            answer=lambda inputs: answer(features_of(inputs, layout)), size_bytes=size_bytes
        )


class LookupTable:
    """Answer a group's own class shares in the training set; a group never seen, all of it.

    What group a sample is in is a rule of yours, the groups a table (a group mean, if you will).

    Args:
        key: images [N, H, W, C] to whole numbers [N, F] that name each one's group; None takes how
            bright each quarter of the image is, in four steps.
    """

    kinds = frozenset({TaskKind.CLASSIFICATION})

    def __init__(self, key: Callable[[Any], NDArray[Any]] | None = None) -> None:
        self._key = key or brightness

    def fit(self, train: Split, num_classes: int) -> Fitted:
        """Count the classes of every group."""
        groups, shares = group_shares(self._key(train.inputs), train.labels, num_classes)
        return Fitted(
            answer=lambda images: look_up(groups, shares, self._key(images)),
            size_bytes=shares.nbytes,
        )


def group_shares(
    keys: NDArray[Any], labels: NDArray[np.int64], num_classes: int
) -> tuple[dict[tuple, int], NDArray[np.float64]]:
    """Learn the class shares of every group, and of all samples together.

    Each group's counts are smoothed by one more sample that is spread as all samples are.

    Args:
        keys: name the group of each sample, [N, F].
        labels: [N].
        num_classes: C.

    Returns:
        The row of each group, and log shares [G + 1, C]; the last row is that of all samples.
    """
    names, group = np.unique(keys, axis=0, return_inverse=True)
    counts = np.zeros((len(names) + 1, num_classes))
    np.add.at(counts, (group.ravel(), labels), 1)
    whole = np.exp(_log_shares(np.bincount(labels, minlength=num_classes)))
    smoothed = counts + whole
    rows = {tuple(name): row for row, name in enumerate(names.tolist())}
    return rows, np.log(smoothed / smoothed.sum(axis=1, keepdims=True))


def look_up(
    rows: dict[tuple, int], shares: NDArray[np.float64], keys: NDArray[Any]
) -> NDArray[np.float64]:
    """Answer with the shares of each sample's group, [N, C], from what `group_shares` learnt."""
    return shares[[rows.get(tuple(key), len(shares) - 1) for key in keys.tolist()]]


def brightness(images: Any, *, side: int = 2, levels: int = 4) -> NDArray[np.int64]:
    """Mean brightness of `side` x `side` parts of each image, in `levels` steps, [N, side ** 2]."""
    if images.ndim == 2:
        raise UserError(
            "Expected images to group by brightness but got rows of a table. Give the baseline "
            "`lookup_table` a `key` of your own, or leave it out of `baselines`."
        )
    height, width = images.shape[1:3]
    rows, columns = (np.linspace(0, size, side + 1).astype(int) for size in (height, width))
    means = [
        part[:, top:bottom, left:right].mean(axis=(1, 2, 3))
        for part in chunks(images)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
    by_chunk = [np.stack(means[i : i + side**2], 1) for i in range(0, len(means), side**2)]
    return (np.concatenate(by_chunk) * levels / 256).astype(np.int64)


def _fit_classes(
    features: Any, labels: NDArray[np.int64], num_classes: int
) -> tuple[Callable[[Any], NDArray[np.float64]], int]:
    model = LogisticRegression(max_iter=200).fit(features, labels)

    def answer(features: Any) -> NDArray[np.float64]:
        logits = np.full((features.shape[0], num_classes), -30.0)  # unseen is all but excluded
        probabilities = np.asarray(model.predict_proba(features))
        logits[:, model.classes_] = np.log(np.maximum(probabilities, 1e-12))
        return logits

    return answer, model.coef_.nbytes + model.intercept_.nbytes


def _fit_labels(
    features: Any, labels: NDArray[np.floating], num_labels: int
) -> tuple[Callable[[Any], NDArray[np.float64]], int]:
    weights, offsets = np.zeros((num_labels, features.shape[1])), _label_logits(labels)
    for number, label in enumerate(labels.T):
        if label.any() and not label.all():
            model = LogisticRegression(max_iter=200).fit(features, label)
            weights[number], offsets[number] = model.coef_[0], model.intercept_[0]
    return lambda features: features @ weights.T + offsets, weights.nbytes + offsets.nbytes


def _label_logits(labels: NDArray[np.floating]) -> NDArray[np.float64]:
    there = labels.sum(axis=0, dtype=np.float64)
    return np.log(there + 1) - np.log(len(labels) - there + 1)


def _log_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.log((counts + 1) / (counts + 1).sum())
