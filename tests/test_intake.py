import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distill.deployment.intake import inspect, random_inputs, read_inputs
from distill.errors import UserError


def save(path, shape=("n", 4), *, opset=20, inputs=("x",), weights=None):
    """Write y = x @ w, a model that no torch has made."""
    width = shape[-1] if isinstance(shape[-1], int) else 4
    w = numpy_helper.from_array(np.ones((width, 2), np.float32), "w")
    if weights:  # elsewhere
        raw = w.raw_data
        w.ClearField("raw_data")
        w.data_location = TensorProto.EXTERNAL
        for key, value in (("location", weights), ("offset", "0"), ("length", str(len(raw)))):
            w.external_data.add(key=key, value=value)
    values = [helper.make_tensor_value_info(i, TensorProto.FLOAT, list(shape)) for i in inputs]
    nodes = [helper.make_node("MatMul", [inputs[0], "w"], ["y"])]
    if len(inputs) > 1:
        nodes = [helper.make_node("Add", list(inputs[:2]), ["s"])]
        nodes += [helper.make_node("MatMul", ["s", "w"], ["y"])]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [*shape[:-1], 2])
    graph = helper.make_graph(nodes, "g", values, [out], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    path.write_bytes(model.SerializeToString())
    return path


def test_any_file_is_described(tmp_path):
    found = inspect(save(tmp_path / "m.onnx"))
    assert (found.input_name, found.input_shape, found.opset) == ("x", (None, 4), 20)
    assert found.dtype == np.float32
    assert found.contract is None


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname"])
def test_weights_outside_of_the_folder_are_never_read(tmp_path, location):
    with pytest.raises(UserError, match="lie outside of its folder"):
        inspect(save(tmp_path / "m.onnx", weights=location))


def test_weights_in_a_second_file_are_refused_with_what_to_do(tmp_path):
    (tmp_path / "m.bin").write_bytes(np.ones((4, 2), np.float32).tobytes())
    with pytest.raises(UserError, match=r"onnx\.save"):
        inspect(save(tmp_path / "m.onnx", weights="m.bin"))


def test_an_opset_that_is_too_new_is_named(tmp_path):
    with pytest.raises(UserError, match="opset 99"):
        inspect(save(tmp_path / "m.onnx", opset=99))


def test_several_inputs_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"one input .* found a, b"):
        inspect(save(tmp_path / "m.onnx", inputs=("a", "b")))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x0a" * 40])
def test_a_file_that_is_no_model_is_one_message(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(Exception, match="Expected an ONNX model") as raised:
        inspect(tmp_path / "m.onnx")
    assert raised.value.exit_code == 1


def test_dynamic_height_and_width_ask_for_a_shape(tmp_path):
    artefact = inspect(save(tmp_path / "m.onnx", shape=("n", "h", "w", 4)))
    with pytest.raises(UserError, match=r"input_shape=\[224,224,3\]"):
        random_inputs(artefact, 3, seed=0)
    assert random_inputs(artefact, 3, seed=0, shape=(5, 6, 4)).shape == (3, 5, 6, 4)
    with pytest.raises(UserError, match=r"got \[5, 6, 3\]"):
        random_inputs(artefact, 3, seed=0, shape=(5, 6, 3))


def test_random_inputs_differ_from_each_other_and_not_from_run_to_run(tmp_path):
    artefact = inspect(save(tmp_path / "m.onnx"))
    first, second = (random_inputs(artefact, 8, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first, axis=0)) == 8


def test_inputs_come_from_npy_or_from_the_array_of_an_npz(tmp_path):
    artefact = inspect(save(tmp_path / "m.onnx"))
    values = np.ones((3, 4), np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", x=values, other=values[:1])
    np.savez(tmp_path / "c.npz", image=values)
    assert len(read_inputs(tmp_path / "a.npy", artefact, None)) == 3
    assert len(read_inputs(tmp_path / "b.npz", artefact, None)) == 3
    assert len(read_inputs(tmp_path / "b.npz", artefact, "other")) == 1
    with pytest.raises(UserError, match=r"holds image\. Say which one with `input_key="):
        read_inputs(tmp_path / "c.npz", artefact, None)
    assert len(read_inputs(tmp_path / "c.npz", artefact, "image")) == 3


@pytest.mark.parametrize(
    "values",
    [np.ones((3, 5), np.float32), np.ones((3, 4)), np.ones(4, np.float32), np.ones((0, 4), "f4")],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(UserError, match="Expected inputs float32"):
        read_inputs(tmp_path / "a.npy", inspect(save(tmp_path / "m.onnx")), None)


def test_pickled_inputs_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    with pytest.raises(UserError, match="plain arrays"):
        read_inputs(tmp_path / "a.npy", inspect(save(tmp_path / "m.onnx")), None)


def test_what_is_written_here_is_a_model(tmp_path):
    onnx.checker.check_model(onnx.load(save(tmp_path / "m.onnx")))
