"""Claims about single losses on logits."""

import numpy as np
import pytest
import torch
from logit_losses import CASES, T, gradient
from scipy.special import log_softmax

from distill.training.losses.logits import (
    CrossEntropy,
    LogitMSE,
    cross_entropy,
    decoupled_kl,
    soft_target_kl,
)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_kl_with_the_teachers_doubt_as_beta_is_classic_kl(batch, temperature):
    # Zhao et al., 2022, eq. 6: KD = TCKD + (1 - p_label) NCKD, for each example.
    student, teacher, label = batch
    doubt = 1 - (teacher / temperature).softmax(dim=1).gather(1, label[:, None])[:, 0]
    for i in range(len(label)):
        one = slice(i, i + 1)
        decoupled = decoupled_kl(
            student[one],
            teacher[one],
            label[one],
            alpha=1.0,
            beta=doubt[i].item(),
            temperature=temperature,
        )
        classic = soft_target_kl(student[one], teacher[one], temperature)
        torch.testing.assert_close(decoupled, classic)


def test_decoupled_kl_sees_the_class_with_the_largest_share(batch, rng):
    student, teacher, label = batch
    shares = torch.tensor(rng.dirichlet(np.ones(6), size=8)) * 0.4
    shares[torch.arange(8), label] += 0.6
    loss = CASES["decoupled"].make(T)
    assert loss(student, teacher, shares) == loss(student, teacher, label)


def test_gradient_at_high_temperature_is_that_of_matching_logits(rng):
    # Hinton et al., 2015, eq. 4: T^2 KL -> 1/(2C) |z - v|^2 for centred logits as T grows.
    student, teacher = torch.tensor(rng.normal(size=(2, 3, 10)))
    label = torch.zeros(3)
    limit = gradient(lambda *x: CASES["kd"].make(1000.0)(*x), student, teacher, label)
    matching = gradient(LogitMSE(weight=1.0), student, teacher, label)
    torch.testing.assert_close(limit, matching / 2, rtol=0, atol=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_takes_shares_of_classes(rng, smoothing):
    logits, shares = rng.normal(size=(8, 6)), rng.dirichlet(np.ones(6), size=8)
    smoothed = (1 - smoothing) * shares + smoothing / 6
    expected = -(smoothed * log_softmax(logits, axis=1)).sum(axis=1)
    found = cross_entropy(torch.tensor(logits), torch.tensor(shares), smoothing)
    np.testing.assert_allclose(found, expected)
    narrow = cross_entropy(torch.tensor(logits).bfloat16(), torch.tensor(shares), smoothing)
    np.testing.assert_allclose(narrow, expected, rtol=0.05)
    with pytest.raises(ValueError, match="one shape"):
        cross_entropy(torch.tensor(logits), torch.tensor(shares[:, :1]))


def test_classes_as_shares_give_the_same_cross_entropy(batch):
    student, _, label = batch
    shares = torch.nn.functional.one_hot(label, 6).float()
    torch.testing.assert_close(cross_entropy(student, shares), cross_entropy(student, label))


def test_smoothed_cross_entropy_agrees_with_scipy(batch):
    student, _, label = batch
    y = 0.9 * np.eye(6)[label] + 0.1 / 6
    expected = -(y * log_softmax(student.numpy(), axis=1)).sum(axis=1).mean()
    loss = CrossEntropy(weight=2.0, smoothing=0.1)
    assert loss(student, None, label).item() == pytest.approx(expected)
