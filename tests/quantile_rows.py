"""Houses whose prices are asked for in quantiles, and a network that was not trained on them."""

import numpy as np
import pyarrow as pa
import torch

from distill.training.data.tables import Choice, from_table
from distill.training.table_models import MLP, build_table_network

LEVELS = [0.1, 0.5, 0.9]


def rows(n=300):
    """Houses, of which the dear ones vary more in price."""
    rng = np.random.default_rng(1)
    size, age = rng.normal(100, 20, n), rng.uniform(0, 50, n)
    price = 900 * size + 200 * size * rng.gumbel(size=n)
    return pa.table({"size": size, "age": age, "price": price, "days": rng.poisson(price / 6000)})


def houses_of(*labels, **choice):
    given = {"columns": ["size", "age"], "task": "regression", "quantiles": LEVELS}
    return from_table(rows(), "houses", Choice(label=list(labels), **given | choice))


def network_of(data, seed=0):
    torch.manual_seed(seed)
    network = build_table_network(
        MLP, num_classes=len(data.classes), layout=data.encoder.layout
    ).eval()
    with torch.no_grad():
        network.network.head.weight *= 5
    return network
