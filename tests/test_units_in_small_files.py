"""Claims about units behind a network whose numbers are made smaller: they stay in float."""

import numpy as np
import onnx
import pytest
import torch
from common_fixtures import exact_int8, make_file
from series_files import HORIZON, RECIPES, Doubled, draw, export
from series_files import trained as trained
from torch import nn

from distill.deployment.export import export_onnx
from distill.deployment.quantize.graph import answers, around
from distill.deployment.series_graph import wrap_windows
from distill.deployment.table_graph import in_units, prepend_encoder
from distill.runtime import OnnxModel
from distill.tables.columns import Column, Kind, make_records
from distill.tables.encoding import fit_encoder
from distill.tables.windows import fit_windows
from distill.tasks import Task, TaskKind
from distill.training.table_models import MLP, build_table_network

CLOSE = [  # of those that may be far off where int8 saturates, only elsewhere
    pytest.param(name, marks=exact_int8) if name in ("static", "percentile") else name
    for name in RECIPES
]


def root_mean_square(differences):
    return float(np.sqrt(np.mean(np.square(differences, dtype=float))))


@pytest.mark.slow
@pytest.mark.parametrize("name", CLOSE)
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


@pytest.mark.slow
def test_a_table_answers_in_each_numbers_own_units(numbers):
    rows, own, path = numbers
    expected = own * np.array(NUMBERS.scale) + NUMBERS.mean
    model = OnnxModel(path)
    np.testing.assert_allclose(model.predict(rows), expected, rtol=1e-6)
    first, doubled = model.session.run(None, model.prepared(rows))
    assert first.dtype == np.float32
    np.testing.assert_allclose(doubled, 2 * own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CLOSE)
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


@pytest.mark.slow
@exact_int8
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
