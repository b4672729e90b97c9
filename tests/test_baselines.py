import dataclasses

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import NearestCentroid

from distill.errors import UsageError
from distill.training.baselines import (
    _pixels,
    class_prior,
    logistic_regression,
    majority_class,
    nearest_centroid,
    score_baselines,
)


def flat(split):
    return split.images.reshape(len(split), -1) / 255


def test_majority_and_prior_are_scikit_learns_dummies(data):
    truth = DummyClassifier(strategy="prior").fit(flat(data.train), data.train.labels)
    expected = truth.predict(flat(data.test))
    np.testing.assert_array_equal(majority_class(data.train, data.test, 10), expected)
    shares = np.exp(class_prior(data.train, data.test, 10))
    np.testing.assert_allclose(shares, truth.predict_proba(flat(data.test)), atol=2e-3)


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
def test_nearest_centroid_is_scikit_learns(data):
    truth = NearestCentroid().fit(flat(data.train), data.train.labels)
    found = nearest_centroid(data.train, data.test, 10)
    np.testing.assert_array_equal(found, truth.predict(flat(data.test)))


def test_logistic_regression_beats_the_centroids_on_digits(data):
    answers = logistic_regression(data.train, data.test, 10).argmax(axis=1)
    centroids = nearest_centroid(data.train, data.test, 10)
    assert (answers == data.test.labels).mean() > (centroids == data.test.labels).mean()


def test_a_class_never_seen_is_never_answered(data):
    train = data.train.take(np.flatnonzero(data.train.labels != 3))
    for baseline in (logistic_regression, nearest_centroid):
        output = baseline(train, data.test, 10)
        answers = output.argmax(axis=1) if output.ndim == 2 else output
        assert 3 not in answers
        assert 9 in answers


def test_large_images_are_averaged_in_blocks(data, rng):
    images = rng.integers(0, 256, (4, 70, 64, 3)).astype(np.uint8)
    split = dataclasses.replace(data.test.take(np.arange(4)), images=images)
    found = _pixels(split).reshape(4, 23, 21, 3)
    assert found[1, 2, 3, 0] == pytest.approx(images[1, 6:9, 9:12, 0].mean() / 255)


def test_scores_have_intervals_and_unknown_names_have_neighbours(data):
    scores, predictions = score_baselines(data, ["class_prior"], confidence=0.9)
    accuracy = scores["class_prior"]["accuracy"]
    assert accuracy.interval[0] < accuracy.estimate < accuracy.interval[1]
    assert len(predictions["class_prior"]) == len(data.test)
    with pytest.raises(UsageError, match="class_prior"):
        score_baselines(data, ["class_priors"], confidence=0.9)
