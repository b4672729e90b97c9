"""Claims about series: windows against pandas, splits by time alone, and what is refused."""

import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import UsageError, UserError
from distill.training.data.generated_series import generated_series
from distill.training.data.pools import SeriesChoice
from distill.training.data.series import backtests, origins, series, series_of

SMALL = {"window": 6, "horizon": 3}


def frame(length=60, *, names=("a", "b"), freq="h", start="2024-01-01", seed=0):
    rng = np.random.default_rng(seed)
    parts = [
        pd.DataFrame(
            {
                "when": pd.date_range(start, periods=length, freq=freq),
                "shop": name,
                "sold": rng.normal(size=length).cumsum() * 10**number + 50,
                "price": rng.uniform(1, 2, length),
                "rain": rng.normal(size=length),
            }
        )
        for number, name in enumerate(names)
    ]
    return pd.concat(parts, ignore_index=True)


def made(rows, **choice):
    given = {"time": "when", "value": "sold", "series": "shop"} | SMALL | choice
    return series_of(pa.Table.from_pandas(rows, preserve_index=False), "x", SeriesChoice(**given))


def refused(rows, error=UserError, **choice):
    with pytest.raises(error) as raised:
        made(rows, **choice)
    return str(raised.value)


def splits(data):
    return data.train, data.validation, data.test


def test_windows_and_labels_are_what_pandas_shifts():
    rows = frame()
    data = made(rows, known=["price"], observed=["rain"])
    assert data.train.records.dtype.names == ("sold", "rain", "price")
    assert [data.train.records.dtype[n].shape for n in range(3)] == [(6,), (6,), (9,)]
    assert data.task.outputs == ("sold[+1]", "sold[+2]", "sold[+3]")
    by_moment = {
        (name, column): own.set_index("when")[column]
        for name, own in rows.groupby("shop")
        for column in ("sold", "price", "rain")
    }
    num_checked = 0
    for split in splits(data):
        origin_times = pd.to_datetime(data.pool.origin_times[split.indices], unit="ms")
        for at in range(len(split)):
            name = data.pool.panel.names[data.pool.series[split.indices[at]]]
            sold, price, rain = (by_moment[name, c] for c in ("sold", "price", "rain"))
            now, own = origin_times[at], split.records[at]
            np.testing.assert_array_equal(own["sold"], sold.loc[:now].tail(6))
            np.testing.assert_array_equal(own["rain"], rain.loc[:now].tail(6))
            ahead = now + pd.Timedelta(3, "h")
            np.testing.assert_array_equal(own["price"], price.loc[:ahead].tail(9))
            np.testing.assert_allclose(split.labels[at], sold.loc[:ahead].tail(3), rtol=1e-6)
            num_checked += 1
    assert num_checked > 60
    assert split.labels.dtype == split.inputs.dtype == np.float32
    assert split.served is split.records


def test_encoding_is_its_formula_and_comes_back_to_units():
    data = made(frame(200), known=["price"], observed=["rain"])
    rows = data.test.records
    spread = np.maximum(pd.DataFrame(rows["sold"]).std(axis=1, ddof=0), data.windows.floor)
    expected = (rows["sold"] - rows["sold"][:, -1:]) / spread.to_numpy()[:, None]
    parts = data.windows.parts
    np.testing.assert_allclose(data.test.inputs[:, parts["sold"]], expected, atol=1e-5)
    price = data.train.records["price"]
    standard = (rows["price"] - price.mean()) / price.std()
    np.testing.assert_allclose(data.test.inputs[:, parts["price"]], standard, atol=1e-5)
    back = data.windows.in_units(rows, data.scaled(data.test))
    np.testing.assert_allclose(back, data.test.labels, rtol=1e-4, atol=1e-4)
    names = data.windows.layout.names
    assert len(names) == data.input_shape[0] == 6 + 6 + 9
    assert (names[0], names[5], names[-1]) == ("sold[-5]", "sold[0]", "price[+3]")


def test_a_window_elsewhere_and_larger_is_encoded_alike():
    rows = frame(200, names=("a",))
    other = rows.assign(sold=rows.sold * 40 - 1000)
    first, second = made(rows), made(other)
    np.testing.assert_allclose(first.train.inputs, second.train.inputs, atol=1e-4)
    np.testing.assert_allclose(first.scaled(first.test), second.scaled(second.test), atol=1e-3)


def test_constant_windows_and_gaps_in_covariates_stay_finite():
    rows = frame(100, names=("a",))
    rows.loc[:40, "sold"] = 7.0
    rows.loc[::5, "price"] = np.nan
    data = made(rows, known=["price"])
    assert all(np.isfinite(split.inputs).all() for split in splits(data))
    assert np.isfinite(data.scaled(data.train)).all()
    flat = made(rows.assign(sold=3.0))
    assert flat.windows.floor == 1.0
    assert np.isfinite(flat.scaled(flat.train)).all()
    gaps = np.isnan(data.test.records["price"])
    assert gaps.any()
    assert (data.test.inputs[:, data.windows.parts["price"]][gaps] == 0).all()


@pytest.mark.parametrize("gap", [0, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("late", [0, 17])
def test_no_label_of_one_split_is_another_s_nor_comes_before_it(gap, stride, late):
    rows = frame(160)
    rows.loc[rows.shop == "b", "when"] += pd.Timedelta(late, "h")  # moments common to all series
    data = made(rows, gap=gap, stride=stride)
    times = [data.pool.label_times(split.indices) for split in splits(data)]
    for earlier, later in ((0, 1), (1, 2)):
        assert set(times[earlier].ravel()).isdisjoint(times[later].ravel())
        between = times[later].min() - times[earlier].max()
        assert between >= (1 + gap) * 3_600_000
        # No label learnt from was still open when the first window of the later part ended.
        first_origin = data.pool.origin_times[splits(data)[later].indices].min()
        assert times[earlier].max() <= first_origin
    shares = np.array([len(split) for split in splits(data)]) / len(data.pool)
    np.testing.assert_allclose(shares[1:], [0.12, 0.2], atol=0.05)


def test_the_latest_window_is_there_whatever_the_stride():
    rows = frame(100)
    for stride in (1, 4, 7):
        data = made(rows, stride=stride)
        last = data.pool.label_times(data.test.indices).max()
        assert pd.Timestamp(last, unit="ms") == rows.when.max()
        origins_of_a = data.pool.origin_times[data.pool.series == 0]
        assert (np.diff(origins_of_a) == stride * 3_600_000).all()


@pytest.mark.parametrize("num_origins", [1, 3, 8])
def test_every_origin_learns_from_what_was_known_and_all_are_asked_once(num_origins):
    data = made(frame(160), gap=2)
    asked = []
    for train, test in origins(data, num_origins=num_origins):
        latest = data.pool.label_times(train).max()
        assert data.pool.label_times(test).min() - latest >= 3 * 3_600_000
        asked.append(test)
    assert len(asked) == num_origins
    np.testing.assert_array_equal(np.sort(np.concatenate(asked)), data.test.indices)
    ends = [one.train.indices.max() for one in backtests(data, num_origins=num_origins)]
    assert ends == sorted(ends)


def test_each_origin_is_fitted_on_its_own_past():
    rows = frame(200, names=("a",))
    rows.loc[130:, "price"] += 100
    data = made(rows, known=["price"], test_fraction=0.5)
    means = [one.windows.covariates[0].mean for one in backtests(data, num_origins=4)]
    assert means[0] < 2  # nothing of the later level
    assert means[-1] > 2


def test_too_many_origins_are_refused():
    data = made(frame(60))
    with pytest.raises(UserError, match="Expected from 1 to"):
        list(origins(data, num_origins=500))


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
    assert panel.num_filled == num_empty
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
        ({"value": "shop", "series": None}, "Expected numbers in `shop` but row 0 has 'a'"),
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
    assert "2 rows before the first `sold` and 2 after the last are left out" in caplog.text
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
    assert "Expected numbers in `sold` but row 7 has 'closed'" in refused(rows)


def test_series_too_short_are_left_out_and_counted(caplog):
    rows = pd.concat([frame(), frame(8, names=("c",))], ignore_index=True)
    data = made(rows)
    assert data.num_skipped == 1
    assert "1 of 3 series are shorter than window + horizon (9 steps)" in caplog.text
    assert set(data.pool.series) == {0, 1}


def leaks(rows, **choice):
    return {(leak.name, leak.column) for leak in made(rows, **choice).leaks}


@pytest.mark.parametrize("kind", ["seasonal", "random_walk"])
def test_an_observed_copy_of_the_future_is_named_and_copies_of_the_past_are_not(kind):
    panel = generated_series(kind=kind, length=600, num_series=2, noise=0.05, **SMALL).pool.panel
    rows = pd.DataFrame(
        {
            "when": pd.to_datetime(panel.times, unit="ms"),
            "shop": panel.series,
            "sold": panel.columns["value"],
        }
    )
    by_shop = rows.groupby("shop").sold
    rng = np.random.default_rng(0)
    rows["tomorrow"] = by_shop.shift(-2)
    rows["now"] = rows.sold
    rows["yesterday"] = by_shop.shift(1)
    rows["last_day"] = by_shop.shift(24)
    rows["noise"] = rng.normal(size=len(rows))
    observed = ["tomorrow", "now", "yesterday", "last_day", "noise"]
    data = made(rows, observed=observed, window=30, horizon=4)
    assert {(leak.name, leak.column) for leak in data.leaks} == {("future_value", "tomorrow")}
    assert "follows `sold` 2 steps later" in data.leaks[0].text


def test_copies_are_looked_for_within_a_series_not_across_its_end():
    rng = np.random.default_rng(0)
    sold = rng.normal(size=(40, 12))
    rows = pd.DataFrame(
        {
            "when": np.tile(pd.date_range("2024-01-01", periods=12), 40),
            "shop": np.repeat(np.arange(40), 12),
            "sold": sold.ravel(),
            "tomorrow": np.roll(sold, -1, axis=1).ravel(),
        }
    )
    assert leaks(rows, observed=["tomorrow"], window=3, horizon=2, test_fraction=0.4) == {
        ("future_value", "tomorrow")
    }


def test_a_covariate_said_to_be_known_ahead_that_ends_is_named():
    rows = frame(100)
    ahead = rows.groupby("shop").cumcount() >= 95
    rows.loc[ahead, "sold"] = np.nan
    good = rows.assign(day=rows.when.dt.hour)
    assert leaks(good, known=["price", "day"]) == set()
    missing = rows.assign(price=rows.price.where(~ahead))
    assert leaks(missing, known=["price"]) == {("not_known_ahead", "price")}
    constant = rows.assign(price=rows.price.where(~ahead, 1.5))
    assert leaks(constant, known=["price"]) == {("not_known_ahead", "price")}
    stops = rows.assign(price=rows.price.where(rows.groupby("shop").cumcount() < 70))
    assert ("constant_after_a_date", "price") in leaks(stops, known=["price"])


def test_generated_series_say_so_and_are_the_same_for_a_seed():
    one = generated_series(length=200, **SMALL)
    assert one.name == "generated seasonal"
    assert one.fingerprint == generated_series(length=200, **SMALL).fingerprint
    assert one.fingerprint != generated_series(length=200, seed=1, **SMALL).fingerprint
    with pytest.raises(UsageError, match="Did you mean `random_walk`"):
        generated_series(kind="random_walks", **SMALL)
    with pytest.raises(UsageError, match=r"data\.frequency"):
        generated_series(frequency="yearly", **SMALL)


def test_a_generated_random_walk_steps_independently_and_the_seasonal_repeats_its_day():
    walk = generated_series(kind="random_walk", length=3000, num_series=1, **SMALL)
    steps = pd.Series(walk.pool.panel.columns["value"]).diff().dropna()
    assert all(abs(steps.autocorr(lag)) < 0.06 for lag in (1, 2, 24))
    assert steps.std() == pytest.approx(0.3, rel=0.05)
    day = generated_series(length=3000, num_series=1, **SMALL).pool.panel.columns["value"]
    assert pd.Series(day).diff(12).std() > 2 * pd.Series(day).diff(24).std()
