"""Claims about scikit-learn estimators as teachers, held against scikit-learn itself."""

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.datasets import get_data_home
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC

from distill.errors import UserError
from distill.tasks import classification
from distill.training.data.images import ImageData
from distill.training.data.splits import RowsOnDisk
from distill.training.teachers.estimator import SklearnTeacher, fit_estimator, flatten_images
from distill.training.teachers.estimator_files import load_estimator, save_estimator
from distill.training.teachers.sources import sklearn_teacher

DIGITS = tuple("0123456789")
FOREST = RandomForestClassifier(n_estimators=7, max_depth=6, random_state=0)
ESTIMATORS = {
    "forest": FOREST,
    "pipeline": make_pipeline(StandardScaler(), PCA(8), LogisticRegression(max_iter=500)),
    "neighbours": KNeighborsClassifier(3),
    "bayes": GaussianNB(),
    "boosting": HistGradientBoostingClassifier(max_iter=2, random_state=0),
    "network": MLPClassifier((6,), max_iter=300, tol=0.1, random_state=0),
}


@pytest.fixture(scope="module")
def digits(data):
    """300 training images and 50 test images, few enough to fit anything quickly."""
    return ImageData(
        name="few", task=classification(DIGITS), train=data.train.take(np.arange(300)),
        validation=data.validation, test=data.test.take(np.arange(50)),
    )  # fmt: skip


def logits_of(teacher, images):
    return teacher(torch.from_numpy(images), torch.arange(len(images))).logits.numpy()


def pixels(images):
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def log(probabilities):
    """Take the logarithm in double precision; what is below 1e-12 counts as that."""
    return np.log(np.maximum(probabilities.astype(np.float64), 1e-12))


def halve(values):
    """Stand for a function of the user's own."""
    return values / 2


@pytest.mark.parametrize("name", ESTIMATORS)
def test_fitted_saved_and_loaded_it_answers_as_scikit_learn_does(name, digits, tmp_path):
    train, images = digits.train, digits.test.inputs
    fitted = fit_estimator(ESTIMATORS[name], train.inputs, train.labels)
    save_estimator(fitted, tmp_path / "a.skops")
    teacher = SklearnTeacher(load_estimator(tmp_path / "a.skops"), DIGITS)
    itself = clone(ESTIMATORS[name]).fit(pixels(train.inputs), train.labels)
    expected = itself.predict_proba(pixels(images))
    found = logits_of(teacher, images)
    np.testing.assert_allclose(found, log(expected), rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32
    assert not teacher.train().training
    assert teacher.fingerprint == SklearnTeacher(fitted, DIGITS).fingerprint
    assert not hasattr(ESTIMATORS[name], "classes_")  # a copy was fitted


def test_a_fingerprint_changes_with_settings_and_with_what_was_learnt(digits):
    def fingerprint(num=300, **settings):
        chosen = clone(FOREST).set_params(**settings)
        fitted = fit_estimator(chosen, digits.train.inputs[:num], digits.train.labels[:num])
        return SklearnTeacher(fitted, DIGITS).fingerprint

    prints = [fingerprint(), fingerprint(random_state=1), fingerprint(n_estimators=6)]
    prints += [fingerprint(299), fingerprint(criterion="entropy")]
    assert len(set(prints)) == 5
    assert fingerprint() == prints[0]


def test_classes_missing_from_training_get_the_floor(digits):
    labels = digits.train.labels
    there = ~np.isin(labels, [0, 6])
    images = digits.train.inputs[there]
    estimator = fit_estimator(ESTIMATORS["bayes"], images, labels[there])
    found = logits_of(SklearnTeacher(estimator, DIGITS), digits.test.inputs)
    np.testing.assert_allclose(found[:, [0, 6]], np.log(1e-12), rtol=1e-6)
    itself = clone(ESTIMATORS["bayes"]).fit(pixels(images), labels[there])
    known = [1, 2, 3, 4, 5, 7, 8, 9]
    expected = itself.predict_proba(pixels(digits.test.inputs))
    np.testing.assert_allclose(found[:, known], log(expected), rtol=1e-5, atol=1e-6)


def test_images_on_disk_are_flattened_as_those_in_memory(digits, rng):
    rows = rng.integers(0, 300, 2000)  # more than one piece
    found = flatten_images(RowsOnDisk(digits.train.inputs, rows))
    np.testing.assert_array_equal(found, pixels(digits.train.inputs[rows]))


@pytest.mark.parametrize(
    "estimator", [LinearSVC(), SVC(), make_pipeline(StandardScaler(), LinearSVC())]
)
def test_an_estimator_without_probabilities_is_refused_before_it_is_fitted(estimator, digits):
    with pytest.raises(UserError, match="with `predict_proba` but"):
        fit_estimator(estimator, digits.train.inputs, digits.train.labels)
    with pytest.raises(UserError, match="with `predict_proba` but"):
        SklearnTeacher(estimator, DIGITS)


def test_an_estimator_that_refuses_its_settings_is_one_message(digits):
    with pytest.raises(
        UserError, match=r"RandomForestClassifier to fit 300 samples .*n_estimators"
    ):
        fit_estimator(RandomForestClassifier(-1), digits.train.inputs, digits.train.labels)


@pytest.mark.parametrize("labels", [None, "other names", [10], [-1], "more dimensions"])
def test_an_estimator_of_other_labels_is_refused(labels, digits):
    estimator = clone(FOREST)
    given = {
        "other names": np.char.add("digit ", digits.train.labels.astype(str)),
        "more dimensions": np.stack([digits.train.labels] * 2, axis=1),
    }
    if labels is not None:
        several = given[labels] if isinstance(labels, str) else np.resize([0, *labels], 300)
        estimator.fit(pixels(digits.train.inputs), several)
    with pytest.raises(UserError, match="names of the 10 classes, or on whole labels from 0"):
        SklearnTeacher(estimator, DIGITS)


def test_images_of_another_size_are_refused(digits):
    fitted = fit_estimator(FOREST, digits.train.inputs, digits.train.labels)
    with pytest.raises(UserError, match=r"images of 64 values.*but got 56 \(7x8x1\)"):
        logits_of(SklearnTeacher(fitted, DIGITS), digits.test.inputs[:, 1:])


class Trap:
    """Leaves a file behind wherever it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    path, marker = tmp_path / "a.skops", tmp_path / "it ran"
    path.write_bytes(pickle.dumps(Trap(marker)))
    with pytest.raises(UserError, match="Pickles are never opened"):
        load_estimator(path, trusted_types=["posix.mkdir"])
    assert not marker.exists()
    subprocess.run([sys.executable, "-m", "pickle", path], check=False, capture_output=True)
    assert marker.exists()  # so it would have


def test_a_pickle_inside_a_skops_file_is_not_executed(digits, tmp_path):
    marker, content, trapped = tmp_path / "it ran", io.BytesIO(), io.BytesIO()
    np.save(trapped, np.array([Trap(marker)], object))
    fitted = fit_estimator(ESTIMATORS["bayes"], digits.train.inputs, digits.train.labels)
    with (
        zipfile.ZipFile(io.BytesIO(skops.io.dumps(fitted))) as archive,
        zipfile.ZipFile(content, "w") as spoilt,
    ):
        for name in archive.namelist():
            spoilt.writestr(
                name, trapped.getvalue() if name.endswith(".npy") else archive.read(name)
            )
    (tmp_path / "a.skops").write_bytes(content.getvalue())
    with pytest.raises(UserError, match=r"damaged or something else .*allow_pickle"):
        load_estimator(tmp_path / "a.skops")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.mkdir, "posix.mkdir"),
        (halve, "test_teachers_estimator.halve"),
        (get_data_home, "sklearn.datasets._base.get_data_home"),  # makes a folder when called
    ],
)
def test_untrusted_types_are_refused_and_named(function, named, digits, tmp_path):
    estimator = make_pipeline(FunctionTransformer(function), clone(ESTIMATORS["bayes"]))
    save_estimator(estimator, tmp_path / "a.skops")
    with pytest.raises(UserError, match=rf"also holds {named}\. .*trusted_types=\[{named}\]"):
        load_estimator(tmp_path / "a.skops", trusted_types=["something.else"])


def test_types_that_are_trusted_by_name_are_loaded(digits, tmp_path):
    estimator = make_pipeline(FunctionTransformer(halve), clone(ESTIMATORS["bayes"]))
    estimator.fit(pixels(digits.train.inputs), digits.train.labels)
    save_estimator(estimator, tmp_path / "a.skops")
    loaded = load_estimator(tmp_path / "a.skops", ["test_teachers_estimator.halve"])
    found = logits_of(SklearnTeacher(loaded, DIGITS), digits.test.inputs)
    expected = estimator.predict_proba(pixels(digits.test.inputs))
    np.testing.assert_allclose(found, log(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_file_is_refused(share, digits, tmp_path):
    path = tmp_path / "a.skops"
    save_estimator(clone(FOREST), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError, match="damaged or something else"):
        load_estimator(path)
    with pytest.raises(UserError, match="but there is none"):
        load_estimator(tmp_path / "none.skops")


def kept(folder: Path):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.skops")}


def test_an_estimator_is_fitted_once_for_its_settings_and_its_data(digits, tmp_path):
    first = sklearn_teacher(digits, tmp_path, estimator=FOREST)
    files = kept(tmp_path)
    again = sklearn_teacher(digits, tmp_path, estimator=clone(FOREST))
    assert kept(tmp_path) == files
    assert again.fingerprint == first.fingerprint
    smaller = clone(FOREST).set_params(n_estimators=3)
    assert len(sklearn_teacher(digits, tmp_path, estimator=smaller).estimator.estimators_) == 3
    fewer = ImageData(
        name="fewer", task=classification(DIGITS), train=digits.train.take(np.arange(299)),
        validation=digits.validation, test=digits.test,
    )  # fmt: skip
    other = sklearn_teacher(fewer, tmp_path, estimator=FOREST)
    itself = clone(FOREST).fit(pixels(fewer.train.inputs), fewer.train.labels)
    expected = itself.predict_proba(pixels(digits.test.inputs))
    found = logits_of(other, digits.test.inputs)
    np.testing.assert_allclose(found, log(expected), rtol=1e-5, atol=1e-6)


def test_a_saved_estimators_classes_are_mapped_by_name(digits, tmp_path):
    path = str(tmp_path / "a.skops")
    fitted = clone(ESTIMATORS["bayes"]).fit(pixels(digits.train.inputs), digits.train.labels)
    save_estimator(fitted, Path(path))
    names = list(range(9, -1, -1))  # as a command line reads them
    mapped = sklearn_teacher(digits, tmp_path, path=path, classes=names)
    whole = sklearn_teacher(digits, tmp_path, path=path)
    found, expected = (logits_of(teacher, digits.test.inputs) for teacher in (mapped, whole))
    np.testing.assert_array_equal(found, expected[:, ::-1])
    beside_a_default = sklearn_teacher(digits, tmp_path, path=path, estimator=FOREST)
    assert beside_a_default.fingerprint == whole.fingerprint
    with pytest.raises(UserError, match=r"`teacher\.path` to load, but got neither"):
        sklearn_teacher(digits, tmp_path)
