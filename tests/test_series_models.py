"""Claims about networks for windows: what they see, where they begin, what they export to."""

import functools

import numpy as np
import pytest
import torch
from series_rows import frame, made

from distill.deployment.export import export_onnx
from distill.errors import UserError
from distill.runtime import OnnxModel
from distill.tables.encoding import Layout
from distill.training.fake_quant import FakeQuantization
from distill.training.models import unalike
from distill.training.series_models import TCN
from distill.training.table_models import MLP, build_table_network

FIELDS = (("sold", 20), ("rain", 20), ("price", 25))


def layout(fields=FIELDS):
    return Layout(names=("",) * sum(n for _, n in fields), cardinalities=(), fields=fields)


@pytest.fixture
def network():
    """A TCN of which no weight is 0, with 5 outputs."""
    torch.manual_seed(0)
    own = TCN(5, layout()).eval()
    for last in (own.head.weight, own.linear.weight):
        torch.nn.init.normal_(last)
    return own


@pytest.fixture
def rows():
    torch.manual_seed(1)
    return torch.randn(7, 65)


def test_windows_say_which_field_lies_where():
    windows = made(frame(), known=["price"], observed=["rain"]).windows
    assert windows.layout.fields == (("sold", 6), ("rain", 6), ("price", 9))
    starts = np.cumsum([0] + [width for _, width in windows.layout.fields])
    for (name, width), start in zip(windows.layout.fields, starts, strict=False):
        assert windows.parts[name] == slice(start, start + width)
        assert windows.layout.names[start].startswith(f"{name}[")


def test_fields_become_channels_over_the_window_and_what_is_known_ahead(network):
    data = made(frame(), known=["price"], observed=["rain"])
    fields = TCN(3, data.windows.layout).fields
    encoded = torch.from_numpy(data.test.inputs)
    past, ahead = fields(encoded)
    names = data.windows.layout.names
    for step in range(-5, 1):
        for channel, name in enumerate(("sold", "rain", "price")):
            column = names.index(f"{name}[{step:+d}]" if step else f"{name}[0]")
            torch.testing.assert_close(past[:, channel, step + 5], encoded[:, column])
    columns = [names.index(f"price[+{step}]") for step in (1, 2, 3)]
    torch.testing.assert_close(ahead, encoded[:, columns])


@pytest.mark.parametrize("step", [1, 8, 19])
def test_a_later_step_changes_no_earlier_feature(network, rows, step):
    past, _ = network.fields(rows)
    changed = past.clone()
    changed[:, :, step] += 1
    for features, others in (
        (block(past), block(changed)) for block in (network.blocks[0], network.blocks)
    ):
        torch.testing.assert_close(features[:, :, :step], others[:, :, :step], rtol=0, atol=0)
        assert (features[:, :, step] != others[:, :, step]).any()
    assert features.shape == (7, 16, 20)


@pytest.mark.parametrize("window", [1, 2, 9, 48, 100])
@pytest.mark.parametrize("kernel_size", [2, 3, 7])
def test_the_last_step_sees_the_first_one_whatever_the_window(window, kernel_size):
    torch.manual_seed(0)
    own = TCN(1, layout((("sold", window),)), kernel_size=kernel_size, width=4).eval()
    rows = torch.randn(64, 1, window, requires_grad=True)
    own.blocks(rows)[:, :, -1].sum().backward()
    assert (rows.grad.abs().sum(dim=(0, 1)) > 0).all()
    seen = 1 + 2 * (kernel_size - 1) * (2 ** (len(own.blocks) - 1) - 1)  # with one block less
    assert len(own.blocks) == 1 or seen < window


def test_every_figure_of_a_window_counts(network, rows):
    rows.requires_grad_()
    network(rows).sum().backward()
    assert (rows.grad.abs().sum(dim=0) > 0).all()


def test_an_untrained_network_answers_the_last_value_and_learns_from_there():
    data = made(frame(200))
    own = build_table_network(TCN, num_classes=3, layout=data.windows.layout)
    outputs = own(torch.from_numpy(data.test.inputs))
    answers = data.in_units(outputs.detach().numpy(), data.test)
    last = np.repeat(data.test.records["sold"][:, -1:], 3, axis=1)
    np.testing.assert_allclose(answers, last, rtol=1e-6)
    optimizer = torch.optim.Adam(own.parameters(), 0.01)
    for _ in range(2):  # in the first step the last layers leave 0, in the second all are moved
        before = {name: p.clone() for name, p in own.named_parameters()}
        optimizer.zero_grad()
        goal = torch.from_numpy(data.train.learnt)
        torch.nn.functional.mse_loss(own(torch.from_numpy(data.train.inputs)), goal).backward()
        optimizer.step()
    assert all((before[name] != p).any() for name, p in own.named_parameters())


def test_without_its_convolutions_it_is_the_linear_map_of_the_value(network, rows):
    torch.nn.init.zeros_(network.head.weight)
    expected = rows[:, :20].numpy() @ network.linear.weight.detach().numpy().T
    expected = expected + network.head.bias.detach().numpy()
    np.testing.assert_allclose(network(rows).detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_exported_file_answers_as_torch_does_for_any_batch(network, rows, tmp_path):
    own = unalike(network).eval()
    export_onnx(own, (65,), tmp_path / "model.onnx", dtype=torch.float32)
    model = OnnxModel(tmp_path / "model.onnx")
    for count in (1, 7):
        expected = own(rows[:count]).detach().numpy()
        np.testing.assert_allclose(model(rows[:count].numpy()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [(("sold", 1),), (("sold", 3), ("price", 4))])
def test_the_smallest_windows_are_taken(fields):
    built = build_table_network(TCN, num_classes=2, layout=layout(fields))
    assert built(torch.zeros(4, sum(n for _, n in fields))).shape == (4, 2)


def test_rows_of_a_table_and_convolutions_of_one_step_are_refused():
    table = Layout(names=("age", "calls"), cardinalities=(7,))
    with pytest.raises(UserError, match=r"rows of a table, which has none.*student=mlp"):
        build_table_network(TCN, num_classes=2, layout=table)
    with pytest.raises(UserError, match="`kernel_size` of 2 steps or more but got 1"):
        TCN(2, layout(), kernel_size=1)


def test_an_mlp_without_hidden_layers_is_linear_in_tables_and_windows():
    own = build_table_network(
        functools.partial(MLP, widths=[]), num_classes=2, layout=layout()
    ).eval()
    first, second = torch.randn(2, 4, 65)
    expected = 0.3 * own(first) + 0.7 * own(second)
    torch.testing.assert_close(own(0.3 * first + 0.7 * second), expected)


@pytest.mark.parametrize("fields", [(("sold", 20),), FIELDS], ids=["nothing ahead", "some ahead"])
def test_a_network_is_rounded_as_int8_does_whatever_is_known_ahead(fields):
    torch.manual_seed(2)
    own = TCN(5, layout(fields)).eval()
    for last in (own.head.weight, own.linear.weight):
        torch.nn.init.normal_(last)
    rows = torch.randn(200, sum(width for _, width in fields))
    exact = own(rows)
    ranges = FakeQuantization(own, rows)
    ranges.attach(own)
    rounded = own(rows)
    ranges.detach()
    error = (rounded - exact).square().mean().sqrt() / exact.std()
    assert 0 < error < 0.2
    torch.testing.assert_close(own(rows), exact)
