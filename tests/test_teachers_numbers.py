"""Claims about estimators of numbers and of several labels, against scikit-learn and NumPy."""

import numpy as np
import pytest
import torch
import yaml
from commands import REPOSITORY
from houses import FOREST, MARKS, ask, data_of, in_learnt_units
from houses import houses as houses
from houses import marks as marks
from houses import sales as sales
from hydra.utils import instantiate
from scipy.special import logit
from sklearn.base import clone
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR, LinearSVC

from distill.errors import UserError
from distill.tasks import TaskKind
from distill.training.data.folds import draw_folds
from distill.training.labelling import ask_test
from distill.training.teachers.estimator import SklearnTeacher, fit_estimator
from distill.training.teachers.estimator_files import save_estimator
from distill.training.teachers.sources import sklearn_teacher


@pytest.mark.parametrize(
    "regressor",
    [FOREST, Ridge(), SVR(), GradientBoostingRegressor(n_estimators=5, random_state=0),
     make_pipeline(StandardScaler(), SVR())],
)  # fmt: skip
@pytest.mark.parametrize("labels", [("price",), ("price", "days")])
def test_a_regressor_answers_each_number_as_scikit_learn_does(regressor, labels, tmp_path):
    data = data_of(*labels, task="regression")
    teacher = sklearn_teacher(data, tmp_path, estimator=clone(FOREST), regressor=regressor)
    standard = in_learnt_units(data, data.train, data.train.labels).astype(np.float32)
    columns = [standard] if isinstance(regressor, RandomForestRegressor) else standard.T
    expected = [
        clone(regressor).fit(data.train.inputs, np.squeeze(own)).predict(data.test.inputs)
        for own in columns
    ]  # a forest learns all at once, others one by one
    expected = np.column_stack(expected).reshape(len(data.test), len(labels))
    found = ask(teacher, data.test)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert teacher.classes == labels


def test_a_forecasting_regressor_is_fitted_on_what_a_network_learns(sales, tmp_path):
    teacher = sklearn_teacher(sales, tmp_path, regressor=FOREST)
    standard = in_learnt_units(sales, sales.train, sales.train.labels).astype(np.float32)
    expected = clone(FOREST).fit(sales.train.inputs, standard).predict(sales.test.inputs)
    found = ask(teacher, sales.test)
    assert found.shape == sales.test.labels.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_rows_of_a_group_are_answered_by_a_regressor_that_has_seen_none_of_it(tmp_path):
    data = data_of("price", task="regression", group="owner")
    train = data.train
    teacher = sklearn_teacher(data, tmp_path, regressor=Ridge(), folds=3)
    folds = draw_folds(train, 3)
    parts = [(np.flatnonzero(folds != n), np.flatnonzero(folds == n)) for n in range(3)]
    assert all(not {*train.blocks[a]} & {*train.blocks[b]} for a, b in parts)
    standard = in_learnt_units(data, train, train.labels)
    expected = cross_val_predict(Ridge(), train.inputs, standard, cv=parts)
    np.testing.assert_allclose(ask(teacher, train), expected.reshape(-1, 1), atol=1e-4)
    whole = Ridge().fit(train.inputs, standard).predict(data.test.inputs)
    np.testing.assert_allclose(ask_test(teacher, data.test), whole.reshape(-1, 1), atol=1e-4)


def test_windows_are_answered_by_a_forecaster_that_has_learnt_none_of_their_labels(sales, tmp_path):
    train = sales.train
    teacher = sklearn_teacher(sales, tmp_path, regressor=Ridge(), folds=3)
    found, moments = ask(teacher, train), sales.pool.label_times(train.indices)
    folds = draw_folds(train, 3)
    for number in range(3):
        own = folds == number
        apart = (moments[:, -1] < moments[own].min()) | (moments[:, 0] > moments[own].max())
        itself = Ridge().fit(train.inputs[apart], train.targets[apart])
        np.testing.assert_allclose(found[own], itself.predict(train.inputs[own]), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["houses", "marks"])
def test_the_configured_ensemble_is_kept_without_pickle_and_beats_the_mean(name, request, tmp_path):
    data = request.getfixturevalue(name)
    text = (REPOSITORY / "conf/teacher/sklearn_ensemble.yaml").read_text()
    few = text.replace("n_estimators: 300", "n_estimators: 9").replace('"${seed}"', "0")
    few = few.replace("Classifier, random", "Classifier, max_iter: 9, random")
    few = few.replace("Regressor, random", "Regressor, max_iter: 9, random")
    source = instantiate(yaml.safe_load(few) | {"folds": 0}, _convert_="all")
    teacher = source(data, tmp_path)
    found, truth = ask(teacher, data.test), data.test.learnt
    if name == "houses":
        assert (1 - ((found - truth) ** 2).mean(axis=0) / truth.var(axis=0) > 0).all()
    else:
        assert ((found > 0) == truth).mean() > 0.75
    assert len(list(tmp_path.glob("*.skops"))) == 1
    assert teacher.fingerprint == source(data, tmp_path).fingerprint


@pytest.mark.parametrize(
    "classifier",
    [
        RandomForestClassifier(8, random_state=0),
        KNeighborsClassifier(5),
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        HistGradientBoostingClassifier(max_iter=2, random_state=0),
    ],
)
def test_several_labels_are_answered_with_each_ones_logit(classifier, marks, tmp_path):
    teacher = sklearn_teacher(marks, tmp_path, estimator=classifier)
    found = ask(teacher, marks.test)
    together = isinstance(classifier, RandomForestClassifier)  # its trees split for all labels
    fitted = clone(classifier)
    if together:
        fitted.fit(marks.train.inputs, marks.train.labels)
    for column, label in enumerate(marks.train.labels.T):
        if together:
            probability = fitted.predict_proba(marks.test.inputs)[column][:, 1]
        else:
            probability = fitted.fit(marks.train.inputs, label).predict_proba(marks.test.inputs)[
                :, 1
            ]
        expected = logit(np.clip(probability, 1e-12, 1 - 1e-12))
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-3, atol=1e-4)
    assert np.isfinite(found).all()


def test_a_network_of_several_labels_answers_at_once(marks, tmp_path):
    network = MLPClassifier((6,), max_iter=300, tol=0.1, random_state=0)
    found = ask(sklearn_teacher(marks, tmp_path, estimator=network), marks.test)
    fitted = clone(network).fit(marks.train.inputs, marks.train.labels.astype(int))
    expected = logit(fitted.predict_proba(marks.test.inputs))
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)


def test_a_single_label_is_answered_with_its_logit(tmp_path):
    data = data_of("is_dear", task="multi_label")
    found = ask(sklearn_teacher(data, tmp_path, estimator=LogisticRegression()), data.test)
    fitted = LogisticRegression().fit(data.train.inputs, data.train.labels[:, 0])
    expected = fitted.decision_function(data.test.inputs)[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("classifier", [LogisticRegression(), RandomForestClassifier(5)])
def test_a_label_that_is_always_or_never_there_has_the_largest_logit(classifier, marks):
    labels = marks.train.labels.copy()
    labels[:, 0], labels[:, 2] = 0, 1
    fitted = fit_estimator(classifier, marks.train.inputs, labels, TaskKind.MULTI_LABEL)
    found = ask(SklearnTeacher(fitted, MARKS, TaskKind.MULTI_LABEL), marks.test)
    np.testing.assert_allclose(found[:, 0], np.log(1e-12), rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], -np.log(1e-12), rtol=1e-5)


def test_estimators_of_another_kind_are_refused(houses, marks, tmp_path):
    with pytest.raises(UserError, match=r"Expected a regressor, .* LinearSVC is none"):
        sklearn_teacher(houses, tmp_path, regressor=LinearSVC())
    with pytest.raises(UserError, match="with `predict_proba` but Ridge has none"):
        sklearn_teacher(marks, tmp_path, estimator=Ridge())
    with pytest.raises(UserError, match=r"`teacher.regressor` to fit, .* but got neither"):
        sklearn_teacher(houses, tmp_path, estimator=FOREST)
    words = KNeighborsClassifier().fit(marks.train.inputs, marks.train.labels.astype(str))
    with pytest.raises(UserError, match=r"fitted on 0 and 1 for each label but it knows `0\.0`"):
        SklearnTeacher(words, MARKS, TaskKind.MULTI_LABEL)
    with pytest.raises(UserError, match="but it is not fitted"):
        SklearnTeacher(RandomForestClassifier(), MARKS, TaskKind.MULTI_LABEL)


@pytest.mark.parametrize("name", ["houses", "sales"])
def test_a_saved_regressors_own_units_become_those_that_a_network_learns(name, request, tmp_path):
    data = request.getfixturevalue(name)
    fitted = clone(FOREST).fit(data.train.inputs, data.train.labels)
    save_estimator(fitted, tmp_path / "a.skops")
    teacher = sklearn_teacher(data, tmp_path, path=str(tmp_path / "a.skops"))
    order = np.random.default_rng(0).permutation(len(data.test))
    for split in (data.train, data.validation, data.test.take(order)):
        expected = in_learnt_units(data, split, fitted.predict(split.inputs))
        np.testing.assert_allclose(ask(teacher, split), expected, rtol=1e-3, atol=1e-3)
    assert teacher.classes == data.task.outputs
    asked = torch.from_numpy(data.test.inputs[:1])
    if name == "sales":
        with pytest.raises(UserError, match="1 of 1 are in none of its splits, such as index 9999"):
            teacher(asked, torch.tensor([99999]))


def test_a_saved_regressors_numbers_are_mapped_by_name(houses, tmp_path):
    fitted = clone(FOREST).fit(houses.train.inputs, houses.train.labels[:, ::-1])
    save_estimator(fitted, tmp_path / "a.skops")
    given = {"path": str(tmp_path / "a.skops"), "classes": ["days", "price"]}
    found = ask(sklearn_teacher(houses, tmp_path, **given), houses.test)
    answers = fitted.predict(houses.test.inputs)[:, ::-1]
    expected = in_learnt_units(houses, houses.test, answers)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    narrow = clone(FOREST).fit(houses.train.inputs, houses.train.labels[:, 0])
    save_estimator(narrow, tmp_path / "a.skops")
    with pytest.raises(UserError, match="answer for 2 classes but it answers for 1"):
        ask(sklearn_teacher(houses, tmp_path, **given), houses.test)
