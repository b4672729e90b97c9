"""Claims about weights from elsewhere that do not say how images were normalised."""

import logging

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from distill.errors import UserError
from distill.tasks import classification
from distill.training.data.images import ImageData
from distill.training.data.splits import Split
from distill.training.models import ImageClassifier
from distill.verbs.learning.normalization import IMAGENET, check_normalization, is_open

CLASSES = ("bright", "dark")


def data(rng, channels=3):
    """Make bright and dark images whose mean lies between, class by class."""
    labels = np.repeat([0, 1], 300)
    levels = np.where(labels == 0, 180, 150)[:, None, None, None]
    images = (levels + rng.integers(-60, 61, (600, 16, 16, channels))).astype(np.uint8)
    split = Split(inputs=images, labels=labels, indices=np.arange(600))
    task = classification(CLASSES)
    return ImageData(name="a", task=task, train=split, validation=split, test=split)


class Brightness(nn.Module):
    """Says `bright` where the mean of what it is given is above a level, or the opposite."""

    def __init__(self, level, sign=1):
        super().__init__()
        self.level, self.sign = level, sign

    def forward(self, x):
        """Answer a batch."""
        above = self.sign * (x.mean(dim=(1, 2, 3)) - self.level)
        return torch.stack([above, -above], dim=1)


def model(own, network):
    return ImageClassifier(network, *own.channel_statistics).eval()


def level(pixel, mean, std):
    return float(np.mean((pixel / 255 - np.array(mean)) / np.array(std)))


@pytest.mark.parametrize(
    ("normalization", "channels", "wanted"),
    [
        (IMAGENET, 3, "a.mean=[0.485,0.456,0.406] a.std=[0.229,0.224,0.225]"),
        (([0.0], [1.0]), 3, "a.mean=[0,0,0] a.std=[1,1,1]"),
        (([0.0], [1.0]), 1, "a.mean=[0] a.std=[1]"),
    ],
)
def test_weights_that_another_normalisation_suits_clearly_better_are_refused(
    normalization, channels, wanted, rng
):
    own = data(rng, channels)
    foreign = model(own, Brightness(level(165, *normalization)))
    with pytest.raises(UserError, match="clearly better than this data's: of 600") as raised:
        check_normalization(own, foreign, CLASSES, "a")
    assert f"Set `{wanted}`" in str(raised.value)
    assert "100.0 % with" in str(raised.value)
    own_values = ",".join(f"{value:.4g}" for value in own.channel_statistics[0])
    assert f"to keep this data's, `a.mean=[{own_values}]" in str(raised.value)


@pytest.mark.parametrize("sign", [1, -1])  # of -1, its classes are in another order
def test_weights_that_the_datas_own_suits_keep_it_and_it_is_said(sign, rng, caplog):
    own = data(rng)
    foreign = model(own, Brightness(0.0, sign))
    before = foreign.mean.clone(), foreign.std.clone()
    with caplog.at_level(logging.INFO, "distill"):
        check_normalization(own, foreign, CLASSES[::sign], "a")
    assert "100.0 % with this data's, 50.0 % with ImageNet's" in caplog.text
    torch.testing.assert_close((foreign.mean, foreign.std), before)


def test_what_is_no_better_than_chance_proves_nothing(rng):
    own = data(rng)
    wrong = model(own, Brightness(0.0, -1))  # 0 % with the data's, 50 % with others
    check_normalization(own, wrong, CLASSES, "a")


@pytest.mark.parametrize(
    ("member", "content", "expected"),
    [
        ({}, {"fc.weight": 0}, True),
        ({"mean": None, "std": None}, {"state_dict": {"fc.weight": 0}}, True),
        ({"mean": [0.5], "std": [0.5]}, {"fc.weight": 0}, False),
        ({}, {"state_dict": {"network.fc.weight": 0, "mean": 0, "std": 0}, "classes": []}, False),
        ({}, {"network.fc.weight": 0, "mean": 0, "std": 0}, False),
    ],
)
def test_only_what_nobody_says_is_open(member, content, expected, rng):
    plain = model(data(rng), Brightness(0.0))
    assert is_open(OmegaConf.create(member), content, plain) == expected
    plain.network.normalization = IMAGENET
    assert not is_open(OmegaConf.create(member), content, plain)
