import numpy as np
import onnx
import pytest
import torch

from distill.deployment.export import export_onnx, measure_parity
from distill.deployment.quantize import StaticQuantizer
from distill.runtime import OnnxModel
from distill.training.models import CifarResNet, ImageClassifier


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    model = ImageClassifier(CifarResNet(10, 3, depth=8), [0.5] * 3, [0.2] * 3)
    images = np.random.default_rng(0).integers(0, 256, (96, 32, 32, 3)).astype(np.uint8)
    model(torch.from_numpy(images))
    export_onnx(model.eval(), (32, 32, 3), folder / "fp32.onnx")
    StaticQuantizer(num_calibration_samples=64)(folder / "fp32.onnx", folder / "int8.onnx", images)
    return folder, images


def test_int8_stays_close_to_float(files):
    folder, images = files
    reference, int8 = (OnnxModel(folder / f"{k}.onnx").predict(images) for k in ("fp32", "int8"))
    parity = measure_parity(reference, int8)
    assert 0 < parity.logit_std < 0.3


def test_weights_are_int8_per_channel_and_activations_uint8(files):
    graph = onnx.load(files[0] / "int8.onnx").graph
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


def test_preprocessing_stays_in_float(files):
    graph = onnx.load(files[0] / "int8.onnx").graph
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    before = {node.op_type for node in list(graph.node)[: list(graph.node).index(first)]}
    assert before >= {"Cast", "Transpose"}


def test_the_int8_file_is_smaller_and_takes_any_batch(files):
    folder, images = files
    assert (folder / "int8.onnx").stat().st_size < 0.5 * (folder / "fp32.onnx").stat().st_size
    whole = OnnxModel(folder / "int8.onnx").predict(images[:10])
    single = OnnxModel(folder / "int8.onnx").predict(images[:10], batch_size=1)
    np.testing.assert_allclose(whole, single, atol=1e-5)
