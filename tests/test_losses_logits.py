import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from distill.errors import UserError
from distill.training.losses.logits import (
    CrossEntropy,
    SoftTargetKL,
    cross_entropy,
    soft_target_kl,
)


def reference_kl(student, teacher, temperature):
    p = softmax(teacher / temperature, axis=1)
    gap = log_softmax(teacher / temperature, axis=1) - log_softmax(student / temperature, axis=1)
    return (p * gap).sum(axis=1) * temperature**2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
def test_kl_agrees_with_scipy(rng, temperature, scale):
    student, teacher = rng.normal(size=(2, 16, 100)) * scale
    found = soft_target_kl(torch.tensor(student), torch.tensor(teacher), temperature)
    expected = reference_kl(student, teacher, temperature)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5 * temperature**2)


def test_kl_sums_over_classes_and_averages_over_samples(rng):
    student, teacher = torch.tensor(rng.normal(size=(2, 8, 1000)))
    loss = SoftTargetKL(temperature=4.0, weight=0.5)(student, teacher, torch.zeros(8))
    expected = 0.5 * reference_kl(student.numpy(), teacher.numpy(), 4.0).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_kl_is_zero_when_student_equals_teacher(rng):
    logits = torch.tensor(rng.normal(size=(4, 7)))
    assert soft_target_kl(logits, logits, 4.0).abs().max() < 1e-6


def test_kl_is_never_negative(rng):
    student, teacher = torch.tensor(rng.normal(size=(2, 500, 10)) * 10)
    assert soft_target_kl(student, teacher, 4.0).min() >= 0


def test_kl_does_not_move_when_logits_are_shifted(rng):
    student, teacher = torch.tensor(rng.normal(size=(2, 8, 10)))
    moved = soft_target_kl(student + 5, teacher - 3, 2.0)
    torch.testing.assert_close(moved, soft_target_kl(student, teacher, 2.0), rtol=1e-4, atol=1e-5)


def test_gradient_at_high_temperature_is_that_of_matching_logits(rng):
    # Hinton et al., 2015, eq. 4: T^2 KL -> 1/(2C) |z - v|^2 for centred logits as T grows.
    student, teacher = rng.normal(size=(2, 3, 10))
    student -= student.mean(axis=1, keepdims=True)
    teacher -= teacher.mean(axis=1, keepdims=True)
    z = torch.tensor(student, requires_grad=True)
    soft_target_kl(z, torch.tensor(teacher), 1000.0).sum().backward()
    np.testing.assert_allclose(z.grad, (student - teacher) / 10, atol=2e-3)


def test_gradient_agrees_with_finite_differences(rng):
    z = rng.normal(size=(2, 5))
    teacher = rng.normal(size=(2, 5))
    tensor = torch.tensor(z, requires_grad=True)
    soft_target_kl(tensor, torch.tensor(teacher), 3.0).sum().backward()
    step = 1e-4
    for i in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[i] += step
        down[i] -= step
        slope = (reference_kl(up, teacher, 3.0) - reference_kl(down, teacher, 3.0)).sum() / 2 / step
        assert tensor.grad[i].item() == pytest.approx(slope, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(rng, dtype):
    student, teacher = torch.tensor(rng.normal(size=(2, 8, 100)) * 100).to(dtype)
    found = soft_target_kl(student, teacher, 4.0)
    expected = reference_kl(student.double().numpy(), teacher.double().numpy(), 4.0)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        soft_target_kl(torch.zeros(4, 10), torch.zeros(4, 1), 1.0)


@pytest.mark.parametrize("temperature", [0, -1.0])
def test_impossible_temperature_is_refused(temperature):
    with pytest.raises(UserError, match="temperature"):
        SoftTargetKL(temperature=temperature, weight=1.0)


def test_cross_entropy_agrees_with_scipy(rng):
    logits, label = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    expected = -log_softmax(logits, axis=1)[np.arange(6), label]
    np.testing.assert_allclose(
        cross_entropy(torch.tensor(logits), torch.tensor(label)), expected, rtol=1e-5
    )
    loss = CrossEntropy(weight=2.0)(torch.tensor(logits), None, torch.tensor(label))
    assert loss.item() == pytest.approx(2 * expected.mean(), rel=1e-5)
