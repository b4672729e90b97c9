"""Claims about rows of series: how they are read and put on even steps, and what is refused."""

import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from series_rows import SMALL, frame, made, refused

from distill.errors import UsageError
from distill.training.data.series import series


def test_csv_and_parquet_in_any_order_make_the_same_data_and_it_is_said(tmp_path, caplog):
    rows = frame()
    rows.to_csv(tmp_path / "sales.csv", index=False)
    shuffled = rows.sample(frac=1, random_state=0)
    pq.write_table(pa.Table.from_pandas(shuffled, preserve_index=False), tmp_path / "sales.parquet")
    given = {"time": "when", "value": "sold", "series": "shop"} | SMALL
    first = series(path=str(tmp_path / "sales.csv"), **given)
    assert not caplog.records
    second = series(path=str(tmp_path / "sales.parquet"), **given)
    assert "rows are sorted by `when`" in caplog.text
    assert first.name == second.name == "sales"
    np.testing.assert_allclose(first.train.inputs, second.train.inputs, atol=1e-6)
    assert first.fingerprint == series(path=str(tmp_path / "sales.csv"), **given).fingerprint


def test_a_moment_that_is_there_twice_is_refused_with_its_name():
    rows = frame()
    rows.loc[65, "when"] = rows.loc[64, "when"]
    text = refused(rows)
    assert "repeated, the first 2024-01-01T04:00:00 of `b`" in text
    assert "data.resample=mean" in text
    assert "data.series" in refused(frame(), series=None)


def test_uneven_moments_are_refused_with_the_commonest_step_and_where():
    rows = frame().drop(index=[10, 30, 31, 50, 70, 90]).reset_index(drop=True)
    text = refused(rows)
    assert "112 steps 5 are not 1 hour, the commonest" in text
    assert "2024-01-01T09:00:00 of `a` to 2024-01-01T11:00:00; " in text
    assert "; ..." in text
    assert "data.resample=mean" in text


@pytest.mark.parametrize("freq", ["MS", "ME", "QS", "D", "W", "15min", "7h", "YS"])
def test_months_and_other_steps_are_even(freq):
    data = made(frame(60, freq=freq))
    steps = data.pool.panel.steps
    assert (np.diff(steps)[data.pool.panel.follows] == 1).all()
    without_one = frame(60, freq=freq).drop(index=20)
    assert "1 are not" in refused(without_one)


def test_business_days_are_steps_where_each_moment_is_one():
    rows = frame(60, freq="B")
    assert "data.spacing=moments" in refused(rows)
    data = made(rows, spacing="moments")
    assert (np.diff(data.pool.panel.steps)[data.pool.panel.follows] == 1).all()
    fridays = pd.to_datetime(data.pool.origin_times, unit="ms").day_of_week == 4
    after = pd.to_datetime(data.pool.label_times(np.flatnonzero(fridays))[:, 0], unit="ms")
    assert (after.day_of_week == 0).all()
    text = refused(rows.drop(index=20), spacing="moments")  # a day that the other series has
    assert "1 are not one moment of those in the table" in text
    assert "no grid" in refused(rows, spacing="moments", resample="mean")


def test_moments_with_a_zone_are_taken_in_utc(tmp_path):
    rows = frame(60, freq="h")
    zoned = rows.assign(when=rows.when.dt.strftime("%Y-%m-%dT%H:%M:%S+01:00"))
    zoned.to_csv(tmp_path / "zoned.csv", index=False)
    given = {"time": "when", "value": "sold", "series": "shop"} | SMALL
    found = series(path=str(tmp_path / "zoned.csv"), **given).pool.panel.times
    assert set(found - made(rows).pool.panel.times) == {-3_600_000}


@pytest.mark.parametrize("fill", ["last", "linear"])
def test_resampling_is_that_of_pandas(fill, caplog):
    rng = np.random.default_rng(0)
    rows = frame(300, freq="20min")
    rows["when"] += pd.to_timedelta(rng.integers(0, 900, 600), "s")
    rows = rows[rng.uniform(size=600) < 0.35].reset_index(drop=True)
    rows.loc[5:30:7, "sold"] = np.nan
    with caplog.at_level(logging.INFO):
        data = made(rows, resample="mean", spacing="1h", fill=fill, observed=["rain"])
    panel = data.pool.panel
    num_empty = 0
    for number, name in enumerate(("a", "b")):
        own = rows[rows.shop == name].set_index("when")
        expected = own[["sold", "rain"]].resample("1h").mean()
        span = expected.sold.dropna().index
        expected = expected.loc[span[0] : span[-1]]
        num_empty += int(expected.sold.isna().sum())
        for column in ("sold", "rain"):
            one = expected[column]
            one = one.ffill() if fill == "last" else one.interpolate(limit_area="inside").ffill()
            found = panel.columns[column][panel.series == number]
            np.testing.assert_allclose(found, one, rtol=1e-9)
        times = pd.to_datetime(panel.times[panel.series == number], unit="ms")
        assert (times == expected.index).all()
    assert num_empty > 10
    assert f"of which {num_empty} had no `sold` and were filled ({fill})" in caplog.text


def test_months_are_resampled_to_months():
    rows = frame(400, freq="D", names=("a",))
    data = made(rows, resample="mean", spacing="1M", window=3, horizon=1)
    expected = rows.set_index("when").sold.resample("MS").mean()
    np.testing.assert_allclose(data.pool.panel.columns["sold"], expected)
    assert (pd.to_datetime(data.pool.panel.times, unit="ms") == expected.index).all()


def test_duplicates_are_averaged_where_that_is_asked_for():
    rows = frame(60, names=("a",))
    twice = pd.concat([rows, rows.assign(sold=rows.sold + 2)], ignore_index=True)
    data = made(twice, resample="mean")
    np.testing.assert_allclose(data.pool.panel.columns["sold"], rows.sold + 1)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"window": 0}, "`data.window` to be a whole number of steps, 1 or more, but got 0"),
        ({"horizon": 0}, "`data.horizon`"),
        ({"horizon": 1.5}, "`data.horizon`"),
        ({"stride": 0}, "`data.stride`"),
        ({"gap": -1}, "`data.gap`"),
        ({"known": ["rain"], "observed": ["rain"]}, "`rain` is there twice"),
        ({"observed": ["sold"]}, "`sold` is there twice"),
    ],
)
def test_wrong_choices_are_wrong_usage(choice, words):
    assert words in refused(frame(), UsageError, **choice)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"time": "wen"}, "Did you mean `when`"),
        ({"value": "sald"}, "Did you mean `sold`"),
        ({"time": "shop", "series": None}, "Expected dates in `shop` but row 0 has 'a'"),
        ({"time": "price", "series": None}, "Expected dates in `price`"),
        ({"value": "shop", "series": None}, "Expected `shop` to hold numbers but row 0 has 'a'"),
        ({"known": ["prize"]}, "Did you mean `price`"),
        ({"series": "shap"}, "Did you mean `shop`"),
        ({"observed": ["when"], "time": "other"}, "`other`"),
        ({"resample": "median"}, "Expected `data.resample` to be null or mean but got median"),
        ({"resample": "mean", "fill": "spline"}, "Expected `data.fill` to be last or linear"),
        ({"resample": "mean", "spacing": "often"}, "Expected `data.spacing` such as 15min"),
        ({"window": 58}, "Expected series of at least 61 steps"),
        ({"window": 57}, "Expected windows on both sides of a border"),
        ({"test_fraction": 1.2}, "Expected a fraction between 0 and 1"),
    ],
)
def test_what_does_not_fit_the_file_is_said(choice, words):
    assert words in refused(frame(), **choice)


def test_missing_and_infinite_values_are_refused_and_a_missing_end_is_the_future(caplog):
    rows = frame()
    rows.loc[70, "sold"] = np.nan
    text = refused(rows)
    assert "`sold` has 1 gaps, the first at 2024-01-01T10:00:00 of `b`" in text
    assert "data.fill" in text
    rows.loc[70, "sold"] = np.inf
    assert "infinite" in refused(rows)
    rows = frame()
    rows.loc[[0, 1, 58, 59], "sold"] = np.nan
    with caplog.at_level(logging.INFO):
        data = made(rows)
    assert "2 rows before the first `sold` and 2 after the last have none" in caplog.text
    assert np.bincount(data.pool.panel.series).tolist() == [56, 60]
    assert "it has none" in refused(rows.assign(sold=np.nan))


def test_dates_and_names_that_are_missing_are_refused():
    rows = frame()
    rows.loc[3, "when"] = pd.NaT
    assert "the first in row 3" in refused(rows)
    rows = frame()
    rows.loc[3, "shop"] = None
    assert "name of a series in every row" in refused(rows)


def test_one_word_among_numbers_is_named_and_numbers_as_text_are_taken(tmp_path):
    rows = frame().astype({"sold": str})
    assert made(rows).fingerprint == made(frame()).fingerprint
    rows.loc[7, "sold"] = "closed"
    assert "`sold` to hold numbers but row 7 has 'closed'. Mend it; write" in refused(rows)


def test_series_too_short_are_left_out_and_counted(caplog):
    rows = pd.concat([frame(), frame(8, names=("c",))], ignore_index=True)
    data = made(rows)
    assert data.num_skipped == 1
    assert "1 of 3 series are shorter than window + horizon (9 steps)" in caplog.text
    assert set(data.pool.series) == {0, 1}
