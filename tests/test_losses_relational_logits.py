"""Claims about losses on relations between logits."""

import numpy as np
import pytest
import torch
from logit_losses import CASES, T, gradient, reference_correlation
from scipy.special import softmax

from distill.training.losses.relational_logits import (
    correlation_loss,
    multi_level_kl,
)


def test_gradient_of_the_correlation_loss_grows_with_the_temperature(batch):
    # A correlation does not see the factor 1 / T of soft labels near the uniform distribution.
    case, (student, teacher, label) = CASES["correlation"], batch
    low, high = (
        gradient(case.make(t), student / 10, teacher / 10, label).norm() for t in (8.0, 32.0)
    )
    assert (high / low).item() == pytest.approx(16, rel=0.05)


@pytest.mark.parametrize("name", ["correlation", "multi_level"])
def test_losses_on_relations_depend_on_the_batch(batch, name):
    loss = CASES[name].make(T)
    halves = [loss(*(x[half] for x in batch)) for half in (slice(4), slice(4, 8))]
    assert (loss(*batch) - sum(halves) / 2).abs() > 0.01


def test_correlation_drops_rows_and_columns_that_are_constant(batch):
    student, teacher, _ = batch
    rows_alone = correlation_loss(student[:1], teacher[:1], beta=1.0, gamma=1.0, temperature=T)
    expected = 1 - np.corrcoef(softmax(student[0] / T), softmax(teacher[0] / T))[0, 1]
    assert rows_alone.item() == pytest.approx(expected * T**2)
    student[:, 2], teacher[:, 2] = -1e4, -1e4  # a class that neither finds possible
    columns = correlation_loss(student, teacher, beta=0.0, gamma=1.0, temperature=1.0)
    kept = [0, 1, 3, 4, 5]
    others = reference_correlation(student[:, kept].numpy(), teacher[:, kept].numpy(), 0, 1, 1)
    assert columns.item() == pytest.approx(others * 5 / 6)


def test_temperatures_of_the_multi_level_loss_are_averaged(batch):
    student, teacher, _ = batch
    apart = [multi_level_kl(student, teacher, [t]) for t in (2.0, 4.0)]
    both = multi_level_kl(student, teacher, [2.0, 4.0])
    torch.testing.assert_close(both, sum(apart) / 2)
