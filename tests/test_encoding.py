"""Claims about encoded tables: what each kind becomes, and that the graph says the same."""

import datetime
import tracemalloc

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.deployment.table_graph import encoder_graph
from distill.tables import encoding
from distill.tables.columns import NO_DATE, Column, Kind, make_records
from distill.tables.encoding import LARGEST, fit_encoder

COLUMNS = [
    Column(name="age", kind=Kind.NUMBER),
    Column(name="member", kind=Kind.BOOLEAN),
    Column(name="town", kind=Kind.CATEGORY),
    Column(name="income", kind=Kind.NUMBER),
    Column(name="since", kind=Kind.DATE),
    Column(name="seen", kind=Kind.DATE),
    Column(name="job", kind=Kind.CATEGORY),
]


def rows_of(**values):
    dtypes = {"town": str, "since": np.int64}
    return make_records({n: np.asarray(v, dtypes.get(n, float)) for n, v in values.items()})


def milliseconds(*when):
    moment = datetime.datetime(*when, tzinfo=datetime.UTC)
    return int(moment.timestamp()) * 1000


def draw(rng, n, *, gaps=0.2):
    def holes(values, gap):
        return np.where(rng.random(n) < gaps, gap, values)

    day = milliseconds(2024, 1, 1)
    return make_records(
        {
            "age": holes(rng.normal(40, 12, n), np.nan),
            "member": holes(rng.integers(0, 2, n).astype(float), np.nan),
            "town": rng.choice(["Ulm", "Köln", "", "Bonn"], n),
            "income": rng.lognormal(10, 2, n),
            "since": holes(day + 86_400_000 * rng.integers(-20_000, 4_000, n), NO_DATE),
            "seen": (day + rng.integers(0, 10**10, n)),
            "job": rng.choice([f"job {i}" for i in range(40)], n),
        }
    )


def run_graph(encoder, raw):
    model = encoder_graph(encoder, 20, 10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {name: raw[name][:, None] for name in raw.dtype.names})[0]


@pytest.mark.parametrize("seed", range(5))
def test_the_graph_encodes_as_python_does_with_gaps_and_unseen_values(seed):
    rng = np.random.default_rng(seed)
    encoder = fit_encoder(COLUMNS, draw(rng, 200, gaps=0.1 * (seed > 0)))
    raw = draw(rng, 500)
    raw["town"][:50] = "Rom"
    raw["income"][:5] = 1e30
    expected, found = encoder(raw), run_graph(encoder, raw)
    assert expected.shape == (500, encoder.layout.num_features)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(allow_infinity=False), min_size=1, max_size=20),
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        min_size=1,
        max_size=20,
    ),
    st.lists(st.integers(NO_DATE, 2**62), min_size=1, max_size=20),
)
def test_whatever_is_in_a_cell_both_say_the_same_and_it_is_finite(numbers, words, dates):
    n = min(map(len, (numbers, words, dates)))
    columns = [COLUMNS[0], COLUMNS[2], COLUMNS[4]]
    raw = rows_of(age=numbers[:n], town=words[:n], since=dates[:n])
    encoder = fit_encoder(columns, draw(np.random.default_rng(0), 100))
    expected, found = encoder(raw), run_graph(encoder, raw)
    assert np.isfinite(expected).all()
    assert (np.abs(expected[:, : len(encoder.layout.names)]) <= LARGEST).all()
    # angles of dates a million years off have no digits left
    near = np.abs(raw["since"].astype(float)) < 1e16
    np.testing.assert_allclose(found[near], expected[near], rtol=0, atol=1e-5)


def test_a_number_is_standardised_and_its_gap_is_the_mean_and_marked():
    raw = rows_of(age=[1, 2, 3, np.nan])
    encoder = fit_encoder(COLUMNS[:1], raw)
    spread = np.std([1, 2, 3])
    np.testing.assert_allclose(
        encoder(raw), [[-1 / spread, 0], [0, 0], [1 / spread, 0], [0, 1]], rtol=1e-6
    )
    assert encoder.layout.names == ("age", "age.gap")


def test_many_categories_are_numbered_from_the_commonest_and_rare_ones_count_as_unseen():
    words = [f"w{i:02d}" for i in range(30) for _ in range(30 - i)]
    encoder = fit_encoder(COLUMNS[2:3], rows_of(town=words), max_categories=20)
    assert encoder.layout.cardinalities == (21,)
    assert encoder.layout.names == ()
    asked = rows_of(town=["w00", "w01", "w19", "w20", "new", ""])
    assert encoder(asked)[:, 0].tolist() == [1, 2, 20, 0, 0, 0]


def test_few_categories_have_a_figure_each_and_the_unseen_none():
    encoder = fit_encoder(COLUMNS[2:3], rows_of(town=["b", "a", "", "b"]))
    assert encoder.layout.names == ("town=b", "town=", "town=a")
    asked = rows_of(town=["b", "", "new"])
    assert encoder(asked).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_dates_have_the_weekdays_of_the_calendar_and_the_times_of_the_clock():
    moments = [(2024, 2, 29, 6), (1969, 7, 20, 0), (2000, 1, 1, 18), (1900, 1, 1, 12)]
    raw = rows_of(since=[milliseconds(*when) for when in moments])
    encoder = fit_encoder(COLUMNS[4:5], raw)
    names = encoder.layout.names
    encoded = dict(zip(names, encoder(raw).T, strict=True))
    for row, when in enumerate(moments):
        days = [encoded[f"since.weekday_{day}"][row] for day in range(7)]
        assert days.index(1) == datetime.date(*when[:3]).weekday()
        assert sum(days) == 1
        angle = 2 * np.pi * when[3] / 24
        assert encoded["since.day_sin"][row] == pytest.approx(np.sin(angle), abs=1e-6)
        assert encoded["since.day_cos"][row] == pytest.approx(np.cos(angle), abs=1e-6)


def test_rows_encoded_in_chunks_are_bit_for_bit_those_encoded_at_once(monkeypatch):
    raw = draw(np.random.default_rng(3), 3_001)
    encoder = fit_encoder(COLUMNS, raw[:500])
    at_once = encoder(raw)
    for size in (1, 7, 1000, 3_000, 3_001):
        monkeypatch.setattr(encoding, "CHUNK", size)
        assert encoder(raw).tobytes() == at_once.tobytes()
    assert encoder(raw[:0]).shape == (0, encoder.layout.num_features)


def test_encoding_takes_little_memory_beside_its_result():
    columns = [Column(name=f"x{n}", kind=Kind.NUMBER) for n in range(20)]
    rng = np.random.default_rng(0)
    raw = make_records({own.name: rng.normal(size=300_000) for own in columns})
    encoder = fit_encoder(columns, raw)
    tracemalloc.start()
    encoded = encoder(raw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * encoded.nbytes  # float64 columns of all rows would be three times that
