"""Claims about losses on quantiles, against scikit-learn and what NumPy says of samples."""

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from sklearn.metrics import mean_pinball_loss

from distill.errors import UserError
from distill.statistics.number_metrics import pinball_loss
from distill.training.losses.quantiles import PinballToLabel, QuantilesToTeacher, pinball

LEVELS = [0.1, 0.5, 0.75]


@pytest.fixture
def answers(rng):
    """Quantiles of a student and of a teacher, [32, 2 * 3], and labels [32, 2]."""
    student, teacher = torch.tensor(rng.normal(size=(2, 32, 6)))
    return student, teacher, torch.tensor(rng.normal(size=(32, 2)))


def test_pinball_is_scikit_learn_s_level_by_level(answers):
    student, _, label = (x.numpy() for x in answers)
    expected = [
        mean_pinball_loss(label[:, number], student[:, 3 * number + place], alpha=level)
        for number in range(2)
        for place, level in enumerate(LEVELS)
    ]
    found = PinballToLabel(levels=LEVELS, weight=1.0)(answers[0], None, answers[2])
    assert found.item() == pytest.approx(np.mean(expected))
    one_by_one = pinball(*(torch.tensor(x) for x in (student, label, LEVELS)))
    np.testing.assert_allclose(
        one_by_one,
        pinball_loss(student.reshape(-1, 2, 3), label, np.array(LEVELS)).mean(axis=(1, 2)),
        rtol=1e-6,
    )


def test_the_median_s_pinball_is_half_the_absolute_error(answers):
    student, _, label = answers
    found = PinballToLabel(levels=[0.5], weight=1.0)(student[:, :2], None, label)
    assert found.item() == pytest.approx(torch.nn.functional.l1_loss(student[:, :2], label) / 2)


def test_descending_the_pinball_loss_finds_the_quantiles_of_a_sample(rng):
    label = torch.tensor(rng.exponential(size=(2000, 1)), dtype=torch.float32)
    quantiles = torch.zeros(3, requires_grad=True)
    loss, optimizer = PinballToLabel(levels=LEVELS, weight=1.0), torch.optim.Adam([quantiles], 0.02)
    for _ in range(400):
        optimizer.zero_grad()
        loss(quantiles.expand(len(label), 3), None, label).backward()
        optimizer.step()
    np.testing.assert_allclose(quantiles.detach(), np.quantile(label, LEVELS), atol=0.05)


def test_absolute_error_between_many_quantiles_is_the_wasserstein_distance(rng):
    samples = rng.normal(size=500), rng.exponential(size=500)
    levels = (np.arange(500) + 0.5) / 500
    student, teacher = (torch.tensor(np.quantile(x, levels))[None] for x in samples)
    delta = 1e-6
    found = QuantilesToTeacher(delta=delta, weight=1.0)(student, teacher, torch.zeros(1, 1))
    assert found.item() / delta == pytest.approx(wasserstein_distance(*samples), rel=0.01)


@pytest.mark.parametrize("delta", [0.5, None])
def test_quantiles_are_compared_one_by_one(answers, delta):
    student, teacher, label = answers
    found = QuantilesToTeacher(delta=delta, weight=1.0)(student, teacher, label)
    if delta is None:
        expected = torch.nn.functional.mse_loss(student, teacher) / 2
    else:
        expected = torch.nn.functional.huber_loss(student, teacher, delta=delta)
    torch.testing.assert_close(found, expected)
    assert QuantilesToTeacher(weight=1.0)(teacher, teacher, label) == 0


LOSSES = [
    pytest.param(PinballToLabel(levels=LEVELS, weight=1.0), id="label"),
    pytest.param(QuantilesToTeacher(weight=1.0), id="teacher"),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_finite_differences(loss, answers):
    student, teacher, label = answers
    assert torch.autograd.gradcheck(
        lambda output: loss(output, teacher, label), student.clone().requires_grad_()
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_inside_autocast_or_not(loss, dtype, answers):
    narrow = [(x * 100).to(dtype) for x in answers]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(*narrow)
    outside = loss(*narrow)
    assert inside.dtype == outside.dtype == torch.float32
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
    exact = loss(*(x.double() for x in narrow))
    torch.testing.assert_close(outside, exact.float(), rtol=1e-5, atol=0)


def test_a_student_without_a_quantile_for_each_level_is_refused(answers):
    student, _, label = answers
    for outputs in (student[:, :2], student[:, :3]):
        with pytest.raises(UserError, match="3 quantiles for each of 2 numbers"):
            PinballToLabel(levels=LEVELS, weight=1.0)(outputs, None, label)


def test_a_teacher_of_single_numbers_is_refused(answers):
    student, teacher, label = answers
    with pytest.raises(UserError, match="6 quantiles, as the student does, but it has 2"):
        QuantilesToTeacher(weight=1.0)(student, teacher[:, :2], label)


@pytest.mark.parametrize("levels", [[], [0.5, 0.1], [0.1, 0.1], [0, 0.5], [0.5, 1], [float("nan")]])
def test_levels_that_do_not_ascend_inside_0_to_1_are_refused(levels):
    with pytest.raises(UserError, match="levels"):
        PinballToLabel(levels=levels, weight=1.0)


def test_impossible_delta_is_refused_and_only_the_label_s_loss_needs_no_teacher():
    with pytest.raises(UserError, match="delta"):
        QuantilesToTeacher(delta=0, weight=1.0)
    assert [case.values[0].needs_teacher for case in LOSSES] == [False, True]
