"""Claims about teachers of numbers and of several labels, against scikit-learn, SciPy, NumPy."""

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import REPOSITORY
from hydra.utils import instantiate
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit, logit
from series_rows import frame, made
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
from distill.training.data.tables import Choice, from_table, with_unlabelled
from distill.training.labelling import ask_test
from distill.training.teachers.base import Teacher, TeacherOutput
from distill.training.teachers.ensemble import EnsembleTeacher
from distill.training.teachers.estimator import SklearnTeacher, fit_estimator
from distill.training.teachers.estimator_files import save_estimator
from distill.training.teachers.sources import onnx_teacher, predictions_teacher, sklearn_teacher

FOREST = RandomForestRegressor(8, random_state=0)
MARKS = ("is_dear", "is_sold", "is_new")


def rows(n=240):
    rng = np.random.default_rng(1)
    size, age = rng.normal(100, 20, n), rng.uniform(0, 50, n)
    price = 3 * size - 2 * age + rng.normal(0, 20, n) + 500
    return pa.table(
        {
            "size": size,
            "age": age,
            "owner": rng.integers(0, 40, n),
            "price": price,
            "days": rng.poisson(np.maximum(price / 20, 1)),
            "is_dear": price > np.median(price),
            "is_sold": rng.random(n) < expit((size - 100) / 10),
            "is_new": age < 10,
        }
    )


def data_of(*labels, **choice):
    return from_table(
        rows(), "houses", Choice(label=list(labels), columns=["size", "age"], **choice)
    )


@pytest.fixture(scope="module")
def houses():
    return data_of("price", "days", task="regression")


@pytest.fixture(scope="module")
def marks():
    return data_of(*MARKS)


@pytest.fixture(scope="module")
def sales():
    return made(frame(200), known=["price"])


def ask(teacher, split):
    found = teacher(torch.from_numpy(split.inputs), torch.from_numpy(split.indices)).logits
    assert found.dtype == torch.float32
    return found.numpy()


def in_learnt_units(data, split, answers):
    """Standardise by hand: by the training labels, or by each window's own last value."""
    if data.encoder.layout.names[0].startswith("sold"):
        sold = split.records["sold"]
        spread = np.maximum(sold.std(axis=1), data.windows.floor)[:, None]
        return (answers - sold[:, -1:]) / spread
    labels = data.train.labels.astype(float)
    return (answers - labels.mean(axis=0)) / labels.std(axis=0)


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
    with pytest.raises(UserError, match=r"either `teacher.regressor` to fit .* but got none"):
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


def columns_to(path, weight, *, flat=False, sigmoid=False):
    """Write an ONNX file that maps the columns `size` and `age` linearly, [B, 1] each."""
    nodes = [
        helper.make_node("Concat", ["size", "age"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "weight"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["z"], to=TensorProto.FLOAT),
        helper.make_node("Sigmoid" if sigmoid else "Identity", ["z"], ["shown"]),
        helper.make_node("Reshape", ["shown", "shape"], ["y"]),
    ]
    shape = [-1] if flat else [-1, weight.shape[1]]
    given = {"weight": weight.astype(np.float64), "shape": np.array(shape)}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["batch", 1])
        for name in ("size", "age")
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    constants = [numpy_helper.from_array(value, name) for name, value in given.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return str(path)


@pytest.mark.parametrize("flat", [True, False])
def test_an_onnx_files_numbers_become_those_that_a_network_learns(flat, tmp_path):
    data = data_of("price", task="regression")
    weight = np.array([[3.0], [-2.0]])
    teacher = onnx_teacher(data, tmp_path, path=columns_to(tmp_path / "a.onnx", weight, flat=flat))
    records = data.test.records
    answers = np.stack([records["size"], records["age"]], axis=1) @ weight
    expected = in_learnt_units(data, data.test, answers)
    np.testing.assert_allclose(ask(teacher, data.test), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ask_test(teacher, data.test), expected, rtol=1e-4, atol=1e-4)
    path = str(tmp_path / "a.onnx")
    other = onnx_teacher(data, tmp_path, path=path, outputs_probabilities=True)
    with pytest.raises(UserError, match=r"Expected numbers from .*, not probabilities"):
        ask(other, data.test)


def test_rows_without_labels_are_answered_like_others(tmp_path):
    data = with_unlabelled(data_of("price", task="regression"), rows(7), 240)
    weight = np.array([[3.0], [-2.0]])
    path = columns_to(tmp_path / "a.onnx", weight)
    records = data.unlabelled.records
    answers = np.stack([records["size"], records["age"]], axis=1) @ weight
    expected = in_learnt_units(data, data.unlabelled, answers)
    found = ask(onnx_teacher(data, tmp_path, path=path), data.unlabelled)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    fitted = sklearn_teacher(data, tmp_path, regressor=Ridge(), folds=2)
    itself = Ridge().fit(data.train.inputs, data.train.targets)
    found = ask(fitted, data.unlabelled)
    np.testing.assert_allclose(
        found[:, 0], itself.predict(data.unlabelled.inputs).ravel(), atol=1e-4
    )
    path = saved(tmp_path / "a.parquet", np.arange(240), np.ones((240, 1)), ["price"])
    with pytest.raises(UserError, match=r"all 7 samples in .* but 7 are missing: index 240"):
        predictions_teacher(data, tmp_path, path=path)


def test_an_onnx_files_forecasts_become_those_that_a_network_learns(sales, tmp_path):
    weight = np.random.default_rng(0).normal(size=(6, 3))
    inputs = [helper.make_tensor_value_info("sold", TensorProto.DOUBLE, ["batch", 6])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])]
    nodes = [
        helper.make_node("MatMul", ["sold", "weight"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = [numpy_helper.from_array(weight, "weight")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    opsets, path = [helper.make_opsetid("", 20)], tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    teacher = onnx_teacher(sales, tmp_path, path=str(path))
    for split in (sales.train, sales.test):
        expected = in_learnt_units(sales, split, split.records["sold"] @ weight)
        np.testing.assert_allclose(ask(teacher, split), expected, rtol=1e-4, atol=1e-3)


def test_an_onnx_files_probabilities_of_several_labels_become_logits_of_each(marks, tmp_path):
    weight = np.array([[0.1, -0.05, 0.0], [-0.1, 0.02, -0.3]])
    path = columns_to(tmp_path / "a.onnx", weight, sigmoid=True)
    teacher = onnx_teacher(marks, tmp_path, path=path, outputs_probabilities=True)
    records = marks.test.records
    expected = np.stack([records["size"], records["age"]], axis=1) @ weight
    np.testing.assert_allclose(ask(teacher, marks.test), expected, rtol=1e-2, atol=1e-2)


def saved(path, index, values, names):
    """Write numbers in every form that a file of predictions may have."""
    if path.name == "names.csv":
        pd.DataFrame(values, columns=names).assign(index=index).to_csv(path, index=False)
    elif path.suffix == ".csv":
        pd.DataFrame({"index": index, "prediction": values[:, 0]}).to_csv(path, index=False)
    elif path.suffix == ".npz":
        np.savez(path, index=index, prediction=values if len(names) > 1 else values[:, 0])
    else:
        lists = pa.array(list(values), pa.list_(pa.float64(), len(names)))
        column = lists if path.name == "lists.parquet" else values[:, 0]
        pq.write_table(pa.table({"index": index, "prediction": column}), path)
    return str(path)


@pytest.mark.parametrize("name", ["a.csv", "names.csv", "a.npz", "a.parquet", "lists.parquet"])
@pytest.mark.parametrize("what", ["price", "houses", "sales"])
def test_saved_numbers_become_those_that_a_network_learns(name, what, request, tmp_path, rng):
    one = what == "price"
    if not one and name in ("a.csv", "a.parquet"):
        return  # one number each
    data = data_of("price", task="regression") if one else request.getfixturevalue(what)
    index = rng.permutation(2000)
    values = rng.normal(500, 100, (2000, len(data.classes)))
    path = saved(tmp_path / name, index, values, data.classes)
    teacher = predictions_teacher(data, tmp_path, path=path, test_path=path)
    row_of = np.argsort(index)
    for split, found in (
        (data.train, ask(teacher, data.train)),
        (data.test, ask_test(teacher, data.test)),
    ):
        expected = in_learnt_units(data, split, values[row_of[split.indices]])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert predictions_teacher(data, tmp_path, path=path).on_test() is None


def test_saved_logits_are_no_numbers_and_numbers_no_logits(houses, marks, tmp_path):
    index = np.arange(240)
    pq.write_table(pa.table({"index": index, "logits": [[0.0, 1.0]] * 240}), tmp_path / "a.parquet")
    with pytest.raises(
        UserError, match=r"Expected `index` and `prediction` in .* found index, log"
    ):
        predictions_teacher(houses, tmp_path, path=str(tmp_path / "a.parquet"))
    np.savez(tmp_path / "a.npz", index=index, prediction=np.zeros((240, 3)))
    with pytest.raises(UserError, match="either `logits` or `probabilities`"):
        predictions_teacher(marks, tmp_path, path=str(tmp_path / "a.npz"))
    path = saved(tmp_path / "b.parquet", index, np.full((240, 1), np.nan), ["price"])
    with pytest.raises(UserError, match="Expected finite numbers"):
        predictions_teacher(data_of("price", task="regression"), tmp_path, path=path)


def test_saved_probabilities_of_several_labels_need_not_sum_to_1(marks, tmp_path):
    probabilities = np.random.default_rng(0).uniform(0, 1, (240, 3))
    probabilities[0] = [0, 1, 0.5]
    np.savez(tmp_path / "a.npz", index=np.arange(240), probabilities=probabilities)
    given = {"path": str(tmp_path / "a.npz")}
    found = ask(predictions_teacher(marks, tmp_path, **given), marks.train)
    clipped = np.clip(probabilities[marks.train.indices], 1e-16, 1 - 2**-53)
    np.testing.assert_allclose(expit(found), clipped, atol=1e-6)
    assert np.isfinite(found).all()
    np.savez(tmp_path / "a.npz", index=np.arange(240), probabilities=probabilities * 3)
    with pytest.raises(UserError, match="Expected probabilities from 0 to 1 from"):
        predictions_teacher(marks, tmp_path, **given)


class Said(Teacher):
    """Answers the same logits whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.from_numpy(logits)

    def forward(self, image, index):
        return TeacherOutput(logits=self.logits)


def test_an_ensemble_averages_numbers_and_each_labels_probability(rng):
    answers, weights = rng.normal(0, 3, (3, 6, 4)), [1, 2, 5]
    for kind, mean in (
        (TaskKind.REGRESSION, np.average(answers, axis=0, weights=weights)),
        (TaskKind.MULTI_LABEL, logit(np.average(expit(answers), axis=0, weights=weights))),
    ):
        ensemble = EnsembleTeacher([Said(own) for own in answers], weights, kind=kind)
        found = ensemble(torch.zeros(6, 2), torch.arange(6))
        np.testing.assert_allclose(found.logits, mean, rtol=1e-4, atol=1e-5)
        again = ensemble.on_test()(torch.zeros(6, 2), torch.arange(6)).logits
        np.testing.assert_array_equal(again, found.logits)
