"""torchvision's transforms, replayed sample by sample."""

import random

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from distill.errors import UserError
from distill.training.views import TransformViews, random_bits

PIPELINE = v2.Compose(
    [
        v2.RandomCrop(10, padding=2),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    ]
)
INDICES = np.arange(70, 90)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (20, 12, 14, 3)).astype(np.uint8)


def generator_states():
    name, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), name, keys.tolist(), rest


def numpy_noise(image):
    return image ^ np.random.randint(256)


def python_noise(image):
    return image ^ random.randrange(256)


def all_noise(image):
    return python_noise(numpy_noise(PIPELINE(image)))


def broken(image):
    raise ValueError(f"{torch.rand(1)} {random.random()} {np.random.rand()}")


@pytest.mark.parametrize("transform", [PIPELINE, numpy_noise, python_noise])
def test_a_transform_replays_per_sample_whatever_the_batch(transform, images, rng):
    make = TransformViews(transform=transform, seed=3)
    whole = make(images, INDICES, 7)
    order = rng.permutation(20)
    np.testing.assert_array_equal(make(images[order], INDICES[order], 7), whole[order])
    for position in (0, 5, 19):
        one = slice(position, position + 1)
        np.testing.assert_array_equal(make(images[one], INDICES[one], 7), whole[one])
    for other in (
        make(images, INDICES, 8),
        TransformViews(transform=transform)(images, INDICES, 7),
    ):
        assert (other != whole).any(axis=(1, 2, 3)).mean() > 0.8


def test_a_view_is_what_torchvision_makes_after_seeding_by_hand(images):
    seeds = random_bits(3, INDICES, 7, TransformViews.STREAM).tolist()
    shown = TransformViews(transform=PIPELINE, seed=3)(images, INDICES, 7)
    with torch.random.fork_rng(devices=[]):
        for image, seed, got in zip(images, seeds, shown, strict=True):
            torch.manual_seed(seed)
            expected = PIPELINE(torch.from_numpy(image).permute(2, 0, 1))
            np.testing.assert_array_equal(got, expected.permute(1, 2, 0).numpy())


def test_the_transform_is_given_the_image_itself(images):
    cut = TransformViews(transform=v2.Compose([v2.ToImage(), v2.CenterCrop([8, 10])]))
    np.testing.assert_array_equal(cut(images, INDICES, 0), images[:, 2:10, 2:12])


def test_replay_neither_reads_nor_changes_the_global_generators(images):
    make = TransformViews(transform=all_noise)
    before = generator_states()
    first = make(images, INDICES, 0)
    assert generator_states() == before
    torch.rand(1), random.random(), np.random.rand()
    assert generator_states() != before
    np.testing.assert_array_equal(make(images, INDICES, 0), first)


def test_the_global_generators_survive_a_transform_that_fails(images):
    before = generator_states()
    with pytest.raises(ValueError, match="tensor"):
        TransformViews(transform=broken)(images, INDICES, 0)
    assert generator_states() == before


def test_a_transform_that_writes_into_its_image_leaves_the_data_alone(images):
    kept = images.copy()
    shown = TransformViews(transform=lambda image: image.zero_())(images, INDICES, 0)
    assert not shown.any()
    np.testing.assert_array_equal(images, kept)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (v2.ToDtype(torch.float32, scale=True), r"torch.float32 of shape \[3, 12, 14\].*`ToDtype`"),
        (v2.Grayscale(), r"shape \[3, H, W\] but got torch.uint8 of shape \[1, 12, 14\]"),
        (lambda image: image[0], r"of shape \[12, 14\]"),
        (v2.ToPILImage(), "but got Image.*Leave .*`ToPILImage` out"),
        (lambda image: image[:, : random.randint(2, 12)], r"one shape .* End it with a crop"),
    ],
)
def test_what_no_student_could_be_shown_is_refused(transform, words, images):
    with pytest.raises(UserError, match=f"Expected the `transform` to give .*{words}"):
        TransformViews(transform=transform)(images, INDICES, 0)
