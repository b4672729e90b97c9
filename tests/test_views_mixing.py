"""Mixing against plain NumPy, SciPy's Beta distribution and the authors' way to place a box."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from distill.training.views import CutMix, MixUp
from distill.training.views.mixing import draw_beta

BLACK = np.zeros((3000, 16, 24, 1), np.uint8)
WHITE = BLACK + np.uint8(255)
INDICES = np.arange(3000)


def beta_pvalue(steps, alpha, levels):
    """Return Kolmogorov and Smirnov's p-value of Beta(alpha, alpha) in steps of 1 / levels."""
    values, counts = np.unique(steps, return_counts=True)
    expected = stats.beta.cdf((values + 0.5) / levels, alpha, alpha)
    below = stats.beta.cdf((values - 0.5) / levels, alpha, alpha)
    found = counts.cumsum() / len(steps)
    gap = max(np.abs(found - expected).max(), np.abs(found - counts / len(steps) - below).max())
    return stats.kstwo.sf(gap, len(steps))


def authors_shares(rng, num_samples, height, width):
    """Return label shares drawn like those of the CutMix authors' code, with alpha 1."""
    side = np.sqrt(1 - rng.beta(1, 1, num_samples))
    areas = 1
    for length in (height, width):
        centre = rng.integers(length, size=num_samples)
        half = (length * side).astype(int) // 2
        stretch = np.clip(centre + half, 0, length) - np.clip(centre - half, 0, length)
        areas = areas * stretch
    return 1 - areas / (height * width)


@settings(max_examples=50, deadline=None)
@given(
    alpha=st.floats(0.05, 20),
    probability=st.floats(0, 1),
    seed=st.integers(0, 10**6),
    shape=st.tuples(*(st.integers(1, high) for high in (9, 7, 5, 4))),
)
def test_mixed_up_pixels_are_blended_by_the_labels_share(alpha, probability, seed, shape):
    rng = np.random.default_rng(seed)
    images, partners = rng.integers(0, 256, (2, *shape)).astype(np.uint8)
    mixing = MixUp(alpha=alpha, probability=probability, seed=seed)
    mixed, shares = mixing.mix(images, partners, np.arange(len(images)), 3)
    assert mixed.dtype == np.uint8
    assert shares.dtype == np.float32
    share = shares.astype(float)[:, None, None, None]  # of 1/256: what follows is exact
    np.testing.assert_array_equal(mixed, np.floor(share * images + (1 - share) * partners + 0.5))


def test_a_mixed_up_black_image_with_a_white_one_shows_its_share():
    mixed, shares = MixUp(alpha=1).mix(BLACK, WHITE, INDICES, 0)
    np.testing.assert_allclose(1 - mixed[:, 0, 0, 0] / 255, shares, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1, 5])
def test_shares_of_mixup_are_of_a_beta_distribution(alpha):
    image = np.zeros((20_000, 1, 1, 1), np.uint8)
    _, shares = MixUp(alpha=alpha).mix(image, image, np.arange(20_000), 0)
    assert beta_pvalue(shares * 256, alpha, 256) > 1e-3
    assert beta_pvalue(shares * 256, 1.2 * alpha, 256) < 1e-3  # such a difference would be seen


@pytest.mark.parametrize("alpha", [0.01, 0.3, 1, 40])
@pytest.mark.parametrize("levels", [256, 2**16])
def test_the_table_inverts_the_beta_distribution(alpha, levels):
    draws = np.random.default_rng(0).random(2000)
    steps = draw_beta(alpha, draws, levels=levels)
    assert 0 <= steps.min() <= steps.max() <= levels
    exact = stats.beta.ppf(draws, alpha, alpha)
    assert np.abs(steps / levels - exact).max() <= 0.5 / levels + 1e-9


@settings(max_examples=50, deadline=None)
@given(
    alpha=st.floats(0.05, 20),
    probability=st.floats(0, 1),
    seed=st.integers(0, 10**6),
    shape=st.tuples(*(st.integers(1, high) for high in (9, 30, 30, 4))),
)
def test_cutmix_shows_one_box_of_the_partner_and_shares_labels_by_pixels(
    alpha, probability, seed, shape
):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 128, shape).astype(np.uint8)
    partners = rng.integers(128, 256, shape).astype(np.uint8)
    mixing = CutMix(alpha=alpha, probability=probability, seed=seed)
    mixed, shares = mixing.mix(images, partners, np.arange(len(images)), 3)
    pasted = (mixed >= 128).any(axis=3)
    rows, columns = pasted.any(axis=2), pasted.any(axis=1)
    np.testing.assert_array_equal(pasted, rows[:, :, None] & columns[:, None, :])
    for lines in (rows, columns):  # in one piece
        assert ((np.diff(lines.astype(int), prepend=0) == 1).sum(axis=1) <= 1).all()
    np.testing.assert_array_equal(mixed, np.where(pasted[..., None], partners, images))
    assert shares.dtype == np.float32
    np.testing.assert_array_equal(shares, (1 - pasted.mean(axis=(1, 2))).astype(np.float32))


@pytest.mark.parametrize("probability", [0.5, 1])
def test_shares_of_cutmix_are_distributed_as_in_the_authors_code(probability):
    images = np.zeros((3000, 96, 64, 1), np.uint8)
    _, shares = CutMix(probability=probability).mix(images, images, INDICES, 0)
    theirs = authors_shares(np.random.default_rng(0), 3000, 96, 64)
    assert stats.ks_2samp(shares[shares < 1], theirs[theirs < 1]).pvalue > 1e-3


def test_a_box_of_cutmix_that_the_edge_does_not_cut_has_the_images_shape():
    mixed, _ = CutMix().mix(BLACK, WHITE, INDICES, 0)
    rows, columns = (mixed[..., 0] == 255).any(axis=2), (mixed[..., 0] == 255).any(axis=1)
    inside = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1]) & rows.any(axis=1)
    assert inside.sum() > 300
    height, width = rows.sum(axis=1)[inside] / 16, columns.sum(axis=1)[inside] / 24
    assert np.abs(height - width).max() < 1 / 16  # both rounded down to whole pixels


def test_whether_an_image_is_mixed_up_does_not_decide_its_share():
    image = np.zeros((20_000, 1, 1, 1), np.uint8)
    _, shares = MixUp(alpha=5, probability=0.5).mix(image, image, np.arange(20_000), 0)
    assert beta_pvalue(shares[shares < 1] * 256, 5, 256) > 1e-3


def test_centres_of_cutmix_are_uniform():
    black, white = BLACK[:, :, :20], WHITE[:, :, :20]
    mixed, _ = CutMix(alpha=1e5).mix(black, white, INDICES, 0)  # sqrt(1 / 2) of the sides
    centres = []
    for axis, length, side in ((2, 16, 11), (1, 20, 14)):
        lines = (mixed[..., 0] == 255).any(axis=axis)
        start = lines.argmax(axis=1)
        clipped = lines.sum(axis=1) < side
        centre = np.where(
            clipped & lines[:, 0], lines.sum(axis=1) - (side + 1) // 2, start + side // 2
        )
        assert stats.chisquare(np.bincount(centre, minlength=length)).pvalue > 1e-3
        centres.append(centre)
    assert abs(np.corrcoef(centres)[0, 1]) < 4 / np.sqrt(3000)


@pytest.mark.parametrize("mixing", [MixUp, CutMix])
def test_as_many_images_are_mixed_as_the_probability_says(mixing):
    # With an alpha this large, shares are near one half for MixUp and never 1 for CutMix.
    mixed, shares = mixing(alpha=50, probability=0.3).mix(BLACK, WHITE, INDICES, 0)
    changed = mixed.any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, shares < 1)
    assert stats.binomtest(changed.sum(), 3000, 0.3).pvalue > 1e-3
    never, ones = mixing(probability=0).mix(BLACK, WHITE, INDICES, 0)
    assert not never.any()
    assert (ones == 1).all()


@pytest.mark.parametrize("mixing", [MixUp, CutMix])
def test_partners_are_uniform_over_the_data_set_whatever_the_batch(mixing):
    drawn = np.concatenate([mixing().partners(np.arange(5000), view, 40) for view in range(4)])
    assert stats.chisquare(np.bincount(drawn, minlength=40)).pvalue > 1e-3
    assert drawn.max() == 39
    pairs = np.histogram2d(drawn[:5000], drawn[5000:10_000], bins=8)[0]  # one view, then the next
    assert stats.chi2_contingency(pairs).pvalue > 1e-3
    assert set(mixing().partners(np.arange(50), 0, 1)) == {0}


@pytest.mark.parametrize("mixing", [MixUp(), CutMix()])
def test_images_and_partners_of_other_shapes_are_refused(mixing):
    with pytest.raises(ValueError, match="Expected equal shapes"):
        mixing.mix(BLACK[:2], WHITE[:2, :1], INDICES[:2], 0)
