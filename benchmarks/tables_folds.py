"""Mixtures heavy enough to want distilling, and folds to judge them on.

Knows nothing of the product: an interpreter without it fits the very same mixtures.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

NUM_FOLDS = 5


def classifier(seed: int, num_trees: int = 300) -> VotingClassifier:
    """Two forests, boosted trees, a calibrated SVM and a linear model: means of probabilities."""
    members = {
        "random_forest": RandomForestClassifier(num_trees, random_state=seed),
        "extra_trees": ExtraTreesClassifier(num_trees, random_state=seed),
        "boosting": HistGradientBoostingClassifier(max_iter=50, random_state=seed),
        "svm": CalibratedClassifierCV(SVC(C=10.0), cv=5),
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    }
    return VotingClassifier(list(members.items()), voting="soft")


def regressor(seed: int, num_trees: int = 300) -> StackingRegressor:
    """Two forests, boosted trees, an SVM and a linear model, weighed by what they say out of fold.

    A plain mean would let the worst decide: of numbers some are far worse than others.
    """
    members = {
        "random_forest": RandomForestRegressor(num_trees, random_state=seed),
        "extra_trees": ExtraTreesRegressor(num_trees, random_state=seed),
        "boosting": HistGradientBoostingRegressor(random_state=seed),
        "svm": SVR(cache_size=500),
        "linear": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13))),
    }
    return StackingRegressor(list(members.items()), RidgeCV(np.logspace(-3, 3, 13)), cv=3)


def folds(labels: NDArray[Any], seed: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Divide rows into 5 folds, with as many of each class in every one; by seed another way.

    Returns:
        Positions of the rows to learn from and of those to report on, of each fold.
    """
    kind = StratifiedKFold if labels.dtype.kind in "iu" else KFold
    return kind(NUM_FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)
