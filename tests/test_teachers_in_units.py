"""Claims about teachers from files, and mixtures, of numbers and labels: units, logits, means."""

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from houses import ask, data_of, in_learnt_units, rows
from houses import houses as houses
from houses import marks as marks
from houses import sales as sales
from onnx import TensorProto, helper, numpy_helper
from scipy.special import expit, logit
from sklearn.linear_model import Ridge

from distill.errors import UserError
from distill.tasks import TaskKind
from distill.training.data.tables import with_unlabelled
from distill.training.labelling import ask_test
from distill.training.teachers.base import Teacher, TeacherOutput
from distill.training.teachers.ensemble import EnsembleTeacher
from distill.training.teachers.sources import onnx_teacher, predictions_teacher, sklearn_teacher


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
    alone = predictions_teacher(data, tmp_path, path=path)  # a file that has the test rows, too
    np.testing.assert_array_equal(ask_test(alone, data.test), ask_test(teacher, data.test))


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
