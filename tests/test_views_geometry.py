"""Boxes, and the views that cut them out or paint them over."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from torch.nn import functional
from torchvision import transforms

from distill.errors import UserError
from distill.training.views import RandomErasing, RandomResizedCrop, ShiftFlip
from distill.training.views.boxes import DRAWS_PER_BOX, Boxes, draw_boxes
from distill.training.views.geometry import resize_boxes


def naive_shift(image, dy, dx, mirrored, pad):
    """Pad, cut out and mirror one image, the slow way."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    height, width = image.shape[:2]
    cut = padded[dy : dy + height, dx : dx + width]
    return cut[:, ::-1] if mirrored else cut


def naive_resize(box, height, width):
    """Resize one box, [h, w, C], pixel by pixel and in floats."""
    resized = np.empty((height, width, box.shape[2]))
    for i, j in np.ndindex(height, width):
        y = min(max((i + 0.5) * len(box) / height - 0.5, 0), len(box) - 1)
        x = min(max((j + 0.5) * box.shape[1] / width - 0.5, 0), box.shape[1] - 1)
        top, left = int(y), int(x)
        lower, right = min(top + 1, len(box) - 1), min(left + 1, box.shape[1] - 1)
        upper_row = box[top, left] * (1 - x + left) + box[top, right] * (x - left)
        lower_row = box[lower, left] * (1 - x + left) + box[lower, right] * (x - left)
        resized[i, j] = upper_row * (1 - y + top) + lower_row * (y - top)
    return np.rint(resized)


def boxes_cut(view, height, width, num_samples):
    """Return a crop's boxes and which were mirrored, from images whose pixels tell their place.

    Exact, since a box that is not made smaller starts and ends on its own corners.
    """
    places = np.stack(np.mgrid[:height, :width], axis=-1).astype(np.uint8)
    shown = view(np.tile(places, (num_samples, 1, 1, 1)), np.arange(num_samples), 0).astype(int)
    (top, left), (bottom, right) = shown[:, 0, 0].T, shown[:, -1, -1].T
    mirrored = left > right
    left, right = np.minimum(left, right), np.maximum(left, right)
    return Boxes(top, left, bottom - top + 1, right - left + 1), mirrored


def rectangles(mask):
    """Return the one box that each mask, [B, H, W], is."""
    rows, columns = mask.any(axis=2), mask.any(axis=1)
    np.testing.assert_array_equal(mask, rows[:, :, None] & columns[:, None, :])
    for lines in (rows, columns):  # in one piece each
        assert ((np.diff(lines.astype(int), prepend=0) == 1).sum(axis=1) <= 1).all()
    return Boxes(rows.argmax(1), columns.argmax(1), rows.sum(axis=1), columns.sum(axis=1))


def assert_in_range(boxes, image_size, scale, ratio):
    """Check that sides within half a pixel of the boxes' have area and ratio in range."""
    area = math.prod(image_size)
    short, long = (np.array([boxes.height, boxes.width]) + shift for shift in (-0.5, 0.5))
    assert (short.prod(axis=0) <= scale[1] * area * (1 + 1e-9)).all()
    assert (long.prod(axis=0) >= scale[0] * area * (1 - 1e-9)).all()
    assert (short[1] / long[0] <= ratio[1] * (1 + 1e-9)).all()
    assert (long[1] / short[0] >= ratio[0] * (1 - 1e-9)).all()


def test_every_view_is_a_shift_and_mirror_of_its_image(rng):
    images = rng.integers(1, 256, (200, 6, 7, 3)).astype(np.uint8)
    views = ShiftFlip(padding=2, flip=True)(images, np.arange(200), 5)
    kinds = set()
    for image, view in zip(images, views, strict=True):
        matching = [
            (dy, dx, mirrored)
            for dy in range(5)
            for dx in range(5)
            for mirrored in (False, True)
            if np.array_equal(naive_shift(image, dy, dx, mirrored, 2), view)
        ]
        assert len(matching) == 1
        kinds.update(matching)
    assert len(kinds) > 45  # of 50: all shifts and both mirrors occur


@settings(max_examples=100, deadline=None)
@given(
    image_size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    scale=st.tuples(st.floats(1e-3, 1), st.floats(1e-3, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted),
    draws=arrays(float, (DRAWS_PER_BOX, 4), elements=st.floats(0, 1, exclude_max=True)),
)
def test_boxes_lie_in_the_image_and_are_no_larger_than_asked(image_size, scale, ratio, draws):
    top, left, height, width = draw_boxes(draws, image_size, scale=scale, ratio=ratio)
    assert (np.array([top, left]) >= 0).all()
    assert (np.array([height, width]) >= 1).all()
    assert (top + height <= image_size[0]).all()
    assert (left + width <= image_size[1]).all()
    thin = np.minimum(height, width) == 1  # a side of less than one pixel is one pixel
    largest = scale[1] * math.prod(image_size) * (1 + 1e-9)
    assert (thin | ((height - 0.5) * (width - 0.5) <= largest)).all()


@pytest.mark.parametrize(
    ("image_size", "ratio", "expected"),
    [
        ((8, 64), (3 / 4, 4 / 3), (8, 11)),
        ((64, 8), (3 / 4, 4 / 3), (11, 8)),
        ((9, 9), (3, 4), (3, 9)),
    ],
)
def test_where_no_proposal_fits_the_box_is_the_largest_that_does(image_size, ratio, expected, rng):
    draws = rng.random((DRAWS_PER_BOX, 50))
    boxes = draw_boxes(draws, image_size, scale=(0.95, 1), ratio=ratio)
    assert set(zip(boxes.height, boxes.width, strict=True)) == {expected}
    assert len(np.unique(boxes.top + boxes.left)) > 1


def test_area_log_ratio_place_and_mirror_are_uniform_and_independent():
    view = RandomResizedCrop(scale=(0.1, 0.5), ratio=(1, 2))  # all proposals fit
    boxes, mirrored = boxes_cut(view, 60, 60, 1500)
    assert_in_range(boxes, (60, 60), view.scale, view.ratio)
    shares = boxes.height * boxes.width / 3600
    assert stats.kstest(shares, stats.uniform(0.1, 0.4).cdf).pvalue > 1e-3
    unrounded = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 1500))  # sides are whole pixels
    height, width = np.array([boxes.height, boxes.width]) + unrounded
    logs = np.log2(width / height)
    assert stats.kstest(logs, "uniform").pvalue > 1e-3
    down, across = boxes.top + 0.5, boxes.left + 0.5
    places = [down / (61 - boxes.height), across / (61 - boxes.width)]
    for place in places:
        assert stats.kstest(place, "uniform").pvalue > 1e-3
    assert stats.binomtest(mirrored.sum(), 1500).pvalue > 1e-3
    correlations = np.corrcoef([shares, logs, *places, mirrored]) - np.eye(5)
    assert np.abs(correlations).max() < 4 / math.sqrt(1500)


def test_boxes_are_distributed_as_those_of_torchvision():
    boxes, _ = boxes_cut(RandomResizedCrop(), 60, 48, 1500)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draw = transforms.RandomResizedCrop.get_params
        image = torch.empty(1, 60, 48)
        theirs = np.array([draw(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(1500)])
    for ours, other in zip(boxes, theirs.T, strict=True):
        assert stats.ks_2samp(ours, other).pvalue > 1e-3
    areas = boxes.height * boxes.width
    assert stats.ks_2samp(areas, theirs[:, 2] * theirs[:, 3]).pvalue > 1e-3


@pytest.mark.parametrize("size", [(7, 45), (50, 9)])
def test_a_crop_is_its_box_resized_bilinearly(size, rng):
    boxes, mirrored = boxes_cut(RandomResizedCrop(), 40, 30, 8)
    assert 0 < mirrored.sum() < 8
    images = rng.integers(0, 256, (8, 40, 30, 3)).astype(np.uint8)
    shown = RandomResizedCrop(size=size)(images, np.arange(8), 0)
    # Weights in steps of 1/256 are off by at most 255/512 level on each axis, together less than 1.
    gaps = []
    for image, got, flip, *box in zip(images, shown, mirrored, *boxes, strict=True):
        top, left, height, width = box
        expected = naive_resize(image[top : top + height, left : left + width], *size)
        gaps.append(expected - (got[:, ::-1] if flip else got))
    assert np.abs(gaps).max() <= 1
    assert abs(np.mean(gaps)) < 0.02  # rounded, not cut off


@settings(max_examples=60, deadline=None)
@given(data=st.data(), channels=st.sampled_from([1, 3, 4]), mirrored=st.booleans())
def test_any_box_is_resized_as_torch_interpolates_it(data, channels, mirrored):
    height, width, *size = (data.draw(st.integers(1, 40)) for _ in range(4))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    high, wide = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    image = rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
    box = Boxes(*(np.array([value]) for value in (top, left, high, wide)))
    got = resize_boxes(image[None], box, size, mirrored=np.array([mirrored]))[0]
    cut = torch.from_numpy(image[top : top + high, left : left + wide]).permute(2, 0, 1)[None]
    expected = functional.interpolate(cut.float(), size, mode="bilinear", antialias=False)[0]
    expected = expected.permute(1, 2, 0).numpy()[:, :: -1 if mirrored else 1]
    assert np.abs(np.rint(expected) - got).max() <= 1


def test_the_whole_image_at_its_own_size_is_the_image_itself(rng):
    images = rng.integers(0, 256, (5, 12, 18, 3)).astype(np.uint8)
    view = RandomResizedCrop(scale=(1, 1), ratio=(1.5, 1.5), flip=False)
    np.testing.assert_array_equal(view(images, np.arange(5), 0), images)


@pytest.mark.parametrize("value", [0, (0, 128, 255)])
def test_erasing_paints_one_box_and_nothing_else(value, rng):
    images = rng.integers(1, 255, (2000, 40, 30, 3)).astype(np.uint8)
    images[..., 1] = 7  # neither 128 nor 0: every painted pixel can be told
    view = RandomErasing(probability=0.3, value=value)
    erased = view(images, np.arange(2000), 0)
    mask = (erased != images).any(axis=3)
    np.testing.assert_array_equal(erased, np.where(mask[..., None], np.array(value), images))
    chosen = mask.any(axis=(1, 2))
    assert stats.binomtest(chosen.sum(), 2000, 0.3).pvalue > 1e-3
    assert_in_range(rectangles(mask[chosen]), (40, 30), view.scale, view.ratio)


def test_erased_areas_and_places_are_uniform():
    grey = np.full((2500, 60, 60, 1), 9, np.uint8)
    view = RandomErasing(probability=0.5, scale=(0.1, 0.5), ratio=(0.5, 1))  # all proposals fit
    mask = view(grey, np.arange(2500), 0)[..., 0] == 0
    boxes = rectangles(mask[mask.any(axis=(1, 2))])
    assert_in_range(boxes, (60, 60), view.scale, view.ratio)
    shares = boxes.height * boxes.width / 3600
    assert stats.kstest(shares, stats.uniform(0.1, 0.4).cdf).pvalue > 1e-3
    for start, room in ((boxes.top, 61 - boxes.height), (boxes.left, 61 - boxes.width)):
        assert stats.kstest((start + 0.5) / room, "uniform").pvalue > 1e-3


def test_erasing_with_more_values_than_channels_is_refused():
    with pytest.raises(UserError, match=r"or 1 \(one per channel\), but got \(1, 2, 3\)"):
        RandomErasing(value=(1, 2, 3))(np.zeros((2, 4, 4, 1), np.uint8), np.arange(2), 0)
