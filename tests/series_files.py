"""Networks of windows, exported: made, wrapped and trained, for tests of their files."""

from functools import partial

import numpy as np
import pytest
import torch
from series_rows import frame, made
from torch import nn

from distill.deployment.export import export_onnx
from distill.deployment.quantize.recipes import DynamicInt8, Float16, StaticInt8
from distill.deployment.series_graph import wrap_windows
from distill.tables.columns import make_records
from distill.tables.windows import fit_windows
from distill.training.table_models import MLP, build_table_network

WINDOW, HORIZON = 8, 3
CHOICES = {
    "alone": {},
    "observed": {"observed": ["rain"]},
    "all": {"observed": ["rain"], "known": ["price", "open"]},
}

RECIPES = {
    "static": StaticInt8(num_calibration_samples=128),
    "percentile": StaticInt8(num_calibration_samples=128, calibration="percentile"),
    "dynamic": DynamicInt8(),
    "float16": Float16(),
}


class Doubled(nn.Module):
    names = ("doubled",)

    def forward(self, outputs):
        return (2 * outputs,)


def draw(n=200, *, value="sold", level=50.0, seed=0, names=("rain", "price", "open")):
    rng = np.random.default_rng(seed)
    lengths = {"rain": WINDOW, "price": WINDOW + HORIZON, "open": WINDOW + HORIZON}
    walks = level + rng.normal(size=(n, WINDOW)).cumsum(axis=1) * 10 ** rng.uniform(-1, 2, (n, 1))
    others = {name: rng.normal(3, 2, (n, lengths[name])) for name in names}
    return make_records({value: walks, **others})


def odd(rows):
    """Rows as no training has seen them: gaps, constant windows, what is far too large."""
    rows = rows.copy()
    for name in rows.dtype.names[1:]:
        rows[name][::3, 1] = np.nan
        rows[name][1] = np.nan
        rows[name][2] = 1e30
        rows[name][5, 0] = -np.inf
    value = rows.dtype.names[0]
    rows[value][3:6] = 0.1
    rows[value][6] = 1e30
    rows[value][7] *= 1e25
    rows[value][8] = 1e9 + np.arange(rows[value].shape[1]) * 1e-5
    return rows


def network_of(windows, widths=(16,), seed=0):
    torch.manual_seed(seed)
    student = partial(MLP, widths=widths)
    return build_table_network(student, num_classes=windows.horizon, layout=windows.layout).eval()


def export(network, windows, path, **options):
    export_onnx(network, (windows.layout.num_features,), path, dtype=torch.float32, **options)
    return path


def answer(network, windows, rows):
    """What training would say, in units."""
    with torch.no_grad():
        return windows.in_units(rows, network(torch.from_numpy(windows(rows))).numpy())


def assert_near(found, expected, windows, rows, tolerance=1e-5):
    """Hold answers against each other by the spread of their windows."""
    level, spread = windows.level_and_spread(rows)
    digits = 2e-7 * np.maximum(np.abs(level), np.abs(expected))  # those of float32
    assert (np.abs(found.astype(float) - expected) <= tolerance * spread + digits).all()


@pytest.fixture(scope="module", params=CHOICES)
def wrapped(request, tmp_path_factory):
    path, choice = tmp_path_factory.mktemp(request.param) / "m.onnx", CHOICES[request.param]
    rows = draw(names=[name for names in choice.values() for name in names])
    windows = fit_windows(rows, horizon=HORIZON, **choice)
    network = network_of(windows)
    wrap_windows(windows, export(network, windows, path))
    return windows, network, rows, path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that has learnt two series, one ten times as large, and its file."""
    folder = tmp_path_factory.mktemp("trained")
    data = made(frame(500), window=24, horizon=6, known=["price"], observed=["rain"])
    network = network_of(data.windows, widths=(32, 16)).train()
    inputs, targets = map(torch.from_numpy, (data.train.inputs, data.train.targets))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.mse_loss(network(inputs), targets).backward()
        optimizer.step()
    wrap_windows(data.windows, export(network.eval(), data.windows, folder / "m.onnx"))
    return data, folder / "m.onnx"
