"""Predictors that need no training run, each fitted on the training images in a second or so.

A heuristic has `fit(train, num_classes)`, which returns a `Fitted` that answers any images: class
numbers [N], or log-probabilities [N, C] where it has them. Knows nothing of networks.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from distill.errors import UserError
from distill.training.data.splits import Split, chunks

MAX_FIT_SAMPLES = 5000
MAX_SIDE = 32


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A heuristic that has seen the training set.

    Attributes:
        answer: images [N, H, W, C] to class numbers [N] or log-probabilities [N, C].
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

    def fit(self, train: Split, num_classes: int) -> Fitted:
        """Count the classes."""
        commonest = np.bincount(train.labels, minlength=num_classes).argmax()
        return Fitted(
            answer=lambda images: np.full(len(images), commonest), size_bytes=commonest.nbytes
        )


class ClassPrior:
    """Answer the training set's class shares, with add-one smoothing (Laplace)."""

    def fit(self, train: Split, num_classes: int) -> Fitted:
        """Count the classes."""
        shares = _log_shares(np.bincount(train.labels, minlength=num_classes))
        return Fitted(
            answer=lambda images: np.tile(shares, (len(images), 1)), size_bytes=shares.nbytes
        )


class NearestCentroid:
    """Answer the class whose mean training image is nearest in pixels."""

    def fit(self, train: Split, num_classes: int) -> Fitted:
        """Average the images of every class."""
        seen = pixels(train.inputs)
        present = np.flatnonzero(np.bincount(train.labels, minlength=num_classes))
        centroids = np.stack([seen[train.labels == c].mean(axis=0) for c in present])
        return Fitted(
            answer=lambda images: present[cdist(pixels(images), centroids).argmin(axis=1)],
            size_bytes=centroids.nbytes,
        )


class LogisticRegressionOnPixels:
    """A linear model on pixels.

    Fitted on at most `MAX_FIT_SAMPLES` training images drawn at random: a baseline must take
    seconds. The solver's stop at 200 iterations is part of the baseline.
    """

    def fit(self, train: Split, num_classes: int) -> Fitted:
        """Fit by scikit-learn's default solver."""
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(train))[:MAX_FIT_SAMPLES]
        train = train.take(np.sort(chosen))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(max_iter=200).fit(pixels(train.inputs), train.labels)

        def answer(images: Any) -> NDArray[np.float64]:
            logits = np.full((len(images), num_classes), -30.0)  # unseen is all but excluded
            probabilities = np.asarray(model.predict_proba(pixels(images)))
            logits[:, model.classes_] = np.log(np.maximum(probabilities, 1e-12))
            return logits

        return Fitted(answer=answer, size_bytes=model.coef_.nbytes + model.intercept_.nbytes)


class LookupTable:
    """Answer a group's own class shares in the training set; a group never seen, all of it.

    What group a sample is in is a rule of yours, the groups a table (a group mean, if you will).

    Args:
        key: images [N, H, W, C] to whole numbers [N, F] that name each one's group; None takes how
            bright each quarter of the image is, in four steps.
    """

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


def pixels(images: Any) -> NDArray[np.float32]:
    """Flatten images to [N, features] in 0..1, averaged in blocks down to `MAX_SIDE` a side.

    The encoded rows of a table, [N, F], are features already.
    """
    if images.ndim == 2:
        return np.asarray(images)
    height, width, channels = images.shape[1:]
    block = -(-max(height, width) // MAX_SIDE)
    rows, columns = height // block, width // block
    flat = np.empty((len(images), rows * columns * channels), np.float32)
    start = 0
    for part in chunks(images):
        cut = part[:, : rows * block, : columns * block]
        blocks = cut.reshape(len(part), rows, block, columns, block, channels)
        means = blocks.mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
        flat[start : start + len(part)] = means.reshape(len(part), -1)
        start += len(part)
    return flat


def _log_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.log((counts + 1) / (counts + 1).sum())
