"""Claims about teachers that say of a training sample what they would of a new one."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict

from distill.errors import UsageError
from distill.training.data.tables import sklearn_table
from distill.training.labelling import ask_test
from distill.training.teachers.out_of_fold import draw_folds
from distill.training.teachers.sources import sklearn_teacher

FOREST = RandomForestClassifier(10, random_state=0)


@pytest.fixture(scope="module")
def wine():
    return sklearn_table(name="wine")


def test_training_samples_are_answered_as_by_cross_validation_and_others_by_the_whole(
    wine, tmp_path
):
    teacher = sklearn_teacher(wine, tmp_path, estimator=FOREST, folds=4)
    folds = draw_folds(wine.train.labels, 4)
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


def test_folds_are_even_in_every_class_and_the_same_again():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    folds = draw_folds(labels, 5)
    np.testing.assert_array_equal(folds, draw_folds(labels, 5))
    for label, count in enumerate((10, 6, 4)):
        assert np.bincount(folds[labels == label]).tolist() == [count] * 5
    numbers = np.random.default_rng(0).normal(size=(40, 1))
    assert np.bincount(draw_folds(numbers, 4)).tolist() == [10] * 4


@pytest.mark.parametrize("count", [1, 101])
def test_a_number_of_folds_that_cannot_be_is_refused(count):
    with pytest.raises(UsageError, match=r"`teacher.folds` to be 0 for none, or from 2 to the 100"):
        draw_folds(np.zeros(100, np.int64), count)
