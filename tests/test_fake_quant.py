"""Claims about rounding in training; the oracle is onnxruntime's int8 file of the same weights."""

from functools import partial

import lightning
import numpy as np
import onnx
import pytest
import torch
from common_fixtures import exact_int8, make_file
from lightning.pytorch.callbacks import Callback
from torch import nn

from distill.deployment.export import export_onnx
from distill.deployment.parity import measure_parity
from distill.deployment.quantize.recipes import StaticInt8
from distill.errors import UserError
from distill.runtime import OnnxModel
from distill.training.data.loading import BatchDataModule
from distill.training.fake_quant import FakeQuantization, QuantizationAware, Rounding
from distill.training.fit import fit, load_weights, predict_logits
from distill.training.losses.logits import CrossEntropy, SoftTargetKL
from distill.training.models import (
    CifarResNet,
    ImageClassifier,
    PlainCNN,
    torchvision_classifier,
)
from distill.training.modules import DistillationModule
from distill.training.teachers.live import TorchTeacher

pytestmark = pytest.mark.slow

NETWORKS = {
    "plain": partial(PlainCNN, widths=(8, 12)),
    "residual": partial(CifarResNet, depth=8, widths=(8, 8, 12, 16)),
    "depthwise": partial(torchvision_classifier, name="mobilenet_v3_small"),
    "concatenating": partial(torchvision_classifier, name="squeezenet1_1"),
}


def built(kind="plain", seed=0):
    torch.manual_seed(seed)
    return ImageClassifier(NETWORKS[kind](10, 1), [0.3], [0.4]).eval()


def settled(kind, images, labels, steps=12):
    """A network that has seen some batches: its batch norm knows the data."""
    model = built(kind).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def images(data):
    """Digits, at a size that every network takes."""
    small = np.asarray(data.train.inputs[:192])
    return torch.from_numpy(small.repeat(4, axis=1).repeat(4, axis=2))


@pytest.fixture(scope="module")
def labels(data):
    return torch.from_numpy(data.train.labels[:192])


@pytest.fixture(scope="module", params=NETWORKS)
def int8(request, images, labels, tmp_path_factory):
    """A network and its int8 file, as onnxruntime makes it."""
    folder, model = tmp_path_factory.mktemp(request.param), settled(request.param, images, labels)
    export_onnx(model, tuple(images.shape[1:]), folder / "float.onnx")
    quantizer = StaticInt8(num_calibration_samples=len(images))
    make_file(quantizer, folder / "float.onnx", folder / "int8.onnx", images.numpy())
    return request.param, model, folder / "int8.onnx"


def grids(path):
    """Scale and zero point of every activation in an int8 file."""
    graph = onnx.load(path).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    return {(float(arrays[n.input[1]]), int(arrays[n.input[2]])) for n in nodes}


def test_every_activation_is_on_the_grid_that_it_has_in_the_int8_file(int8, images):
    _, model, path = int8
    scales, zero_points = FakeQuantization(model, images).grid()
    ours = list(zip(scales.tolist(), zero_points.tolist(), strict=True))
    theirs = grids(path)
    assert len(theirs) >= 5
    for these, those in ((ours, theirs), (theirs, ours)):
        for scale, zero_point in these:
            assert any(
                scale == pytest.approx(other, rel=1e-4) and abs(zero_point - point) <= 1
                for other, point in those
            ), (scale, zero_point)


# Not of a network that concatenates: untrained, its logits hardly differ from image to image, and
# whatever falls on the other side of a half decides. Its grids are held above.
@exact_int8
@pytest.mark.parametrize("int8", ["plain", "residual", "depthwise"], indirect=True)
def test_rounded_logits_are_the_int8_files_not_the_float_models(int8, images):
    kind, model, path = int8
    shown = images.numpy()
    expected, in_float = OnnxModel(path).predict(shown), predict_logits(model, shown)
    ranges = FakeQuantization(model, images)
    ranges.attach(model)
    near = measure_parity(expected, predict_logits(model, shown)).logit_std
    ranges.detach()
    far = measure_parity(expected, in_float).logit_std
    # 142 roundings in a row blow up whatever falls on the other side of a half.
    assert near < (0.98 if kind == "depthwise" else 0.5) * far
    np.testing.assert_array_equal(predict_logits(model, shown), in_float)


def test_weights_are_rounded_as_in_the_int8_file_batch_norm_folded_or_not(int8, images):
    kind, model, path = int8
    graph = onnx.load(path).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kernels = [array for array in arrays.values() if array.dtype == np.int8 and array.ndim == 4]
    ranges = FakeQuantization(model, images)
    ours = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            rounded = ranges.round_weight(layer.weight).detach()
            step = layer.weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True) / 127
            ours.append((rounded / step).round().numpy())
    assert len(ours) == len(kernels)
    for kernel in kernels:  # a batch norm may turn a channel's sign
        same_shape = [own for own in ours if own.shape == kernel.shape]
        off = [np.mean(np.abs(np.abs(own) - np.abs(kernel.astype(float)))) for own in same_shape]
        assert min(off) < 0.01, kind


@pytest.mark.parametrize("reduce_range", [False, True])
def test_weights_on_the_grid_stay_and_reduced_ones_have_seven_bits(images, rng, reduce_range):
    ranges = FakeQuantization(built(), images[:8], reduce_range=reduce_range)
    most = 64 if reduce_range else 127
    levels = rng.integers(-most, most + 1, size=(6, 4, 3, 3)).astype(np.float32)
    levels[:, 0, 0, 0] = most
    levels[5] = 0  # a dead channel
    on_grid = torch.from_numpy(levels * rng.uniform(0.01, 2, size=(6, 1, 1, 1)).astype(np.float32))
    torch.testing.assert_close(ranges.round_weight(on_grid), on_grid, rtol=1e-5, atol=1e-6)
    off_grid = torch.randn(6, 4, 3, 3)
    rounded = ranges.round_weight(off_grid)
    assert not torch.equal(rounded, off_grid)
    steps = off_grid.abs().amax(dim=(1, 2, 3), keepdim=True) / most
    assert (rounded - off_grid).abs().max() <= steps.max() / 2 * 1.0001
    torch.testing.assert_close(ranges.round_weight(rounded), rounded)


@pytest.mark.parametrize(("scale", "zero_point"), [(0.02, 0), (0.031, 130), (0.5, 255), (0.004, 7)])
def test_activations_and_their_gradients_are_torchs_own(scale, zero_point):
    torch.manual_seed(0)
    x = torch.cat([torch.randn(500) * 3, torch.zeros(1)])
    pairs = []
    for function, point in (
        (lambda *a: Rounding.apply(*a), torch.tensor(float(zero_point))),
        (
            lambda *a: torch.fake_quantize_per_tensor_affine(*a, 0, 255),
            torch.tensor(zero_point, dtype=torch.int32),
        ),
    ):
        leaf = x.clone().requires_grad_()
        rounded = function(leaf, torch.tensor(scale), point)
        (rounded * torch.arange(501)).sum().backward()
        pairs.append((rounded.detach(), leaf.grad))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["plain", "residual", "concatenating"])
def test_gradients_reach_every_weight_as_if_nothing_were_rounded(kind, images, labels):
    model = settled(kind, images, labels, steps=4)
    gradients = []
    for rounds in (False, True):
        ranges = FakeQuantization(model, images)
        if rounds:
            ranges.attach(model.train())
        model.zero_grad()
        model.eval() if not rounds else model
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        nn.functional.cross_entropy(model(images), labels).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        ranges.detach()
    for name, straight in gradients[0].items():
        through = gradients[1][name]
        assert through.abs().max() > 0, name
        if straight.dim() > 1:
            cosine = nn.functional.cosine_similarity(straight.flatten(), through.flatten(), dim=0)
            assert cosine > 0.5, name


def test_ranges_grow_at_once_and_shrink_by_a_hundredth(images):
    model = built()
    ranges = FakeQuantization(model, images)
    ranges.follow(torch.stack([2 * ranges.low, 3 * ranges.high], dim=1))
    grown = FakeQuantization(model, images)
    torch.testing.assert_close(ranges.low, 2 * grown.low)
    torch.testing.assert_close(ranges.high, 3 * grown.high)
    ranges.follow(torch.zeros(len(ranges.low), 2))
    torch.testing.assert_close(ranges.high, 0.99 * 3 * grown.high)


def test_ranges_follow_in_training_alone_and_batch_norm_keeps_its_statistics(images, labels):
    model = settled("residual", images, labels)
    ranges = FakeQuantization(model, images[:8])
    ranges.attach(model)
    before = ranges.high.clone()
    model.eval()(images)
    assert torch.equal(ranges.high, before)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()(images)
    assert (ranges.high > before).any()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64 * 16, 10)

    def forward(self, image):
        x = image.float().flatten(start_dim=1)
        return self.layer(x) if x.mean() > 1 else self.layer(x) + self.layer(x)


def test_a_student_whose_steps_change_is_refused(images):
    ranges = FakeQuantization(model := Moody(), images)
    ranges.attach(model)
    with pytest.raises(UserError, match="number changes"):
        model(torch.zeros_like(images))
    ranges.detach()
    assert model(images).shape == (192, 10)  # nothing is left behind


class KilledError(Exception):
    """What stands for SIGKILL."""


class KillAt(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 2:
            raise KilledError


def repaired(data, folder, callbacks=()):
    lightning.seed_everything(3, verbose=False)
    torch.manual_seed(1)
    teacher = ImageClassifier(PlainCNN(10, 1, widths=(4, 12)), [0.3], [0.4])
    student = ImageClassifier(PlainCNN(10, 1, widths=(4, 8), dropout=0.3), [0.3], [0.4])
    module = DistillationModule(
        student,
        TorchTeacher(teacher),
        {"ce": CrossEntropy(weight=0.5), "kd": SoftTargetKL(temperature=4.0, weight=0.5)},
        partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    )
    kept = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    aware = QuantizationAware(data.train.inputs[:64])
    trainer = partial(lightning.Trainer, max_epochs=3, accelerator="cpu", deterministic=True)
    fitted = fit(
        module,
        BatchDataModule(data, batch_size=64),
        trainer,
        folder,
        callbacks=[*callbacks, aware],
    )
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, kept[name]), name
    return fitted, module


def test_a_killed_repair_ends_bit_identical_ranges_and_all(data, tmp_path):
    whole, _ = repaired(data, tmp_path / "whole")
    with pytest.raises(KilledError):
        repaired(data, tmp_path / "killed", [KillAt()])
    torch.rand(7)
    resumed, _ = repaired(data, tmp_path / "killed")
    for name, tensor in whole.last.items():
        assert torch.equal(tensor, resumed.last[name]), name
    first, second = (load_weights(tmp_path / n / "last.ckpt") for n in ("whole", "killed"))
    assert "fake_quantization.high" in first["state_dict"]
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name]), name


def test_what_is_left_is_a_plain_student(data, tmp_path):
    fitted, module = repaired(data, tmp_path)
    plain = ImageClassifier(PlainCNN(10, 1, widths=(4, 8), dropout=0.3), [0.3], [0.4])
    plain.load_state_dict(fitted.last)
    images = data.test.inputs[:32]
    np.testing.assert_array_equal(
        predict_logits(plain, images), predict_logits(module.student, images)
    )
