"""Claims about what a network is chosen by."""

import pytest
import torch

from distill.tasks import TaskKind
from distill.training.objectives import validation_figures


@pytest.mark.parametrize(
    ("kind", "target", "name", "expected"),
    [
        (TaskKind.CLASSIFICATION, torch.tensor([0, 2, 1, 1]), "accuracy", 0.75),
        (TaskKind.MULTI_LABEL, torch.tensor([[1.0, 0, 0]] * 4), "label_accuracy", 8 / 12),
        (TaskKind.REGRESSION, torch.zeros(4, 3), "mse", 4.0),
    ],
)
def test_the_figures_are_those_of_the_task(kind, target, name, expected):
    outputs = torch.tensor([[2.0, -2, -2], [-2, -2, 2], [-2, 2, -2], [2, -2, -2]])
    figures, selection = validation_figures(kind, outputs, target)
    assert figures[name] == pytest.approx(expected)
    assert selection == pytest.approx(-4.0 if name == "mse" else expected, abs=1e-4)
