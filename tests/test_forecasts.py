"""Claims about naive forecasts, against closed forms and pandas."""

import numpy as np
import pandas as pd
import pytest

from distill.errors import UserError
from distill.training.baselines.forecasts import (
    Drift,
    LastValue,
    LinearForecast,
    MovingAverage,
    SeasonalNaive,
    WindowMean,
    guess_season,
)
from distill.training.data.generated_series import generated_series
from distill.training.data.splits import Split


def windows(values, horizon=5, window=12):
    """Windows of one series, in order, as a split."""
    shown = np.lib.stride_tricks.sliding_window_view(np.asarray(values, float), window + horizon)
    records = np.empty(len(shown), [("sold", "f8", (window,)), ("price", "f8", (3,))])
    records["sold"], records["price"] = shown[:, :window], -1e9
    return Split(
        inputs=records["sold"].astype(np.float32),
        labels=shown[:, window:].astype(np.float32),
        indices=np.arange(len(shown)),
        records=records,
    )


def answers(forecast, split):
    return forecast.fit(split, split.labels.shape[1]).answer(split.records)


@pytest.fixture
def noisy(rng):
    return windows(rng.normal(size=60).cumsum())


def test_last_value_and_means_are_pandas_rolling(noisy):
    rows = pd.DataFrame(noisy.records["sold"]).T
    for forecast, expected in (
        (LastValue(), rows.iloc[-1]),
        (WindowMean(), rows.mean()),
        (MovingAverage(4), rows.rolling(4).mean().iloc[-1]),
        (MovingAverage(1), rows.iloc[-1]),
        (MovingAverage(12), rows.mean()),
    ):
        found = answers(forecast, noisy)
        assert found.shape == noisy.labels.shape
        np.testing.assert_allclose(found, np.tile(expected.to_numpy()[:, None], 5), atol=1e-9)


def test_drift_goes_on_along_a_line_and_is_the_mean_of_all_steps(noisy):
    line = windows(3 + 0.5 * np.arange(40))
    np.testing.assert_allclose(answers(Drift(), line), line.labels, rtol=1e-6)
    steps = pd.DataFrame(noisy.records["sold"]).diff(axis=1).mean(axis=1).to_numpy()
    last = noisy.records["sold"][:, -1]
    np.testing.assert_allclose(answers(Drift(), noisy)[:, 2], last + 3 * steps)


@pytest.mark.parametrize("season", [1, 3, 4, 7, 12])
@pytest.mark.parametrize("horizon", [1, 5, 30])
def test_the_seasonal_naive_is_exact_on_what_repeats_and_follows_its_formula(season, horizon, rng):
    pattern = rng.normal(size=season)
    split = windows(np.tile(pattern, 80)[:70], horizon=horizon)
    np.testing.assert_allclose(answers(SeasonalNaive(season), split), split.labels, rtol=1e-6)
    noisy = windows(rng.normal(size=60), horizon=horizon)
    found = answers(SeasonalNaive(season), noisy)
    for step in range(1, horizon + 1):  # y[T + h - m * ceil(h / m)], T the last of 12
        at = 12 + step - season * -(-step // season)
        np.testing.assert_array_equal(found[:, step - 1], noisy.records["sold"][:, at - 1])


@pytest.mark.parametrize("horizon", [1, 5])
def test_the_linear_forecast_is_exact_where_values_follow_from_the_last_ones(horizon):
    # 2 cos(w) y[t-1] - y[t-2] is a sine's next value; another height and size is forecast alike.
    values = np.sin(0.7 * np.arange(200))
    train = windows(values, horizon=horizon)
    other = windows(1e4 + 500 * np.sin(0.7 * np.arange(60) + 1), horizon=horizon)
    fitted = LinearForecast().fit(train, horizon)
    assert fitted.reads_records
    for split, size in ((train, 1), (other, 500)):
        error = np.abs(fitted.answer(split.records) - split.labels)
        assert error.shape == (len(split), horizon)
        assert error.max() < 5e-3 * size


def test_the_linear_forecast_beats_the_seasonal_naive_on_noise_and_no_forecast_on_a_walk():
    data = generated_series(length=900, window=48, horizon=6)

    def error(forecast, own):
        answer = forecast.fit(own.train, 6).answer(own.test.records)
        return np.abs(answer - own.test.labels).mean()

    assert error(LinearForecast(), data) < 0.85 * error(SeasonalNaive(), data)
    walk = generated_series(kind="random_walk", length=900, window=48, horizon=6)
    assert error(LinearForecast(), walk) > 0.99 * error(LastValue(), walk)


@pytest.mark.parametrize("season", [3, 4, 7, 11, 12])
def test_a_season_is_found_under_noise_and_trend(season, rng):
    time = np.arange(600)
    values = 3 * np.tile(rng.normal(size=season), 600)[:600] + 0.01 * time + rng.normal(size=600)
    split = windows(values, window=26)
    assert guess_season(split) == season
    fitted = SeasonalNaive().fit(split, 5)
    assert fitted.note == f"a season of {season} steps, guessed"
    given = SeasonalNaive(5).fit(split, 5)
    assert given.note == "a season of 5 steps, as given"


@pytest.mark.parametrize(("window", "season"), [(48, 24), (168, 24), (24, 24), (20, 1)])
def test_of_a_generated_day_the_season_is_24_where_a_window_holds_one(window, season):
    data = generated_series(window=window, horizon=12, length=900, num_series=2)
    assert guess_season(data.train) == season


@pytest.mark.parametrize("seed", range(4))
def test_a_random_walk_has_no_season_and_the_last_value_is_its_best_forecast(seed):
    data = generated_series(kind="random_walk", window=30, horizon=6, seed=seed)
    fitted = SeasonalNaive().fit(data.train, 6)
    assert fitted.note == "no season found: the last value"
    errors = {
        type(one).__name__: np.abs(
            one.fit(data.train, 6).answer(data.test.served) - data.test.labels
        ).mean()
        for one in (LastValue(), Drift(), WindowMean(), MovingAverage())
    }
    assert min(errors, key=errors.__getitem__) == "LastValue"


def test_windows_of_different_units_weigh_the_same(rng):
    weekly = np.tile(rng.normal(size=7), 60) + rng.normal(size=420) * 0.1
    walk = 1e6 * rng.normal(size=100).cumsum()
    parts = [windows(values, window=20) for values in (weekly, walk)]
    both = Split(
        inputs=np.concatenate([p.inputs for p in parts]),
        labels=np.concatenate([p.labels for p in parts]),
        indices=np.arange(sum(map(len, parts))),
        records=np.concatenate([p.records for p in parts]),
    )
    assert guess_season(both) == 7


def test_a_constant_series_is_forecast_exactly_and_has_no_season():
    split = windows(np.full(60, 4.0))
    assert guess_season(split) == 1
    for forecast in (LastValue(), Drift(), WindowMean(), MovingAverage(), SeasonalNaive()):
        np.testing.assert_allclose(answers(forecast, split), split.labels)


@pytest.mark.parametrize(
    ("forecast", "words"),
    [
        (MovingAverage(13), r"`moving_average` \(length of 13\) but `data.window` is 12"),
        (SeasonalNaive(24), r"`seasonal_naive` \(season of 24\) but `data.window` is 12"),
    ],
)
def test_a_window_shorter_than_what_a_forecast_looks_at_is_refused(forecast, words, noisy):
    with pytest.raises(UserError, match=words):
        forecast.fit(noisy, 5)


def test_one_value_has_no_drift(rng):
    with pytest.raises(UserError, match="`drift`"):
        Drift().fit(windows(rng.normal(size=20), window=1), 5)


@pytest.mark.parametrize(
    "forecast",
    [LastValue(), WindowMean(), MovingAverage(), Drift(), SeasonalNaive(), LinearForecast()],
)
def test_what_is_no_series_is_refused(forecast, data):
    with pytest.raises(UserError, match="Expected windows of a series"):
        forecast.fit(data.train, 10)


def test_lengths_below_one_are_refused():
    with pytest.raises(UserError, match="`length`"):
        MovingAverage(0)
    with pytest.raises(UserError, match="`season`"):
        SeasonalNaive(0)
