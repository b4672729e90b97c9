"""Claims about covariates that leak: copies of the future, and what is not known ahead."""

import numpy as np
import pandas as pd
import pytest
from series_rows import SMALL, frame, made

from distill.training.data.generated_series import generated_series


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
