"""Claims about series: windows against pandas, splits by time alone, origins, generated ones."""

import numpy as np
import pandas as pd
import pytest
from series_rows import SMALL, frame, made, splits

from distill.errors import UsageError, UserError
from distill.training.data.generated_series import generated_series
from distill.training.data.series import backtests, origins


def test_the_scale_of_each_series_is_how_far_it_moves_until_the_last_label_that_is_learnt():
    rows = frame(names="abcdef")
    starts = dict(zip("abcdef", (0, 0, 20, 35, 50, 58), strict=True))  # f begins too late
    hours = (rows["when"] - rows["when"].min()) / pd.Timedelta(1, "h")
    rows = rows[hours >= rows["shop"].map(starts)]
    pool = (data := made(rows)).pool
    last = pd.to_datetime(pool.label_times(data.train.indices).max(), unit="ms")
    known = rows[rows["when"] <= last].groupby("shop")["sold"]
    expected = known.agg(lambda own: own.diff().abs().mean()).reindex(pool.panel.names)
    assert expected.isna().any()
    found = pool.naive_errors(data.train.indices)
    np.testing.assert_allclose(found, expected.fillna(0), rtol=1e-12)


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
    back = data.windows.in_units(rows, data.test.targets)
    np.testing.assert_allclose(back, data.test.labels, rtol=1e-4, atol=1e-4)
    names = data.windows.layout.names
    assert len(names) == data.input_shape[0] == 6 + 6 + 9
    assert (names[0], names[5], names[-1]) == ("sold[-5]", "sold[0]", "price[+3]")


def test_a_window_elsewhere_and_larger_is_encoded_alike():
    rows = frame(200, names=("a",))
    other = rows.assign(sold=rows.sold * 40 - 1000)
    first, second = made(rows), made(other)
    np.testing.assert_allclose(first.train.inputs, second.train.inputs, atol=1e-4)
    np.testing.assert_allclose(first.test.targets, second.test.targets, atol=1e-3)


def test_constant_windows_and_gaps_in_covariates_stay_finite():
    rows = frame(100, names=("a",))
    rows.loc[:40, "sold"] = 7.0
    rows.loc[::5, "price"] = np.nan
    data = made(rows, known=["price"])
    assert all(np.isfinite(split.inputs).all() for split in splits(data))
    assert np.isfinite(data.train.targets).all()
    flat = made(rows.assign(sold=3.0))
    assert flat.windows.floor == 1.0
    assert np.isfinite(flat.train.targets).all()
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


def test_what_happens_to_all_series_at_once_is_one_stretch_of_time():
    data = made(frame(160), gap=0)
    moments = data.pool.origin_times[data.test.indices]
    assert len(set(data.pool.series[data.test.indices])) > 1
    assert len(set(data.test.blocks)) == len({m // (6 * 3_600_000) for m in moments})
    by_moment = {}
    for moment, block in zip(moments.tolist(), data.test.blocks.tolist(), strict=True):
        by_moment.setdefault(moment, set()).add(block)
    assert max(map(len, by_moment.values())) == 1


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
