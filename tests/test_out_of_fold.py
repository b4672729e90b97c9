"""Claims about teachers that say of a training sample what they would of a new one."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict

from distill.training.data.folds import draw_folds
from distill.training.data.tables import sklearn_table
from distill.training.labelling import ask_test
from distill.training.teachers.sources import sklearn_teacher

FOREST = RandomForestClassifier(10, random_state=0)


@pytest.fixture(scope="module")
def wine():
    return sklearn_table(name="wine")


def test_training_samples_are_answered_as_by_cross_validation_and_others_by_the_whole(
    wine, tmp_path
):
    teacher = sklearn_teacher(wine, tmp_path, estimator=FOREST, folds=4)
    folds = draw_folds(wine.train, 4)
    parts = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(4)]
    expected = cross_val_predict(
        FOREST, wine.train.inputs, wine.train.labels, cv=parts, method="predict_proba"
    )
    order = np.random.default_rng(0).permutation(len(wine.train))
    asked = torch.from_numpy(wine.train.inputs[order])
    index = torch.from_numpy(wine.train.indices[order])
    found = teacher(asked, index).logits.softmax(dim=1)
    np.testing.assert_allclose(found, expected[order], atol=1e-5)
    whole = sklearn_teacher(wine, tmp_path, estimator=FOREST)
    np.testing.assert_array_equal(ask_test(teacher, wine.test), ask_test(whole, wine.test))
    seen = whole(asked, index).logits.softmax(dim=1)
    assert (seen - found).abs().max() > 0.05  # it remembers
