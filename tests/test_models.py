from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from distill.errors import UserError
from distill.training.models import (
    CifarResNet,
    ImageClassifier,
    PlainCNN,
    build_classifier,
    num_parameters,
    torchvision_classifier,
)

X4 = (32, 64, 128, 256)
build = partial(
    build_classifier, num_classes=7, image_shape=(32, 32, 3), mean=[0.5] * 3, std=[0.2] * 3
)


@pytest.mark.parametrize(
    ("depth", "widths", "millions"),
    # Of 100 classes, as published with the distillation benchmark of CRD (2020), in millions.
    [(8, (16, 16, 32, 64), 0.08), (20, (16, 16, 32, 64), 0.28), (56, (16, 16, 32, 64), 0.86),
     (8, X4, 1.23), (32, X4, 7.43)],
)  # fmt: skip
def test_residual_networks_have_the_published_sizes(depth, widths, millions):
    network = CifarResNet(100, 3, depth=depth, widths=widths)
    assert num_parameters(network) / 1e6 == pytest.approx(millions, abs=0.006)


def test_tiny_cnn_has_about_ten_thousand_parameters():
    assert num_parameters(PlainCNN(10, 1, widths=(16, 24, 28))) == 10_074


def test_preprocessing_inside_is_that_of_numpy(rng):
    images = rng.integers(0, 256, (4, 5, 6, 3)).astype(np.uint8)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    found = ImageClassifier(nn.Identity(), mean, std)(torch.from_numpy(images))
    expected = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_0", "googlenet"])
def test_any_torchvision_classifier_gets_a_head_of_the_right_width(name):
    model = build(partial(torchvision_classifier, name=name), image_shape=(64, 64, 3))
    assert model.eval()(torch.zeros(2, 64, 64, 3, dtype=torch.uint8)).shape == (2, 7)


def test_gray_images_fit_a_torchvision_classifier():
    build(
        partial(torchvision_classifier, name="resnet18"),
        image_shape=(32, 32, 1),
        mean=[0.5],
        std=[0.2],
    )


def test_an_unknown_torchvision_name_gets_its_neighbours():
    with pytest.raises(UserError, match="Did you mean `resnet18`"):
        torchvision_classifier(10, 3, name="resnet_18")


def test_unknown_weights_are_named():
    with pytest.raises(UserError, match="IMAGENET1K_V1"):
        torchvision_classifier(10, 3, name="resnet18", weights="IMAGENET")


def test_weights_that_cannot_be_had_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(UserError, match=str(tmp_path)):
        torchvision_classifier(10, 3, name="resnet18", weights="DEFAULT")


def test_a_network_with_another_head_is_refused():
    with pytest.raises(UserError, match=r"logits of shape \(2, 7\)"):
        build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(32 * 32 * 3, 5)))


def test_a_network_for_other_images_is_refused():
    with pytest.raises(UserError, match="32x32x3"):
        build(lambda: nn.Conv2d(1, 7, 3))


@pytest.mark.parametrize("depth", [7, 9, 2])
def test_an_impossible_depth_is_refused(depth):
    with pytest.raises(UserError, match="6n"):
        CifarResNet(10, 3, depth=depth)


@pytest.mark.parametrize("channels", [3, 4, 8, 16])
def test_a_shortcut_learns_as_a_strided_convolution_does(channels):
    x = torch.randn(5, channels, 9, 8, dtype=torch.float64)
    network = CifarResNet(2, 3, depth=8, widths=(channels, channels, 16, 32)).double()
    own = network.blocks[1].shortcut[0]
    plain = torch.nn.Conv2d(channels, 16, 1, stride=2, bias=False).double()
    plain.load_state_dict(own.state_dict())
    answers = [convolution(x) for convolution in (own, plain)]
    torch.testing.assert_close(*answers)
    torch.testing.assert_close(own.eval()(x), answers[1])
    for answer in answers:
        answer.pow(3).sum().backward()
    # In float64 torch does not ask oneDNN, whose gradient is what this keeps clear of.
    torch.testing.assert_close(own.weight.grad, plain.weight.grad)


def test_a_shortcut_is_exported_as_one_strided_convolution():
    network = CifarResNet(2, 3, depth=8).eval()
    x = torch.randn(2, 3, 8, 8)
    program = torch.export.export(network, (x,))
    torch.testing.assert_close(program.module()(x), network(x))
    called = [node.target for node in program.graph.nodes]
    assert torch.ops.aten.slice.Tensor not in called
