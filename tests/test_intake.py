import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distill.contract import (
    HASH_KEY,
    Contract,
    ImageInput,
    Normalization,
    save_contract,
    write_golden,
)
from distill.deployment.intake import inspect, random_inputs, read_inputs
from distill.errors import UserError
from distill.runtime import OnnxModel


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
    with pytest.raises(ValueError, match=r"one input .* found a .*, b .*'h', 4"):
        inspect(save(tmp_path / "m.onnx", shape=("n", "h", 4), inputs=("a", "b")))


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


def with_contract(folder):
    """A model beside its contract and golden samples, as an export leaves them."""
    path = save(folder / "model.onnx")
    inputs = np.ones((2, 4), np.float32)
    golden = write_golden(folder, inputs, {"model.onnx": OnnxModel(path).predict(inputs)})
    contract = Contract(
        input=ImageInput(name="x", height=1, width=4, channels=1),
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        output="y",
        classes=("a", "b"),
        provenance={},
        golden_sha256=golden,
    )
    save_contract(contract, folder)
    proto = onnx.load(path)
    proto.metadata_props.add(key=HASH_KEY, value=contract.sha256)
    path.write_bytes(proto.SerializeToString())
    return path


def test_an_artefact_is_taken_with_the_contract_beside_it(tmp_path):
    assert inspect(with_contract(tmp_path)).contract.classes == ("a", "b")


def test_a_renamed_artefact_beside_its_contract_is_one_message(tmp_path):
    other = with_contract(tmp_path).rename(tmp_path / "renamed.onnx")
    with pytest.raises(
        UserError, match=r"samples of renamed\.onnx in .* are of model\.onnx\. Give"
    ):
        inspect(other)


def test_golden_samples_that_are_missing_are_one_message(tmp_path):
    path = with_contract(tmp_path)
    (tmp_path / "golden.npz").unlink()
    with pytest.raises(UserError, match=r"golden\.npz but there is no such file"):
        inspect(path)


@pytest.mark.parametrize("kind", ["STRING", "BFLOAT16"])
def test_inputs_that_numpy_has_no_type_for_are_one_message(tmp_path, kind):
    number = getattr(TensorProto, kind)
    values = [helper.make_tensor_value_info(name, number, ["n", 4]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=rf"but it takes tensor\({kind.lower()}\)"):
        inspect(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["m.json", "m.textproto", "m.onnxtxt"])
def test_a_file_name_decides_nothing(tmp_path, name):
    assert inspect(save(tmp_path / name)).input_name == "x"
    (tmp_path / name).write_text('{"irVersion": 10}')
    with pytest.raises(UserError, match="Expected an ONNX model"):
        inspect(tmp_path / name)


@pytest.mark.parametrize("as_constant", [False, True])
def test_weights_elsewhere_are_found_in_branches_too(tmp_path, as_constant):
    w = numpy_helper.from_array(np.ones(2, np.float32), "w")
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    w.external_data.add(key="location", value="m.bin")
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [2])
    if as_constant:
        nodes = [helper.make_node("Constant", [], ["o"], value=w)]
        branch = helper.make_graph(nodes, "b", [], [out])
    else:
        branch = helper.make_graph(
            [helper.make_node("Identity", ["w"], ["o"])], "b", [], [out], [w]
        )
    graph = helper.make_graph(
        [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"keeps those of `w` in m\.bin"):
        inspect(tmp_path / "m.onnx")
