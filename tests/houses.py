"""Tables of houses and series of sales, for tests of their teachers."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.special import expit
from series_rows import frame, made
from sklearn.ensemble import (
    RandomForestRegressor,
)

from distill.training.data.tables import Choice, from_table

FOREST = RandomForestRegressor(8, random_state=0)
MARKS = ("is_dear", "is_sold", "is_new")


def rows(n=240):
    rng = np.random.default_rng(1)
    size, age = rng.normal(100, 20, n), rng.uniform(0, 50, n)
    price = 3 * size - 2 * age + rng.normal(0, 20, n) + 500
    return pa.table(
        {
            "size": size,
            "age": age,
            "owner": rng.integers(0, 40, n),
            "price": price,
            "days": rng.poisson(np.maximum(price / 20, 1)),
            "is_dear": price > np.median(price),
            "is_sold": rng.random(n) < expit((size - 100) / 10),
            "is_new": age < 10,
        }
    )


def data_of(*labels, **choice):
    return from_table(
        rows(), "houses", Choice(label=list(labels), columns=["size", "age"], **choice)
    )


@pytest.fixture(scope="module")
def houses():
    return data_of("price", "days", task="regression")


@pytest.fixture(scope="module")
def marks():
    return data_of(*MARKS)


@pytest.fixture(scope="module")
def sales():
    return made(frame(200), known=["price"])


def ask(teacher, split):
    found = teacher(torch.from_numpy(split.inputs), torch.from_numpy(split.indices)).logits
    assert found.dtype == torch.float32
    return found.numpy()


def in_learnt_units(data, split, answers):
    """Standardise by hand: by the training labels, or by each window's own last value."""
    if data.encoder.layout.names[0].startswith("sold"):
        sold = split.records["sold"]
        spread = np.maximum(sold.std(axis=1), data.windows.floor)[:, None]
        return (answers - sold[:, -1:]) / spread
    labels = data.train.labels.astype(float)
    return (answers - labels.mean(axis=0)) / labels.std(axis=0)
