import dataclasses

import numpy as np
import onnx
import pytest
import torch
from common_fixtures import make_file
from torch import nn

from distill.deployment.export import SoftmaxHead, export_onnx
from distill.deployment.parity import measure_parity
from distill.deployment.quantize.graph import layers, structure
from distill.deployment.quantize.recipes import DynamicInt8, Float16, Source, StaticInt8
from distill.errors import UsageError, UserError
from distill.runtime import OnnxModel
from distill.training.models import CifarResNet, ImageClassifier

pytestmark = pytest.mark.slow

QUICK = {"num_calibration_samples": 64}
RECIPES = {
    "static": StaticInt8(**QUICK),
    "percentile": StaticInt8(calibration="percentile", **QUICK),
    "entropy": StaticInt8(calibration="entropy", **QUICK),
    "reduced": StaticInt8(reduce_range=True, **QUICK),
    "ends": StaticInt8(keep_first=True, keep_last=True, **QUICK),
    "gemm": StaticInt8(op_types=["Gemm", "MatMul"], **QUICK),
    "dynamic": DynamicInt8(),
    "float16": Float16(),
}


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 10)

    def forward(self, image):
        return self.head(self.depthwise(self.first(image).relu()).relu().mean((2, 3)))


def export(network, path):
    torch.manual_seed(0)
    model = ImageClassifier(network, [0.5] * 3, [0.2] * 3)
    images = np.random.default_rng(0).integers(0, 256, (96, 32, 32, 3)).astype(np.uint8)
    model(torch.from_numpy(images))  # moves BatchNorm statistics
    export_onnx(model.eval(), (32, 32, 3), path)
    return images


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    images = export(CifarResNet(10, 3, depth=8), folder / "fp32.onnx")
    source = Source(folder / "fp32.onnx", images, folder)
    for name, recipe in RECIPES.items():
        recipe.make(source, folder / f"{name}.onnx")
    return folder, images


@pytest.fixture(scope="module")
def depthwise(tmp_path_factory):
    folder = tmp_path_factory.mktemp("depthwise")
    return Source(folder / "fp32.onnx", export(Depthwise(), folder / "fp32.onnx"), folder)


def int8_kernels(path):
    """Shapes of the weights that an int8 file holds as 8-bit integers."""
    tensors = map(onnx.numpy_helper.to_array, onnx.load(path).graph.initializer)
    return sorted(a.shape for a in tensors if a.dtype in (np.int8, np.uint8) and a.ndim > 1)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_answers_nearly_as_float_does_and_takes_any_batch(files, name):
    folder, images = files
    reference = OnnxModel(folder / "fp32.onnx").predict(images)
    model = OnnxModel(folder / f"{name}.onnx")
    assert 0 < measure_parity(reference, model.predict(images)).logit_std < 0.1
    if name != "dynamic":  # whose ranges are those of the batch
        whole, single = (model.predict(images[:10], batch_size=size) for size in (10, 1))
        np.testing.assert_allclose(whole, single, atol=1e-2 if name == "float16" else 1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_what_goes_in_and_comes_out_is_as_before(files, name):
    graphs = [onnx.load(files[0] / f"{n}.onnx").graph for n in ("fp32", name)]
    before, after = ([*graph.input, *graph.output] for graph in graphs)
    assert [v.name for v in after] == [v.name for v in before]
    kinds = [[v.type.tensor_type.elem_type for v in values] for values in (before, after)]
    assert kinds[0] == kinds[1] == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT]


@pytest.mark.parametrize("name", ["static", "float16"])
def test_a_heads_probabilities_are_not_rounded_but_follow_the_logits(name, tmp_path):
    torch.manual_seed(0)
    model = ImageClassifier(CifarResNet(10, 3, depth=8), [0.5] * 3, [0.2] * 3).eval()
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3)).astype(np.uint8)
    export_onnx(model, (32, 32, 3), tmp_path / "fp32.onnx", head=SoftmaxHead())
    make_file(RECIPES[name], tmp_path / "fp32.onnx", tmp_path / "small.onnx", images)
    small = OnnxModel(tmp_path / "small.onnx")
    logits, probabilities = small.session.run(None, {"image": images})
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    # int8 would be within 1/512; float16's logits are rounded once more on their way out.
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_preprocessing_stays_in_float(files, name):
    graph = onnx.load(files[0] / f"{name}.onnx").graph
    makers = {output: node for node in graph.node for output in node.output}
    below = [next(n.input[0] for n in graph.node if n.op_type in ("Conv", "ConvInteger"))]
    converts, before = ("uantizeLinear", "Cast"), []
    while below:
        node = makers.get(below.pop())
        if node is not None:
            before.append(node)
            below += node.input[:1]
    names = [node.op_type for node in before]
    pixels = names[names.index("Div") :]  # behind it, the layer's own conversion
    assert {"Transpose", "Sub", "Div", "Cast"} == set(pixels)
    assert all(any(word in name for word in converts) for name in names[: -len(pixels)])
    cast = next(node for node in before[-len(pixels) :] if node.op_type == "Cast")
    assert cast.attribute[0].i == onnx.TensorProto.FLOAT


def test_weights_are_int8_per_channel_and_activations_uint8(files):
    graph = onnx.load(files[0] / "static.onnx").graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kernels = [a for a in arrays.values() if a.dtype == np.int8 and a.ndim == 4]
    assert len(kernels) == 9  # every convolution of the network
    scales = {
        len(arrays[node.input[1]].reshape(-1))
        for node in graph.node
        if node.op_type == "DequantizeLinear" and arrays.get(node.input[0], np.zeros(0)).ndim == 4
    }
    assert scales == {16, 32, 64}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {arrays[node.input[2]].dtype for node in quantizers} == {np.dtype(np.uint8)}


def test_a_reduced_range_has_seven_bits(files):
    def largest(name):
        tensors = map(onnx.numpy_helper.to_array, onnx.load(files[0] / name).graph.initializer)
        return max(np.abs(a.astype(int)).max() for a in tensors if a.dtype == np.int8)

    assert (largest("static.onnx"), largest("reduced.onnx")) == (127, 64)


def test_the_layers_that_stay_in_float_are_those_that_were_named(files, depthwise, tmp_path):
    folder, _ = files
    assert int8_kernels(folder / "gemm.onnx") == [(10, 64)]
    all_kernels = int8_kernels(folder / "static.onnx")
    assert set(all_kernels) - set(int8_kernels(folder / "ends.onnx")) == {(16, 3, 3, 3), (10, 64)}
    StaticInt8(depthwise=False, **QUICK).make(depthwise, tmp_path / "a.onnx")
    assert int8_kernels(tmp_path / "a.onnx") == [(8, 3, 3, 3), (10, 8)]
    first = layers(depthwise.graph)[0]
    StaticInt8(exclude=[first.name], **QUICK).make(depthwise, tmp_path / "b.onnx")
    assert int8_kernels(tmp_path / "b.onnx") == [(8, 1, 3, 3), (10, 8)]
    assert [layer.depthwise for layer in layers(depthwise.graph)] == [False, True, False]


def test_a_layer_in_float_keeps_its_activation(files):
    graph = onnx.load(files[0] / "ends.onnx").graph
    stem = next(node for node in graph.node if node.op_type == "Conv")
    after = [node for node in graph.node if stem.output[0] in node.input]
    assert [node.op_type for node in after] == ["Relu"]


@pytest.mark.parametrize("name", RECIPES)
def test_every_file_is_a_valid_model(files, name):
    onnx.checker.check_model(onnx.load(files[0] / f"{name}.onnx"))


def test_files_are_smaller_as_their_numbers_are(files):
    sizes = {name: (files[0] / f"{name}.onnx").stat().st_size for name in ("fp32", *RECIPES)}
    assert sizes["static"] < 0.4 * sizes["fp32"]
    assert sizes["dynamic"] < 0.4 * sizes["fp32"]
    assert 0.4 * sizes["fp32"] < sizes["float16"] < 0.6 * sizes["fp32"]


def test_a_file_does_not_depend_on_what_its_source_made_before(files, tmp_path):
    folder, images = files
    make_file(RECIPES["static"], folder / "fp32.onnx", tmp_path / "fresh.onnx", images)
    assert (tmp_path / "fresh.onnx").read_bytes() == (folder / "static.onnx").read_bytes()


def test_files_of_other_ranges_are_of_one_structure(files):
    found = {name: structure(files[0] / f"{name}.onnx") for name in ("fp32", *RECIPES)}
    ranges = ("static", "percentile", "entropy", "reduced")
    assert len({found[name] for name in ranges}) == 1
    assert len(set(found.values())) == len(found) - len(ranges) + 1


def test_what_cannot_be_is_refused_in_words(depthwise, tmp_path):
    with pytest.raises(UsageError, match="one of minmax, percentile, entropy but got 'median'"):
        StaticInt8(calibration="median")
    with pytest.raises(UsageError, match="percentile"):
        StaticInt8(percentile=40)
    with pytest.raises(UserError, match="Did you mean"):
        StaticInt8(exclude=["node_Conv"], **QUICK).make(depthwise, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_weights_that_half_precision_cannot_hold_are_refused(depthwise, tmp_path):
    model = onnx.load(depthwise.path)
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(
            onnx.numpy_helper.to_array(model.graph.initializer[0]) * np.float32(1e7),
            model.graph.initializer[0].name,
        )
    )
    onnx.save(model, tmp_path / "large.onnx")
    with pytest.raises(UserError, match="float16"):
        make_file(
            Float16(), tmp_path / "large.onnx", tmp_path / "half.onnx", np.zeros((1, 32, 32, 3))
        )
    assert not (tmp_path / "half.onnx").exists()


def test_recipes_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        StaticInt8().percentile = 99
