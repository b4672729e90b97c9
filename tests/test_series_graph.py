"""Claims about files that take raw windows and answer in units; the oracle is NumPy and torch."""

import numpy as np
import onnxruntime
import pytest
import torch
from common_fixtures import make_file
from hypothesis import given, settings
from hypothesis import strategies as st
from series_files import (
    HORIZON,
    RECIPES,
    Doubled,
    answer,
    assert_near,
    draw,
    export,
    network_of,
    odd,
)
from series_files import wrapped as wrapped

from distill.deployment.export import export_onnx
from distill.deployment.series_graph import windows_graph, wrap_windows
from distill.deployment.table_graph import prepend_encoder
from distill.errors import UserError
from distill.runtime import OnnxModel
from distill.tables.columns import Column, Kind, make_records
from distill.tables.encoding import fit_encoder
from distill.tables.windows import Covariate, Windows, fit_windows
from distill.training.table_models import MLP, build_table_network

pytestmark = pytest.mark.slow


def test_the_file_answers_every_window_as_the_python_pipeline_does(wrapped):
    windows, network, rows, path = wrapped
    model = OnnxModel(path)
    assert list(model.lengths.items()) == [(c.name, c.length) for c in windows.takes]
    assert set(model.columns.values()) == {"tensor(double)"}
    for own in (rows, draw(50, seed=1, level=-1e6, names=rows.dtype.names[1:])):
        found, expected = model.predict(own), answer(network, windows, own)
        assert found.dtype == np.float32
        assert found.shape == (len(own), HORIZON)
        assert_near(found, expected, windows, own)
        single = np.concatenate([model(own[i : i + 1]) for i in range(len(own))])
        assert_near(single, expected, windows, own)


def test_gaps_constant_windows_and_huge_values_are_answered_alike_and_finite(wrapped):
    windows, network, rows, path = wrapped
    asked = odd(rows)
    found, expected = OnnxModel(path).predict(asked), answer(network, windows, asked)
    assert np.isfinite(expected).all()
    assert_near(found, expected, windows, asked)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), min_size=1, max_size=5),
    st.lists(
        st.floats(-1e300, 1e300) | st.sampled_from([np.nan, np.inf, -np.inf]),
        min_size=6,
        max_size=6,
    ),
)
def test_whatever_is_in_a_window_both_encode_alike(values, known):
    windows = Windows(
        value="sold", window=4, horizon=2, floor=1e-3,
        covariates=(Covariate(name="price", is_known=True, mean=2.0, scale=0.5),),
    )  # fmt: skip
    rows = make_records({"sold": np.array(values), "price": np.tile(known, (len(values), 1))})
    proto = windows_graph(windows, 20, 10)
    session = onnx_session(proto)
    found, level, spread = session.run(None, {name: rows[name] for name in rows.dtype.names})
    np.testing.assert_allclose(found, windows(rows), rtol=1e-6, atol=1e-6)
    for ours, theirs in zip((level, spread), windows.level_and_spread(rows), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def onnx_session(proto):
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.fixture(scope="module")
def doubled(tmp_path_factory):
    """A file with a further output; windows, rows, and its outputs before it took windows."""
    rows = draw(names=())
    windows = fit_windows(rows, horizon=HORIZON)
    folder = tmp_path_factory.mktemp("doubled")
    path = export(network_of(windows), windows, folder / "m.onnx", head=Doubled())
    before = OnnxModel(path).output_names
    wrap_windows(windows, path)
    return windows, rows, path, before


@pytest.mark.parametrize("recipe", [None, *RECIPES])
def test_further_outputs_stay_in_the_networks_own_units(doubled, recipe, tmp_path):
    windows, rows, path, before = doubled
    if recipe:
        make_file(RECIPES[recipe], path, tmp_path / "small.onnx", rows)
        path = tmp_path / "small.onnx"
    model = OnnxModel(path)
    assert model.output_names == before
    first, second = model.session.run(None, model.prepared(rows))
    expected = 2 * windows.scaled(rows, first)
    np.testing.assert_allclose(second, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["image", "linear", "relu", "network.head.weight"])
def test_a_column_may_be_called_as_something_inside_the_network(name, tmp_path):
    rows = draw(value=name, names=())
    windows = fit_windows(rows, horizon=HORIZON)
    network = network_of(windows)
    wrap_windows(windows, export(network, windows, tmp_path / "m.onnx"))
    model = OnnxModel(tmp_path / "m.onnx")
    assert list(model.columns) == [name]
    assert_near(model.predict(rows), answer(network, windows, rows), windows, rows)

    rows = make_records({name: rows[name][:, 0]})
    encoder = fit_encoder([Column(name=name, kind=Kind.NUMBER)], rows)
    network = build_table_network(MLP, num_classes=2, layout=encoder.layout).eval()
    export_onnx(network, (1,), tmp_path / "t.onnx", dtype=torch.float32)
    prepend_encoder(encoder, tmp_path / "t.onnx")
    assert OnnxModel(tmp_path / "t.onnx").predict(rows).shape == (len(rows), 2)


def test_a_column_called_as_the_output_is_one_message(tmp_path):
    rows = draw(names=())
    windows = fit_windows(rows, horizon=HORIZON)
    path = export(network_of(windows), windows, tmp_path / "m.onnx")
    (name,) = OnnxModel(path).output_names
    renamed = fit_windows(draw(value=name, names=()), horizon=HORIZON)
    content = path.read_bytes()
    with pytest.raises(UserError, match=f"no column called `{name}`.*Rename the column"):
        wrap_windows(renamed, path)
    assert path.read_bytes() == content
