"""Colours against torchvision's functions and `colorsys`."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms.v2 import functional

from distill.errors import UserError
from distill.training.views import ColorJitter
from distill.training.views.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
)

THEIRS = {
    adjust_brightness: functional.adjust_brightness,
    adjust_contrast: functional.adjust_contrast,
    adjust_saturation: functional.adjust_saturation,
    adjust_hue: functional.adjust_hue,
}


def adjusted(adjust, images, factors):
    """Apply an adjustment to images, [B, H, W, C]."""
    planes = np.moveaxis(images, 3, 0).astype(np.float32)
    return np.moveaxis(adjust(planes, np.array(factors, np.float32)), 0, 3)


def torchvision_adjusted(adjust, images, factors, *, dtype):
    """Apply torchvision's adjustment of the same name, on levels or on floats from 0 to 1."""
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2)
    if dtype == torch.float64:
        tensors = tensors.double() / 255
    pairs = zip(tensors, factors, strict=True)
    shown = torch.stack([THEIRS[adjust](tensor, factor) for tensor, factor in pairs])
    shown = shown.permute(0, 2, 3, 1).double().numpy()
    return 255 * shown if dtype == torch.float64 else shown


def pictures(seed, channels=3, size=(6, 5)):
    """Make four images: noise, faint noise, greys and single colours of full strength."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (4, *size, channels))
    noise[1] = 100 + noise[1] // 16
    noise[2] = noise[2, ..., :1]
    noise[3] = 255 * (noise[3] > 127)
    return noise.astype(np.uint8)


@pytest.mark.parametrize(
    ("adjust", "channels", "least", "most"),
    [
        (adjust_brightness, 3, 0, 3),
        (adjust_brightness, 1, 0, 3),
        (adjust_contrast, 3, 0, 3),
        (adjust_contrast, 1, 0, 3),
        (adjust_saturation, 3, 0, 3),
        (adjust_hue, 3, -0.5, 0.5),
    ],
)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_an_adjustment_is_torchvisions_on_floats_rounded(adjust, channels, least, most, data, seed):
    images = pictures(seed, channels)
    factors = data.draw(st.lists(st.floats(least, most, width=32), min_size=4, max_size=4))
    expected = torchvision_adjusted(adjust, images, factors, dtype=torch.float64)
    # Half a level, and where grey is blended in: torchvision's red has a weight of 0.2989 in it.
    blended = 0.0001 * 255 * np.abs(1 - np.array(factors)) if adjust is not adjust_hue else 0
    gaps = np.abs(adjusted(adjust, images, factors) - expected).max(axis=(1, 2, 3))
    assert (gaps <= 0.501 + blended).all()


@pytest.mark.parametrize(
    ("adjust", "least", "most"),
    # What torchvision cuts off we round: up to one level. It also cuts off the grey that it blends
    # in with a weight of 1 - factor: up to one level more. Of the hue it cuts nothing off.
    [
        (adjust_brightness, 0, 1),
        (adjust_contrast, -1, 2),
        (adjust_saturation, -1, 2),
        (adjust_hue, -1, 1),
    ],
)
def test_an_adjustment_is_within_two_levels_of_torchvisions_on_bytes(adjust, least, most):
    images = np.concatenate([pictures(seed) for seed in range(40)])
    limits = (-0.5, 0.5) if adjust is adjust_hue else (0, 2)
    factors = np.random.default_rng(1).uniform(*limits, len(images)).astype(np.float32).tolist()
    theirs = torchvision_adjusted(adjust, images, factors, dtype=torch.uint8)
    gaps = adjusted(adjust, images, factors) - theirs
    assert least <= gaps.min() <= gaps.max() <= most


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    turns=st.lists(st.floats(-0.5, 0.5, width=32), min_size=4, max_size=4),
)
def test_the_hue_is_turned_as_colorsys_turns_it(seed, turns):
    images = pictures(seed)
    shown = adjusted(adjust_hue, images, turns)
    for image, got, turn in zip(images / 255, shown, turns, strict=True):
        for pixel, level in zip(image.reshape(-1, 3), got.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            assert np.abs(level - 255 * np.array(expected)).max() <= 0.501


def test_each_factor_is_uniform_in_its_range_and_independent_of_the_others():
    n = 3000
    tiles = np.array([[[180, 60, 60], [60, 180, 60], [60, 60, 180]]], np.uint8)
    image = {
        "brightness": np.full((1, 1, 3), 120, np.uint8),
        "contrast": np.array([60, 180], np.uint8).repeat(3).reshape(1, 2, 3),  # mean 120
        "saturation": tiles,
        "hue": tiles,
    }
    shown = {
        name: ColorJitter(**{name: 0.4})(np.tile(one, (n, 1, 1, 1)), np.arange(n), 0).astype(int)
        for name, one in image.items()
    }
    factors = {
        "brightness": shown["brightness"][:, 0, 0, 0] / 120,
        "contrast": (shown["contrast"][:, 0, 1, 0] - shown["contrast"][:, 0, 0, 0]) / 120,
        "saturation": (shown["saturation"][:, 0, 0, 0] - shown["saturation"][:, 0, 0, 1]) / 120,
        "hue": [colorsys.rgb_to_hsv(*pixel)[0] for pixel in shown["hue"][:, 0, 0] / 255],
    }
    factors["hue"] = (np.array(factors["hue"]) + 0.5) % 1 + 0.5  # from [-0.5, 0.5) to around 1
    for values in factors.values():
        assert 0.599 <= values.min() < 0.61
        assert 1.39 < values.max() <= 1.401
        assert stats.kstest(values, stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3
    correlations = np.corrcoef(list(factors.values())) - np.eye(4)
    assert np.abs(correlations).max() < 4 / np.sqrt(n)


def test_factors_never_fall_below_zero():
    white = np.full((500, 1, 1, 1), 255, np.uint8)
    shown = ColorJitter(brightness=3)(white // 5, np.arange(500), 0)  # factors from 0 to 4
    assert shown.min() < 5
    assert stats.kstest(shown.ravel(), stats.uniform(0, 4 * 51).cdf).pvalue > 1e-3


def test_all_strengths_together_are_each_alone_in_order():
    images = np.concatenate([pictures(seed, size=(200, 170)) for seed in (0, 1)])  # 1 to a block
    indices = np.arange(8)
    strengths = {"brightness": 0.6, "contrast": 0.5, "saturation": 0.7, "hue": 0.3}
    expected = images
    for name, strength in strengths.items():
        expected = ColorJitter(**{name: strength}, seed=2)(expected, indices, 1)
    np.testing.assert_array_equal(ColorJitter(**strengths, seed=2)(images, indices, 1), expected)


def test_without_strengths_nothing_changes_and_grey_has_no_colour_to_change():
    images = pictures(0)
    np.testing.assert_array_equal(ColorJitter()(images, np.arange(4), 0), images)
    grey = images[..., :1]
    shown = ColorJitter(saturation=0.9, hue=0.5)(grey, np.arange(4), 0)
    np.testing.assert_array_equal(shown, grey)


@pytest.mark.parametrize("channels", [2, 4])
def test_images_without_red_green_and_blue_are_refused(channels):
    with pytest.raises(UserError, match=f"1 or 3 channels for ColorJitter but got {channels}"):
        ColorJitter(hue=0.1)(np.zeros((2, 4, 4, channels), np.uint8), np.arange(2), 0)
