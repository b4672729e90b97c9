import numpy as np
from scipy import stats

from distill.training.views import ShiftFlip, Unchanged, random_bits


def naive_view(image, dy, dx, mirrored, pad):
    """Pad, cut out and mirror one image, the slow way."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    height, width = image.shape[:2]
    cut = padded[dy : dy + height, dx : dx + width]
    return cut[:, ::-1] if mirrored else cut


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
            if np.array_equal(naive_view(image, dy, dx, mirrored, 2), view)
        ]
        assert len(matching) == 1
        kinds.update(matching)
    assert len(kinds) > 45  # of 50: all shifts and both mirrors occur


def test_a_view_depends_on_seed_index_and_number_alone(rng):
    images = rng.integers(0, 256, (32, 8, 8, 1)).astype(np.uint8)
    indices = np.arange(100, 132)
    make = ShiftFlip(padding=2, flip=True, seed=3)
    whole = make(images, indices, 7)
    order = rng.permutation(32)
    np.testing.assert_array_equal(make(images[order], indices[order], 7), whole[order])
    np.testing.assert_array_equal(make(images[5:6], indices[5:6], 7)[0], whole[5])
    assert not np.array_equal(make(images, indices, 8), whole)
    assert not np.array_equal(ShiftFlip(padding=2, flip=True, seed=4)(images, indices, 7), whole)


def test_random_bits_are_uniform_and_independent():
    n = 50_000
    first, second = (random_bits(0, np.arange(n), view) for view in (0, 1))
    for shift in (0, 24, 48):
        values = (first >> shift & 0xFF).astype(int)
        assert stats.chisquare(np.bincount(values, minlength=256)).pvalue > 1e-4
    unit = [bits / 2.0**64 for bits in (first, second)]
    assert abs(np.corrcoef(unit[0], unit[1])[0, 1]) < 0.02
    assert abs(np.corrcoef(unit[0][1:], unit[0][:-1])[0, 1]) < 0.02


def test_unchanged_is_unchanged(rng):
    images = rng.integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
    np.testing.assert_array_equal(Unchanged()(images, np.arange(3), 9), images)
