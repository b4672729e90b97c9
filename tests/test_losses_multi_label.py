"""Claims about losses of several labels an example."""

import numpy as np
import torch
from logit_losses import CASES, T, gradient
from scipy.special import expit

from distill.training.losses.multi_label import (
    binary_cross_entropy,
)


def test_gradient_of_binary_soft_targets_is_that_of_binary_cross_entropy(batch):
    student, teacher, label = batch
    soft_labels = (teacher / T).sigmoid()
    found = gradient(CASES["binary"].make(T), student, teacher, label)
    expected = gradient(
        lambda z, v, y: T**2 * binary_cross_entropy(z / T, soft_labels).mean(),
        student,
        teacher,
        label,
    )
    torch.testing.assert_close(found, expected)


def test_binary_cross_entropy_takes_several_labels_an_example(rng):
    logits, holds = rng.normal(size=(8, 6)), rng.integers(0, 2, size=(8, 6))
    q = expit(logits)
    expected = -(np.where(holds == 1, np.log(q), np.log(1 - q))).sum(axis=1)
    for label in (torch.tensor(holds), torch.tensor(holds, dtype=torch.float32)):
        np.testing.assert_allclose(binary_cross_entropy(torch.tensor(logits), label), expected)
