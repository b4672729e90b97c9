"""Rows of sales in shops, and the series that are made of them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from distill.errors import UserError
from distill.training.data.pools import SeriesChoice
from distill.training.data.series import series_of

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
