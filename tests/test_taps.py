import pytest
import torch
from torch import nn

from distill.errors import UserError
from distill.training.taps import Taps


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2), nn.Tanh()))


def test_taps_give_what_the_named_modules_returned(model):
    taps = Taps(model, ["2.0", "0"], "student")
    x = torch.randn(5, 3)
    model(x)
    first, inner = taps.take(["0", "2.0"])
    assert torch.equal(first, model[0](x))
    assert torch.equal(inner, model[2][0](torch.relu(model[0](x))))
    assert first.requires_grad  # a loss on it trains the student


def test_a_name_that_does_not_exist_gets_those_that_do(model):
    with pytest.raises(
        UserError, match=r"`teacher_tap`.*no `2\.2`.*Its modules: 0, 1, 2, 2\.0, 2\.1"
    ):
        Taps(model, ["2.2"], "teacher")


def test_a_module_that_returns_no_tensor_is_refused():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    model = nn.Sequential(Pair())
    Taps(model, ["0"], "student")
    with pytest.raises(UserError, match="returns tuple"):
        model(torch.zeros(1))
