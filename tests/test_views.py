"""What every view and every mixing promises: pixels of (seed, sample index, view number) alone."""

import hashlib
import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from distill.errors import UserError
from distill.training import views
from distill.training.views import (
    ColorJitter,
    Compose,
    CutMix,
    MixUp,
    RandomErasing,
    RandomResizedCrop,
    ShiftFlip,
    TransformViews,
    Unchanged,
    random_bits,
)
from distill.training.views.hashing import STREAMS_PER_VIEW, below, uniforms


def noise(image):
    """Draw from each of the three global generators that a transform may use."""
    levels = torch.randint(256, image.shape, dtype=torch.uint8)
    return image ^ levels ^ int(256 * random.random()) ^ int(256 * np.random.rand())


CASES = {
    "ShiftFlip": partial(ShiftFlip, padding=3, flip=True),
    "RandomResizedCrop": partial(RandomResizedCrop, size=(5, 12)),
    "ColorJitter": partial(ColorJitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    "RandomErasing": partial(RandomErasing, probability=0.9, value=(1, 2, 3)),
    "TransformViews": partial(TransformViews, transform=noise),
    "MixUp": MixUp,
    "CutMix": CutMix,
}

# sha256 of IMAGES as each class shows them, by `views.VERSION`. Entries are added, never edited.
GOLDEN = {
    1: {
        "ShiftFlip": "bb5f2febceb59826d05dcbee08fa7cbfa2007489817c032eca102c2aa5a23b7b",
        "RandomResizedCrop": "f3004f897befc1b19f1fa9706ec64d9fe3e8632b9a9da80c21e68d60e336f498",
        "ColorJitter": "f68aa0e6f57aadbb6d356cfb02df7ceb03055f362327b02feaff6cba0747d41a",
        "RandomErasing": "62ca1611400a7027eea0263a9ad5780d6c22c0efd4dc289a7a1829b327c9b5ba",
        "TransformViews": "bcb7def8d974eb69bca028de717d5ca423c60c10038a0c694da3e9d9148bb9c7",
        "MixUp": "bf960e4fdf0ca25161f377e31a8b8fbc0c44b5f4e543286057a0e0a00ad534ec",
        "CutMix": "8961546849039853d4dfa6970c117f3c19d173276956a048a8514beda5a918c6",
    }
}


def fixed_bytes(*shape):
    """Make bytes that no generator decides."""
    counts = np.arange(math.prod(shape), dtype=np.uint64)
    return (counts * 2654435761 >> 13).astype(np.uint8).reshape(shape)


IMAGES = fixed_bytes(24, 9, 11, 3)
IMAGES.flags.writeable = False
INDICES = 1007 + 3 * np.arange(24)
ALL = slice(None)


def show(subject, positions, view, images=IMAGES):
    """Return what training is given for some samples, one row of bytes each."""
    chosen, indices = images[positions], INDICES[positions]
    if not hasattr(subject, "mix"):
        return subject(chosen, indices, view).reshape(len(chosen), -1)
    partners = subject.partners(indices, view, len(images))
    mixed, shares = subject.mix(chosen, images[partners], indices, view)
    return np.hstack([mixed.reshape(len(chosen), -1), shares.view(np.uint8).reshape(-1, 4)])


def test_every_class_that_draws_is_proved_here():
    public = {name: getattr(views, name) for name in views.__all__}
    of_rows = {name for name, own in public.items() if hasattr(own, "for_rows")}
    drawing = {name for name, own in public.items() if hasattr(own, "STREAM")}
    assert drawing - of_rows == set(CASES)  # those of rows are in `test_views_rows.py`


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(-(2**65), 2**65),
    view=st.integers(0, 2**40),
    positions=st.lists(st.integers(0, 23), min_size=1, max_size=30),
)
def test_a_sample_looks_the_same_in_any_batch_and_order(name, seed, view, positions):
    subject = CASES[name](seed=seed)
    whole = show(subject, ALL, view)
    np.testing.assert_array_equal(show(subject, np.array(positions), view), whole[positions])


@pytest.mark.parametrize("name", CASES)
def test_a_sample_looks_the_same_in_a_batch_of_many_blocks(name):
    subject = CASES[name](seed=5)
    positions = np.resize(np.arange(24), 1000)  # a block holds up to 546
    np.testing.assert_array_equal(show(subject, positions, 1), show(subject, ALL, 1)[positions])


@pytest.mark.parametrize("name", CASES)
def test_another_seed_view_or_sample_is_shown_differently(name):
    first = show(CASES[name](seed=0), ALL, 0)
    for other in (show(CASES[name](seed=1), ALL, 0), show(CASES[name](seed=0), ALL, 1)):
        assert (first != other).any(axis=1).mean() > 0.8
    alike = show(CASES[name](seed=0), ALL, 0, np.repeat(IMAGES[:1], 24, axis=0))
    assert len(np.unique(alike, axis=0)) > 12


@pytest.mark.parametrize("name", CASES)
def test_pixels_of_this_version_are_those_another_process_recorded(name):
    shown = np.vstack([show(CASES[name](seed=seed), ALL, 2) for seed in (0, 11)])
    assert hashlib.sha256(shown.tobytes()).hexdigest() == GOLDEN.get(views.VERSION, {}).get(name), (
        f"{name} shows other pixels than version {views.VERSION} of the views did, so stored soft "
        "labels no longer fit what the student sees. If that is meant, raise `views.VERSION` (old "
        "stores are then refused) and add its digests to GOLDEN; never edit an old entry."
    )


@pytest.mark.parametrize("name", CASES)
def test_how_images_lie_in_memory_changes_nothing_and_they_are_only_read(name):
    subject = CASES[name](seed=0)
    strided = np.asfortranarray(IMAGES)
    strided.flags.writeable = False
    np.testing.assert_array_equal(show(subject, ALL, 0, strided), show(subject, ALL, 0))


def test_classes_with_the_same_seed_decide_independently():
    n = 3000
    indices = np.arange(n)
    stripes = np.tile(np.array([0, 200], np.uint8)[:, None], (n, 2, 1, 1))  # [B, 2, 2, 1]
    white = np.full((n, 2, 2, 1), 255, np.uint8)
    made = {
        "ShiftFlip": ShiftFlip(padding=0, flip=True)(stripes, indices, 0),
        "RandomResizedCrop": RandomResizedCrop(scale=(1, 1))(stripes, indices, 0),
        "ColorJitter": ColorJitter(brightness=0.9)(white // 4, indices, 0),
        "RandomErasing": RandomErasing(scale=(1, 1), ratio=(1, 1))(white, indices, 0),
        "TransformViews": TransformViews(transform=noise)(white, indices, 0),
        "MixUp": MixUp(alpha=1).mix(white, 0 * white, indices, 0)[0],
        "CutMix": CutMix().mix(white, 0 * white, indices, 0)[0],
    }
    assert set(made) == set(CASES)
    decisions = np.array([shown[:, 0, 0, 0] for shown in made.values()])  # [7, B]
    decisions = np.vstack([decisions, *(m.partners(indices, 0, 100) for m in (MixUp(), CutMix()))])
    correlations = np.corrcoef(decisions) - np.eye(len(decisions))
    assert np.abs(correlations).max() < 4 / math.sqrt(n)


def test_no_class_draws_from_the_streams_of_another():
    public = [getattr(views, name) for name in views.__all__]
    owners = [own.STREAM for own in public if hasattr(own, "STREAM")]
    assert len(set(owners)) == len(owners)
    assert all(stream % STREAMS_PER_VIEW == 0 for stream in owners)


@pytest.mark.parametrize("named", [False, True])
def test_composed_views_are_applied_in_order(named):
    steps = [RandomResizedCrop(size=6), ShiftFlip(padding=2, flip=False), ColorJitter(contrast=0.9)]
    expected = IMAGES
    for step in steps:
        expected = step(expected, INDICES, 4)
    composed = Compose(steps=dict(zip("cab", steps, strict=True)) if named else steps)
    np.testing.assert_array_equal(composed(IMAGES, INDICES, 4), expected)
    backwards = Compose(steps=steps[::-1])(IMAGES, INDICES, 4)
    assert not np.array_equal(backwards, expected)


def test_unchanged_is_unchanged():
    np.testing.assert_array_equal(Unchanged()(IMAGES, INDICES, 9), IMAGES)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(ShiftFlip, padding=-1, flip=False), "`padding` of 0 or more pixels but got -1"),
        (partial(RandomResizedCrop, size=0), "`size` .* at least 1, but got 0"),
        (partial(RandomResizedCrop, size=(8, 8, 3)), r"`size` .* got \(8, 8, 3\)"),
        (partial(RandomResizedCrop, size=32.0), "`size` .* got 32.0"),
        (partial(RandomResizedCrop, scale=0.5), "`scale` to be two numbers .* got 0.5"),
        (partial(RandomResizedCrop, scale=(0.5, 0.1)), "`scale` .* the smaller one first"),
        (partial(RandomResizedCrop, scale=(0.5, 1.1)), "`scale` .* at most 1, "),
        (partial(RandomResizedCrop, scale=(0, 1)), "`scale` .* above 0"),
        (partial(RandomResizedCrop, ratio=(1, math.inf)), "`ratio`"),
        (partial(RandomResizedCrop, ratio=(math.nan, 1)), "`ratio`"),
        (partial(ColorJitter, brightness=-0.1), "`brightness` of 0 or more but got -0.1"),
        (partial(ColorJitter, contrast=math.nan), "`contrast`"),
        (partial(ColorJitter, saturation=math.inf), "`saturation`"),
        (partial(ColorJitter, hue=0.6), "`hue` from 0 to 0.5 but got 0.6"),
        (partial(RandomErasing, probability=1.1), "`probability` from 0 to 1 but got 1.1"),
        (partial(RandomErasing, scale=(0.1,)), "`scale` to be two numbers"),
        (partial(RandomErasing, ratio=(2, 1)), "`ratio`"),
        (partial(RandomErasing, value=256), "`value` in whole numbers 0 to 255 but got 256"),
        (partial(RandomErasing, value=0.5), "`value` .* got 0.5"),
        (partial(RandomErasing, value=(0, -1, 0)), "`value`"),
        (partial(MixUp, alpha=0), "`alpha` above 0 but got 0.*`mixing=none`"),
        (partial(MixUp, probability=-0.1), "`probability`"),
        (partial(CutMix, alpha=math.inf), "`alpha`"),
        (partial(CutMix, probability=math.nan), "`probability`"),
    ],
)
def test_impossible_settings_are_refused(make, words):
    with pytest.raises(UserError, match=f"Expected {words}"):
        make()


def test_random_bits_are_uniform_and_independent():
    n = 50_000
    first, second = (random_bits(0, np.arange(n), view) for view in (0, 1))
    for shift in (0, 24, 48):
        values = (first >> shift & 0xFF).astype(int)
        assert stats.chisquare(np.bincount(values, minlength=256)).pvalue > 1e-4
    unit = [bits / 2.0**64 for bits in (first, second)]
    assert abs(np.corrcoef(unit[0], unit[1])[0, 1]) < 0.02
    assert abs(np.corrcoef(unit[0][1:], unit[0][:-1])[0, 1]) < 0.02


def test_uniforms_of_neighbouring_streams_are_uniform_and_independent():
    draws = uniforms(3, np.arange(20_000), 1, stream=64, count=8)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert min(stats.kstest(row, "uniform").pvalue for row in draws) > 1e-3
    assert np.abs(np.corrcoef(draws) - np.eye(8)).max() < 0.03


@given(bound=st.integers(1, 2**53 - 1), draw=st.integers(0, 2**53 - 1))
def test_whole_numbers_stay_below_their_bound(bound, draw):
    exact = draw * bound // 2**53
    got = below(bound, np.array([draw / 2**53])).item()
    assert 0 <= got < bound
    assert abs(got - exact) <= 1  # the product is rounded to 53 bits
