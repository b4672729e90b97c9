"""Claims about rounding in training; the oracle is onnxruntime's int8 file of the same weights."""

from functools import partial

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from distill.deployment.export import export_onnx, measure_parity
from distill.deployment.quantize import StaticQuantizer
from distill.errors import UserError
from distill.runtime import OnnxModel
from distill.training.data.images import ImageDataModule
from distill.training.fake_quant import FakeQuantization, QuantizationAware
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
    small = np.asarray(data.train.images[:192])
    return torch.from_numpy(small.repeat(4, axis=1).repeat(4, axis=2))


@pytest.fixture(scope="module")
def labels(data):
    return torch.from_numpy(data.train.labels[:192])


@pytest.mark.parametrize("kind", NETWORKS)
def test_rounded_logits_are_the_int8_files_not_the_float_models(kind, images, labels, tmp_path):
    model = settled(kind, images, labels)
    shown = images.numpy()
    export_onnx(model, shown.shape[1:], tmp_path / "float.onnx")
    quantizer = StaticQuantizer(num_calibration_samples=len(images))
    quantizer(tmp_path / "float.onnx", tmp_path / "int8.onnx", shown)
    int8 = OnnxModel(tmp_path / "int8.onnx").predict(shown)
    in_float = predict_logits(model, shown)
    ranges = FakeQuantization(model, images)
    ranges.attach(model)
    rounded = predict_logits(model, shown)
    near, far = measure_parity(int8, rounded), measure_parity(int8, in_float)
    print(kind, near, far)
    assert near.logit_std < 0.5 * far.logit_std
    ranges.detach()
    np.testing.assert_array_equal(predict_logits(model, shown), in_float)
