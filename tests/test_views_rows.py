"""Views and mixing of rows: by hand, against SciPy, and what every one of them promises."""

import hashlib
import math
import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from series_rows import frame, made
from test_encoding import COLUMNS, draw
from test_views_mixing import beta_pvalue

from distill.errors import UsageError, UserError
from distill.tables.encoding import LARGEST, fit_encoder
from distill.training import views
from distill.training.data.loading import BatchDataset
from distill.training.views import (
    Compose,
    MixUp,
    MixUpRows,
    NoiseRows,
    ShiftFlip,
    SwapColumns,
    Unchanged,
    bound,
)

CASES = {
    "NoiseRows": NoiseRows,
    "MixUpRows": MixUpRows,
    "SwapColumns": partial(SwapColumns, probability=0.5),
}
RAW = draw(np.random.default_rng(0), 400)  # gaps, few towns, many jobs, two dates, a boolean
ENCODER = fit_encoder(COLUMNS, RAW)
LAYOUT = ENCODER.layout
ROWS = ENCODER(RAW)
ROWS.flags.writeable = False
INDICES = 1007 + 3 * np.arange(400)
ALL = slice(None)
MEASURED = ("age", "income", "since", "seen")  # by the names of their figures


def columns_by_name():
    """Find each column's positions by the names of its figures alone, codes last."""
    owners = [re.split("[.=]", name)[0] for name in LAYOUT.names] + ["job"]
    return {own.name: [i for i, n in enumerate(owners) if n == own.name] for own in COLUMNS}


def at(*names):
    return [LAYOUT.names.index(name) for name in names]


def show(subject, positions, view, rows=ROWS):
    """Return what training is given for some samples, with each one's share."""
    known, chosen, indices = bound(subject, LAYOUT), rows[positions], INDICES[positions]
    if not hasattr(subject, "mix"):
        return known(chosen, indices, view)
    partners = known.partners(indices, view, len(rows))
    mixed, shares = known.mix(chosen, rows[partners], indices, view)
    assert shares.dtype == np.float32
    return np.column_stack([mixed, shares])


def test_a_layout_says_where_each_column_lies():
    places = {place.name: place for place in LAYOUT.places}
    assert list(places) == [own.name for own in COLUMNS]
    for name, positions in columns_by_name().items():
        assert list(places[name].positions) == positions
        own = places[name]
        assert own.measure == (at(name)[0] if name in MEASURED else None)
        gap = f"{name}.gap"
        assert own.gap == (at(gap)[0] if gap in LAYOUT.names else None)
    together = sorted(i for place in LAYOUT.places for i in place.positions)
    assert together == list(range(LAYOUT.num_features))
    assert {name for name in places if places[name].gap is not None} == {"age", "member", "since"}


def test_every_class_of_rows_is_proved_here():
    public = {name: getattr(views, name) for name in views.__all__}
    assert {n for n, v in public.items() if hasattr(v, "for_rows")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(-(2**65), 2**65),
    view=st.integers(0, 2**40),
    positions=st.lists(st.integers(0, 399), min_size=1, max_size=30),
)
def test_a_row_looks_the_same_in_any_batch_and_order(name, seed, view, positions):
    subject = CASES[name](seed=seed)
    whole = show(subject, ALL, view)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(show(subject, np.array(positions), view), whole[positions])
    strided = np.asfortranarray(ROWS)
    np.testing.assert_array_equal(show(subject, ALL, view, strided), whole)


@pytest.mark.parametrize("name", CASES)
def test_another_seed_view_or_row_is_shown_differently(name):
    first = show(CASES[name](seed=0), ALL, 0)
    for other in (show(CASES[name](seed=1), ALL, 0), show(CASES[name](seed=0), ALL, 1)):
        assert (first != other).any(axis=1).mean() > 0.8
    if name == "NoiseRows":
        alike = show(NoiseRows(), ALL, 0, np.repeat(ROWS[:1], 400, axis=0))
        assert len(np.unique(alike, axis=0)) == 400


# sha256 of ROWS as each class shows them, in steps of 1/1000, by `views.VERSION`. Entries are
# added, never edited.
GOLDEN = {
    1: {
        "NoiseRows": "820e0fb472cf05fe2bc3c4a9845d965dba7ce76c9f7bf447a2f5d63f6d622a77",
        "MixUpRows": "37f8b1c659a415ebfcac85343aab070e15a5eff1efa0ef737fc39132b61d4cb8",
        "SwapColumns": "e7fd960f6f603094039f34370d7a0ff9446e59d6f07e7d61d5fba9b3ca24e8b0",
    }
}


@pytest.mark.parametrize("name", CASES)
def test_rows_of_this_version_are_those_another_process_recorded(name):
    fixed = np.resize(np.arange(0, 3, 0.25, np.float32), ROWS[:24].shape)
    shown = [show(CASES[name](seed=seed), slice(24), 2, fixed) for seed in (0, 11)]
    steps = np.rint(1000 * np.vstack(shown).astype(float)).astype("<i4")
    found = hashlib.sha256(steps.tobytes()).hexdigest()
    assert found == GOLDEN.get(views.VERSION, {}).get(name), (
        f"{name} shows other rows than version {views.VERSION} of the views did: see "
        "`test_views.py` for what to do."
    )


@pytest.mark.parametrize("name", CASES)
def test_what_is_shown_is_a_row_that_could_be(name):
    shown = show(CASES[name](seed=3), ALL, 1)[:, : LAYOUT.num_features]
    assert np.abs(shown[:, : len(LAYOUT.names)]).max() <= LARGEST
    for column, part in (("town", "="), ("since", ".weekday_"), ("seen", ".weekday_")):
        own = [i for i, n in enumerate(LAYOUT.names) if n.startswith(column + part)]
        assert len(own) > 3
        assert set(np.unique(shown[:, own])) == {0, 1}
        is_gap = shown[:, at("since.gap")[0]] if column == "since" else 0
        np.testing.assert_array_equal(shown[:, own].sum(axis=1), 1 - is_gap)
    assert set(shown[:, -1]) <= set(ROWS[:, -1])  # codes that were seen
    assert set(np.unique(shown[:, at("member", "member.gap")])) == {0, 1}
    for figure in MEASURED:
        if f"{figure}.gap" in LAYOUT.names:
            measure, gap = shown[:, at(figure, f"{figure}.gap")].T
            assert 0 < gap.mean() < 1
            assert (measure[gap == 1] == 0).all()
    sine, cosine = shown[:, at("seen.year_sin", "seen.year_cos")].T
    np.testing.assert_allclose(sine**2 + cosine**2, 1, atol=1e-5)


@pytest.mark.parametrize("std", [0.05, 0.3])
def test_noise_is_gaussian_and_on_measures_alone(std):
    shown = np.concatenate([show(NoiseRows(std=std), ALL, view) for view in range(10)])
    noise = shown - np.tile(ROWS, (10, 1))
    others = np.setdiff1d(np.arange(LAYOUT.num_features), at(*MEASURED))
    assert not noise[:, others].any()
    for figure in MEASURED:
        before = np.tile(ROWS[:, at(figure)[0]], 10)
        own = noise[np.abs(before) < LARGEST - 6 * std, at(figure)[0]]  # not cut
        if f"{figure}.gap" in LAYOUT.names:
            own = own[own != 0]
            assert len(own) == round(10 * (1 - ROWS[:, at(f"{figure}.gap")[0]]).sum())
        assert stats.kstest(own, stats.norm(0, std).cdf).pvalue > 1e-3
    free = (np.tile(ROWS[:, at("age.gap", "since.gap")], (10, 1)) == 0).all(axis=1)
    correlations = np.corrcoef(noise[free][:, at(*MEASURED)].T) - np.eye(4)
    assert np.abs(correlations).max() < 4 / math.sqrt(free.sum())


def test_noise_stops_where_the_encoder_cuts():
    rows = ROWS.copy()
    rows[:, at("income")] = LARGEST
    shown = show(NoiseRows(std=1), ALL, 0, rows)[:, at("income")[0]]
    assert 0.4 < (shown == LARGEST).mean() < 0.6
    assert shown.max() == LARGEST


@settings(max_examples=30, deadline=None)
@given(alpha=st.floats(0.05, 20), probability=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_mixed_up_rows_are_what_a_loop_over_names_makes_of_them(alpha, probability, seed):
    mixing = bound(MixUpRows(alpha=alpha, probability=probability, seed=seed), LAYOUT)
    rows, partners, n = ROWS[:40], ROWS[360:], 40
    mixed, shares = mixing.mix(rows, partners, INDICES[:n], 3)
    for i in range(n):
        share = float(shares[i])
        expected = (rows if share >= 0.5 else partners)[i].astype(float)
        for figure in MEASURED:
            gap = f"{figure}.gap"
            if gap in LAYOUT.names and (rows[i, at(gap)] + partners[i, at(gap)])[0]:
                continue
            own, other = float(rows[i, at(figure)[0]]), float(partners[i, at(figure)[0]])
            expected[at(figure)] = share * own + (1 - share) * other
        np.testing.assert_allclose(mixed[i], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("alpha", [0.2, 1, 5])
def test_shares_of_mixed_up_rows_are_of_a_beta_distribution(alpha):
    rows = np.repeat(ROWS[:1], 20_000, axis=0)
    for probability in (1, 0.5):
        mixing = bound(MixUpRows(alpha=alpha, probability=probability), LAYOUT)
        _, shares = mixing.mix(rows, rows, np.arange(20_000), 0)
        if probability == 1:
            assert beta_pvalue(shares * 256, alpha, 256) > 1e-3
        else:
            mixed = (shares < 1).mean() / (1 - stats.beta.cdf(1 / 512, alpha, alpha))
            assert abs(mixed - 0.5) < 0.02


@pytest.mark.parametrize("probability", [0, 0.15, 0.6, 1])
def test_columns_are_swapped_whole_and_as_often_as_asked(probability):
    n = 5000
    own, other = np.full((2, n, LAYOUT.num_features), [[[1]], [[2]]], np.float32)
    mixing = bound(SwapColumns(probability=probability, seed=4), LAYOUT)
    mixed, shares = mixing.mix(own, other, np.arange(n), 0)
    swapped = []
    for positions in columns_by_name().values():
        assert (np.ptp(mixed[:, positions], axis=1) == 0).all()  # all of it from one of the two
        swapped.append(mixed[:, positions[0]] == 2)
        assert stats.binomtest(int(swapped[-1].sum()), n, probability).pvalue > 1e-3
    np.testing.assert_allclose(shares, 1 - np.mean(swapped, axis=0), atol=1e-6)
    if 0 < probability < 1:
        assert np.abs(np.corrcoef(swapped) - np.eye(len(COLUMNS))).max() < 4 / math.sqrt(n)


@pytest.mark.parametrize("name", ["MixUpRows", "SwapColumns"])
def test_partners_are_uniform_over_the_table_whatever_the_batch(name):
    drawn = CASES[name]().partners(np.arange(20_000), 0, 40)
    assert stats.chisquare(np.bincount(drawn, minlength=40)).pvalue > 1e-3
    with pytest.raises(ValueError, match="Expected equal shapes"):
        bound(CASES[name](), LAYOUT).mix(ROWS[:3], ROWS[:2], INDICES[:3], 0)


def test_classes_with_the_same_seed_decide_independently():
    n = 3000
    rows = np.zeros((n, LAYOUT.num_features), np.float32)
    age, made_of = at("age")[0], {}
    made_of["noise"] = bound(NoiseRows(), LAYOUT)(rows, np.arange(n), 0)[:, age]
    for name in ("MixUpRows", "SwapColumns"):
        mixing = bound(CASES[name](), LAYOUT)
        made_of[name] = mixing.mix(rows, rows + 1, np.arange(n), 0)[0][:, age]
        made_of[f"{name}'s partner"] = mixing.partners(np.arange(n), 0, 1000)
    correlations = np.corrcoef(list(made_of.values())) - np.eye(len(made_of))
    assert np.abs(correlations).max() < 4 / math.sqrt(n)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(NoiseRows, std=0), "`std` above 0 but got 0.*`views=none`"),
        (partial(NoiseRows, std=math.inf), "`std`"),
        (partial(MixUpRows, alpha=0), "`alpha` above 0 but got 0.*`mixing=none`"),
        (partial(MixUpRows, probability=1.5), "`probability` from 0 to 1 but got 1.5"),
        (partial(SwapColumns, probability=-0.1), "`probability`"),
    ],
)
def test_impossible_settings_are_refused(make, words):
    with pytest.raises(UserError, match=f"Expected {words}"):
        make()


@pytest.mark.parametrize(
    "subject",
    [
        NoiseRows(),
        MixUpRows(),
        SwapColumns(),
        Compose(steps=[ShiftFlip(padding=1, flip=True), NoiseRows()]),
    ],
)
def test_what_is_of_rows_is_refused_for_images_and_windows(subject, data):
    with pytest.raises(UsageError, match="Expected views and mixing of images but"):
        bound(subject, None)
    windows = made(frame(200), known=["price"]).train
    with pytest.raises(UsageError, match="windows of a series but got"):
        BatchDataset(windows, subject)
    if hasattr(subject, "mix"):
        with pytest.raises(UsageError, match="is of rows of a table"):
            BatchDataset(data.train, None, subject, num_classes=10)


@pytest.mark.parametrize(
    "subject", [ShiftFlip(padding=1, flip=True), MixUp(), Compose(steps=[NoiseRows(), MixUp()])]
)
def test_what_is_of_images_is_refused_for_rows(subject):
    with pytest.raises(UsageError, match=r"of rows for a table but (ShiftFlip|MixUp) is of images"):
        bound(subject, LAYOUT)
    assert bound(Unchanged(), LAYOUT) == Unchanged()


def test_a_table_without_measures_has_nothing_to_blend():
    towns = fit_encoder([COLUMNS[1], COLUMNS[2]], RAW).layout
    for subject in (NoiseRows(), MixUpRows()):
        with pytest.raises(UsageError, match="Expected a column of numbers or dates"):
            bound(subject, towns)
    assert bound(SwapColumns(), towns).layout is towns
