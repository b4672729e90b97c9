"""Folds of the training samples: which are answered together, and which may be learnt from then.

Samples that depend on each other are of one fold, or else what is learnt of one is remembered of
the other. Knows nothing of models.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

from distill.errors import UsageError
from distill.training.data.splits import Split

Folds = NDArray[np.int64]


def draw_folds(train: Split, count: int, seed: int = 0) -> Folds:
    """Draw the fold of each sample, [N].

    Where samples are split by time, folds are stretches of time, each as many samples as can be
    without parting those of a moment. Otherwise samples are drawn at random, those of one block
    together, of every class as many in each fold where there are classes.

    Raises:
        UsageError: there are fewer samples, blocks or moments than folds.
    """
    if not 2 <= count <= len(train):
        raise UsageError(
            f"Expected `teacher.folds` to be 0 for none, or from 2 to the {len(train)} training "
            f"samples, but got {count}."
        )
    if train.spans is None:
        return _at_random(train, count, seed)
    folds = _stretches(train.spans[:, 0], count)
    _check_filled(len(np.unique(folds)), count, "moments")
    return folds


def rows_without(train: Split, folds: Folds, number: int) -> NDArray[np.int64]:
    """Find the samples that may be learnt from to answer a fold, as sorted positions.

    Those of other folds; where samples are split by time, without those whose labels reach into
    the fold's (purged: López de Prado, "Advances in Financial Machine Learning", 2018).

    Raises:
        UsageError: there are none.
    """
    others = folds != number
    if train.spans is not None:
        first, last = train.spans.T
        others = (last < first[~others].min()) | (first > last[~others].max())
    if not others.any():
        raise UsageError(
            f"Expected samples to learn from beside those of each fold of {folds.max() + 1} "
            "(`teacher.folds`) but all labels reach into one of them. Ask for fewer, or for 0."
        )
    return np.flatnonzero(others)


def _stretches(moments: NDArray[np.int64], count: int) -> Folds:
    _, place, sizes = np.unique(moments, return_inverse=True, return_counts=True)
    before = np.cumsum(sizes) - sizes
    return (before * count // len(moments))[place]


def _at_random(train: Split, count: int, seed: int) -> Folds:
    labels, blocks = train.labels, train.blocks
    classes = labels.ndim == 1 and labels.dtype.kind in "iu"
    stratified = classes and np.bincount(labels)[np.unique(labels)].min() >= count
    strata = labels if stratified else np.zeros(len(train), np.int64)
    kind: Callable[..., KFold | StratifiedKFold | StratifiedGroupKFold]
    kind = StratifiedKFold if stratified else KFold
    if blocks is not None:
        kind = StratifiedGroupKFold
        _check_filled(len(np.unique(blocks)), count, "groups (`data.group`)")
    folds = np.empty(len(train), np.int64)
    drawn = kind(count, shuffle=True, random_state=seed).split(strata, strata, blocks)
    for number, (_, rows) in enumerate(drawn):
        folds[rows] = number
    return folds


def _check_filled(num_filled: int, count: int, what: str) -> None:
    if num_filled < count:
        raise UsageError(
            f"Expected {what} of the training samples to fill {count} folds (`teacher.folds`) but "
            f"they fill {num_filled}. Ask for fewer, or for 0."
        )
