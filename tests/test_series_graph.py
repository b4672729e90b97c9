"""Claims about files that take raw windows and answer in units; the oracle is NumPy and torch."""

from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import make_file
from hypothesis import given, settings
from hypothesis import strategies as st
from series_rows import frame, made
from torch import nn

from distill.columns import Column, Kind, make_records
from distill.deployment.device.openvino_model import OpenVinoModel
from distill.deployment.export import export_onnx
from distill.deployment.intake import inspect, random_inputs, read_inputs
from distill.deployment.measurement import Effort, Measurement
from distill.deployment.quantize.graph import answers, around
from distill.deployment.quantize.recipes import DynamicInt8, Float16, StaticInt8
from distill.deployment.series_graph import windows_graph, wrap_windows
from distill.deployment.table_graph import in_units, prepend_encoder
from distill.deployment.targets.local import LocalTarget
from distill.encoding import fit_encoder
from distill.errors import UserError
from distill.runtime import ModelError, OnnxModel
from distill.tasks import Task, TaskKind
from distill.training.table_models import MLP, build_table_network
from distill.windows import Covariate, Windows, fit_windows

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


class Doubled(nn.Module):
    names = ("doubled",)

    def forward(self, outputs):
        return (2 * outputs,)


@pytest.mark.parametrize("recipe", [None, *RECIPES])
def test_further_outputs_stay_in_the_networks_own_units(recipe, tmp_path):
    rows = draw(names=())
    windows = fit_windows(rows, horizon=HORIZON)
    path = export(network_of(windows), windows, tmp_path / "m.onnx", head=Doubled())
    before = OnnxModel(path).output_names
    wrap_windows(windows, path)
    if recipe:
        make_file(RECIPES[recipe], path, tmp_path / "small.onnx", rows)
        path = tmp_path / "small.onnx"
    model = OnnxModel(path)
    assert model.output_names == before
    first, doubled = model.session.run(None, model.prepared(rows))
    expected = 2 * windows.scaled(rows, first)
    np.testing.assert_allclose(doubled, expected, rtol=1e-2, atol=1e-2)


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


def root_mean_square(differences):
    return float(np.sqrt(np.mean(np.square(differences, dtype=float))))


@pytest.mark.parametrize("name", RECIPES)
def test_smaller_numbers_cost_a_forecast_little(trained, name, tmp_path):
    data, path = trained
    make_file(RECIPES[name], path, tmp_path / "small.onnx", data.train.records)
    split = data.test
    whole, small = (OnnxModel(p).predict(split.records) for p in (path, tmp_path / "small.onnx"))
    errors = [root_mean_square(found - split.labels) for found in (whole, small)]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)
    _, spread = data.windows.level_and_spread(split.records)
    assert 0 < root_mean_square((small - whole) / spread) < (0.003 if name == "float16" else 0.1)


@pytest.mark.parametrize("name", RECIPES)
def test_a_high_level_is_not_rounded_to_eight_or_sixteen_bits(trained, name, tmp_path):
    data, path = trained
    make_file(RECIPES[name], path, tmp_path / "small.onnx", data.train.records)
    near = data.test.records[:64]
    far = near.copy()
    far["sold"] += 300_000  # half precision ends at 65504
    model = OnnxModel(tmp_path / "small.onnx")
    np.testing.assert_allclose(model.predict(far), model.predict(near) + 300_000, atol=0.2)


@pytest.mark.parametrize("name", ["static", "percentile"])
def test_neither_windows_nor_units_nor_the_last_answer_are_held_in_int8(trained, name, tmp_path):
    data, path = trained
    make_file(RECIPES[name], path, tmp_path / "small.onnx", data.train.records)
    graph = onnx.load(tmp_path / "small.onnx").graph
    makers = {output: node for node in graph.node for output in node.output}
    ours = [node for node in graph.node if node.name.startswith(("node/series/", "node/units/"))]
    fed_by = {makers[i].op_type for node in ours for i in node.input if i in makers}
    assert not fed_by & {"QuantizeLinear", "DequantizeLinear"}
    assert "Gemm" in fed_by
    kernels = [onnx.numpy_helper.to_array(t) for t in graph.initializer]
    assert len([k for k in kernels if k.dtype == np.int8 and k.ndim == 2]) == 3


NUMBERS = Task(
    kind=TaskKind.REGRESSION, outputs=("a", "b"), mean=(1e6, 0.1), scale=(2e5, 0.02)
)  # fmt: skip


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A table's file that answers with a large and a small number, and what it should say."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("numbers")
    rows = make_records({name: rng.normal(5, 2, 300) for name in "xyz"})
    encoder = fit_encoder([Column(name=n, kind=Kind.NUMBER) for n in "xyz"], rows)
    torch.manual_seed(0)
    network = build_table_network(MLP, num_classes=2, layout=encoder.layout).eval()
    with torch.no_grad():
        network.network.head.weight *= 5
        own = network(torch.from_numpy(encoder(rows))).numpy()
    path = folder / "m.onnx"
    export_onnx(network, (3,), path, dtype=torch.float32, head=Doubled())
    prepend_encoder(encoder, path)
    in_units(NUMBERS, path)
    return rows, own, path


def test_a_table_answers_in_each_numbers_own_units(numbers):
    rows, own, path = numbers
    expected = own * np.array(NUMBERS.scale) + NUMBERS.mean
    model = OnnxModel(path)
    np.testing.assert_allclose(model.predict(rows), expected, rtol=1e-6)
    first, doubled = model.session.run(None, model.prepared(rows))
    assert first.dtype == np.float32
    np.testing.assert_allclose(doubled, 2 * own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_a_small_number_survives_beside_a_large_one_in_a_smaller_file(numbers, name, tmp_path):
    rows, own, path = numbers
    make_file(RECIPES[name], path, tmp_path / "small.onnx", rows)
    found = OnnxModel(tmp_path / "small.onnx").predict(rows)
    errors = (found.astype(float) - NUMBERS.mean) / NUMBERS.scale - own
    limit = 0.005 if name == "float16" else 0.05
    assert (np.sqrt(np.mean(errors**2, axis=0)) < limit * own.std(axis=0)).all()


def test_units_and_a_head_are_around_the_layers_and_the_last_answer_is_named(numbers):
    graph = onnx.load(numbers[2]).graph
    kinds = {node.name: node.op_type for node in graph.node}
    inside = [kinds[name] for name in kinds if name not in around(graph)]
    assert inside == ["Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    assert answers(graph) == ["units/answer"]


class Blocks(nn.Module):
    """Two blocks whose answers are added up, the second one on what the first leaves."""

    def __init__(self):
        super().__init__()
        self.hidden, self.back, self.first = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(16, 3)
        self.second = nn.Conv1d(1, 3, 8)
        self.third = nn.Linear(8, 3)

    def forward(self, rows):
        found = self.hidden(rows).relu()
        rest = rows - self.back(found)
        return (
            self.first(found) + self.second(rest[:, None])[..., 0] + self.third(rest[:, None])[:, 0]
        )


def test_of_a_sum_all_products_answer_in_float_and_no_other_layer(tmp_path):
    rows = draw(names=())
    windows = fit_windows(rows, horizon=HORIZON)
    path = export(Blocks().eval(), windows, tmp_path / "m.onnx")
    wrap_windows(windows, path)
    graph = onnx.load(path).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    assert sorted(makers[name] for name in answers(graph)) == ["Gemm", "MatMul"]
    make_file(RECIPES["static"], path, tmp_path / "small.onnx", rows)
    whole, small = (OnnxModel(p).predict(rows) for p in (path, tmp_path / "small.onnx"))
    _, spread = windows.level_and_spread(rows)
    assert root_mean_square((small - whole) / spread) < 0.05


def cut(rows, name, length):
    return make_records(
        {n: rows[n][:, :length] if n == name else rows[n] for n in rows.dtype.names}
    )


def test_records_of_another_form_are_refused_by_name_and_length(wrapped):
    windows, _, rows, path = wrapped
    model = OnnxModel(path)
    for own in windows.takes:
        shorter = cut(rows, own.name, 5)
        said = f"`{own.name}` as .*double.* of length {own.length} .*got .*double.* of length 5"
        with pytest.raises(ModelError, match=said):
            model.predict(shorter)
        single = make_records(
            {n: shorter[n][:, 0] if n == own.name else rows[n] for n in windows.widths}
        )
        with pytest.raises(ModelError, match=r"got .*double.* of length 1"):
            model.predict(single)
        narrow = make_records(
            {n: rows[n].astype("f4" if n == own.name else "f8") for n in windows.widths}
        )
        with pytest.raises(ModelError, match=r"got tensor\(float\) of length"):
            model.predict(narrow)
        with pytest.raises(Exception, match=own.name):  # unchecked: no rows run into each other
            model(shorter)
    with pytest.raises(ModelError, match=r"Expected the column `sold` .* but got none"):
        model.predict(make_records({"bought": rows["sold"]}))


def test_an_array_is_taken_for_one_column_and_refused_for_several(wrapped):
    windows, _, rows, path = wrapped
    model = OnnxModel(path)
    if windows.covariates:
        with pytest.raises(ModelError, match=r"`sold` .* but got an array, float64"):
            model.predict(rows["sold"])
    else:
        np.testing.assert_array_equal(model.predict(rows["sold"]), model.predict(rows))


def test_windows_of_one_step_are_columns_too(tmp_path):
    rows = make_records({"sold": np.arange(9.0)[:, None], "price": np.ones((9, 2))})
    windows = fit_windows(rows, horizon=1, known=["price"])
    network = network_of(windows)
    wrap_windows(windows, export(network, windows, tmp_path / "m.onnx"))
    found = OnnxModel(tmp_path / "m.onnx").predict(rows)
    assert_near(found, answer(network, windows, rows), windows, rows)


def test_openvino_takes_windows_as_onnxruntime_does(trained):
    pytest.importorskip("openvino", reason="needs the `openvino` extra")
    data, path = trained
    rows = np.delete(odd(data.test.records[:40]), [6, 7, 8])  # its doubles are float32 inside
    expected, found = OnnxModel(path).predict(rows), OpenVinoModel(path).predict(rows)
    assert_near(found, expected, data.windows, rows)


def test_a_file_that_takes_windows_is_measured_with_drawn_or_given_ones(wrapped, tmp_path):
    windows, _, rows, path = wrapped
    artefact = inspect(path)
    drawn = random_inputs(artefact, 16, seed=0)
    if windows.covariates:
        assert drawn.dtype == rows.dtype
        assert not artefact.takes(rows["sold"])
    np.save(tmp_path / "rows.npy", rows[:16])
    given = read_inputs(tmp_path / "rows.npy", artefact, None)
    np.save(tmp_path / "short.npy", cut(rows, "sold", 3))
    with pytest.raises(UserError, match=r"Expected inputs .*8"):
        read_inputs(tmp_path / "short.npy", artefact, None)
    asked = Measurement(
        confidence=0.95, effort=Effort(cold_starts=1, processes=1, rounds=2, max_seconds=5)
    )
    for inputs in (drawn, given):
        (row,) = LocalTarget(name="here").measure([path], inputs, asked).artefacts
        assert row.golden["max_abs"] == 0
        assert row.p50_latency_ms.estimate > 0
