"""What every loss on logits holds, each against its oracle."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from logit_losses import CASES, T, cases, gradient

from distill.errors import UserError
from distill.tasks import TaskKind
from distill.training.losses.divergences import (
    GeneralizedJSD,
    SkewKL,
    generalized_jsd,
    skew_kl,
)
from distill.training.losses.logits import (
    cross_entropy,
    decoupled_kl,
    hard_teacher_labels,
    logit_mse,
    soft_target_kl,
    standardized_kl,
)
from distill.training.losses.multi_label import (
    binary_cross_entropy,
    binary_soft_targets,
)
from distill.training.losses.relational_logits import (
    MultiLevelKL,
)


@cases()
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_value_is_that_of_the_formula(rng, case, scale):
    student, teacher = rng.normal(size=(2, 16, 12)) * scale
    label = rng.integers(0, 12, 16)
    loss = case.make(T)
    expected = case.oracle(student, teacher, label).mean()
    found = loss(torch.tensor(student), torch.tensor(teacher), torch.tensor(label))
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, rel=1e-7)
    narrow = (torch.tensor(x, dtype=torch.float32) for x in (student, teacher))
    found = loss(*narrow, torch.tensor(label))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=2e-4)


@st.composite
def batches(draw):
    shape = (draw(st.integers(1, 5)), draw(st.integers(2, 7)))
    logits = arrays(np.float64, shape, elements=st.floats(-60, 60))
    label = arrays(np.int64, shape[:1], elements=st.integers(0, shape[1] - 1))
    return draw(logits), draw(logits), draw(label)


@cases(lambda case: case.degenerate)
@given(batch=batches())
def test_value_is_that_of_the_formula_on_any_logits(case, batch):
    student, teacher, label = batch
    found = case.make(T)(*(torch.tensor(x) for x in batch))
    expected = case.oracle(student, teacher, label).mean()
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@cases()
@given(batch=batches())
def test_value_and_gradient_are_finite_and_no_value_is_negative_on_any_logits(case, batch):
    student, teacher = (torch.tensor(x, dtype=torch.float32) for x in batch[:2])
    loss, label = case.make(T), torch.tensor(batch[2])
    value = loss(student, teacher, label)
    assert torch.isfinite(value)
    assert value > -1e-4
    assert torch.isfinite(gradient(loss, student, teacher, label)).all()


@cases()
def test_gradient_is_that_of_finite_differences(case, batch):
    student, teacher, label = batch
    loss = case.make(T)
    assert torch.autograd.gradcheck(
        lambda logits: loss(logits, teacher, label), student.clone().requires_grad_()
    )


@cases()
@pytest.mark.parametrize("scale", [100.0, 10_000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saturated_logits_give_finite_values_and_gradients(rng, case, scale, dtype):
    student, teacher = torch.tensor(rng.normal(size=(2, 16, 50)) * scale).to(dtype)
    label = torch.tensor(rng.integers(0, 50, 16))
    loss = case.make(1.0)
    value = loss(student, teacher, label)
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(gradient(loss, student, teacher, label)).all()


@cases()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(case, batch, dtype):
    student, teacher, label = batch[0].to(dtype), batch[1].to(dtype), batch[2]
    loss = case.make(T)
    exact = loss(student.double(), teacher.double(), label)
    torch.testing.assert_close(loss(student, teacher, label), exact.float(), rtol=1e-4, atol=0)


@cases()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(case, batch, dtype):
    student, teacher, label = batch[0].to(dtype), batch[1].to(dtype), batch[2]
    loss = case.make(T)
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher, label)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student, teacher, label), rtol=0, atol=0)
    expected = gradient(loss, student.detach(), teacher, label)
    torch.testing.assert_close(student.grad, expected, rtol=0, atol=0)


@cases(lambda case: case.shift)
def test_value_does_not_move_when_logits_are_shifted(case, batch):
    student, teacher, label = batch
    loss = case.make(T)
    by = torch.arange(8.0)[:, None]  # another shift for each example
    moved = loss(student + 5 * by, teacher - 3 * by, label)
    torch.testing.assert_close(moved, loss(student, teacher, label))


@cases(lambda case: case.scale)
def test_value_does_not_move_when_logits_are_scaled(case, batch):
    student, teacher, label = batch
    loss = case.make(T)
    by = torch.arange(1.0, 9.0)[:, None]
    scaled = loss(student * 5 * by, teacher / 3 * by, label)
    torch.testing.assert_close(scaled, loss(student, teacher, label), rtol=1e-5, atol=0)


@cases()
def test_order_of_classes_does_not_matter(case, batch, rng):
    student, teacher, label = batch
    order = torch.tensor(rng.permutation(6))
    loss = case.make(T)
    moved = loss(student[:, order], teacher[:, order], order.argsort()[label])
    torch.testing.assert_close(moved, loss(student, teacher, label))


@cases()
def test_order_of_examples_does_not_matter(case, batch, rng):
    order = torch.tensor(rng.permutation(8))
    loss = case.make(T)
    torch.testing.assert_close(loss(*(x[order] for x in batch)), loss(*batch))


@cases(lambda case: case.teacher)
@pytest.mark.parametrize("scale", [0.0, 3.0, 100.0])
def test_value_and_gradient_are_zero_when_student_equals_teacher(case, batch, scale):
    logits, label = batch[1].float() * scale, batch[2]
    loss = case.make(T)
    assert loss(logits, logits, label).abs() < 1e-5
    assert gradient(loss, logits, logits, label).abs().max() < 1e-5


@cases(lambda case: case.teacher)
def test_value_is_positive_when_student_differs_from_teacher(case, batch):
    assert case.make(T)(*batch) > 0.1


@cases(lambda case: case.temperature and case.constant_gradient)
def test_size_of_the_gradient_hardly_depends_on_the_temperature(case, batch):
    student, teacher, label = batch[0] / 10, batch[1] / 10, batch[2]
    low, high = (gradient(case.make(t), student, teacher, label).norm() for t in (8.0, 32.0))
    assert low.item() == pytest.approx(high.item(), rel=0.1)


@cases(lambda case: case.teacher)
def test_unequal_shapes_are_refused(case):
    with pytest.raises(ValueError, match="one shape"):
        case.make(T)(torch.zeros(4, 10), torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))


@cases(lambda case: case.temperature)
@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_impossible_temperature_is_refused(case, temperature):
    with pytest.raises(UserError, match="temperature"):
        case.make(temperature)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GeneralizedJSD(beta=1.1, temperature=1.0, weight=1.0),
        lambda: GeneralizedJSD(beta=-0.1, temperature=1.0, weight=1.0),
        lambda: SkewKL(alpha=1.0, temperature=1.0, weight=1.0),
        lambda: SkewKL(alpha=-0.1, temperature=1.0, weight=1.0),
        lambda: MultiLevelKL(temperatures=[], weight=1.0),
        lambda: MultiLevelKL(temperatures=[4.0, 0.0], weight=1.0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(UserError, match="Expected"):
        make()


@cases()
def test_the_weight_is_left_to_whoever_sums_the_terms(case, batch):
    loss = case.make(T)
    before = loss(*batch)
    loss.weight = 0.25
    assert loss(*batch) == before
    assert loss.weight_at(1.0) == 0.25


def test_module_is_the_mean_of_the_pure_function(batch):
    student, teacher, label = batch
    per_example = {
        "kd": soft_target_kl(student, teacher, T),
        "standardized": standardized_kl(student, teacher, T),
        "decoupled": decoupled_kl(student, teacher, label, alpha=1.5, beta=8.0, temperature=T),
        "mse": logit_mse(student, teacher),
        "binary": binary_soft_targets(student, teacher, T),
        "binary_labels": binary_cross_entropy(student, label),
        "cross_entropy": cross_entropy(student, label),
        "hard": hard_teacher_labels(student, teacher),
        "jsd 0.5": generalized_jsd(student, teacher, beta=0.5, temperature=T),
        "skew 0.1 reverse": skew_kl(student, teacher, alpha=0.1, reverse=True, temperature=T),
    }
    for name, losses in per_example.items():
        expected = CASES[name].oracle(*(x.numpy() for x in batch))
        np.testing.assert_allclose(losses, expected, err_msg=name)
        assert CASES[name].make(T)(*batch) == losses.mean()


def test_losses_that_look_at_labels_alone_say_so():
    alone = {name for name, case in CASES.items() if not case.make(T).needs_teacher}
    assert alone == {"cross_entropy", "binary_labels"}


@cases()
def test_a_loss_that_a_shift_of_all_outputs_leaves_alone_is_of_classes_alone(case):
    # Of numbers, and of labels that hold or not by themselves, the shift is what matters.
    of_labels = set() if case.shift else {TaskKind.MULTI_LABEL}
    assert case.make(T).kinds == {TaskKind.CLASSIFICATION} | of_labels


@cases(lambda case: case.shift)
def test_of_a_single_output_such_a_loss_teaches_nothing(case, rng):
    student, teacher = torch.tensor(rng.normal(size=(2, 8, 1)))
    found = gradient(case.make(T), student, teacher, torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-6, rtol=0)
