import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import huber as scipy_huber

from distill.errors import UserError
from distill.training.losses.regression import (
    HuberToLabel,
    HuberToTeacher,
    OutputWeights,
    TeacherBoundedHuber,
    huber,
    teacher_bounded_huber,
)

DELTA, MARGIN = 0.7, 0.2
LOSSES = [
    pytest.param(HuberToLabel(delta=DELTA, weight=1.0), id="label"),
    pytest.param(HuberToTeacher(delta=DELTA, weight=1.0), id="teacher"),
    pytest.param(TeacherBoundedHuber(delta=DELTA, margin=MARGIN, weight=1.0), id="bounded"),
    pytest.param(HuberToLabel(delta=None, output_weights=[3, 2, 1], weight=1.0), id="squared"),
    pytest.param(HuberToTeacher(delta=DELTA, output_weights=0.5, weight=1.0), id="decay"),
]


def reference(output, goal, delta=DELTA, weights=None):
    error = np.abs(output - goal)
    inside = error**2 / 2
    outside = delta * (error - delta / 2)
    return np.average(np.where(error <= delta, inside, outside), axis=1, weights=weights)


def reference_bounded(student, teacher, label):
    losses = []
    for z, v, y in zip(student, teacher, label, strict=True):
        error, bound = scipy_huber(DELTA, z - y).mean(), scipy_huber(DELTA, v - y).mean()
        losses.append(error if error + MARGIN > bound else 0.0)
    return np.array(losses)


@pytest.fixture
def outputs(rng):
    """Student, teacher and label of 32 examples, [B, D]."""
    label = rng.normal(size=(32, 3))
    return [torch.tensor(x) for x in (*(label + rng.normal(size=(2, 32, 3))), label)]


def numbers(shape):
    return arrays(np.float64, shape, elements=st.floats(-1000, 1000))


@given(data=st.data(), shape=st.tuples(st.integers(1, 5), st.integers(1, 4)))
def test_huber_is_that_of_the_formula(data, shape):
    output, goal = data.draw(numbers(shape)), data.draw(numbers(shape))
    found = huber(torch.tensor(output), torch.tensor(goal), delta=DELTA)
    np.testing.assert_allclose(found, reference(output, goal), rtol=1e-9, atol=1e-12)


def test_terms_are_means_over_the_batch(outputs):
    student, teacher, label = (x.numpy() for x in outputs)
    expected = (
        reference(student, label).mean(),
        reference(student, teacher).mean(),
        reference_bounded(student, teacher, label).mean(),
        reference(student, label, 1e9, [3, 2, 1]).mean(),
        reference(student, teacher, weights=[4, 2, 1]).mean(),
    )
    for case, value in zip(LOSSES, expected, strict=True):
        assert case.values[0](*outputs).item() == pytest.approx(value)
    assert HuberToLabel(weight=1.0)(outputs[0], None, outputs[2]) > 0


def test_a_student_better_than_its_teacher_by_the_margin_pays_nothing(outputs):
    student, teacher, label = outputs
    losses = teacher_bounded_huber(student, teacher, label, delta=DELTA, margin=MARGIN)
    expected = reference_bounded(*(x.numpy() for x in outputs))
    np.testing.assert_allclose(losses, expected)
    assert 0 < (losses == 0).sum() < len(losses)
    wide = teacher_bounded_huber(student, teacher, label, delta=DELTA, margin=1e6)
    np.testing.assert_allclose(wide, huber(student, label, delta=DELTA))


def test_a_student_equal_to_its_teacher_pays_nothing_without_a_margin(outputs):
    _, teacher, label = outputs
    for margin, pays in ((0.0, False), (1e-3, True)):
        losses = teacher_bounded_huber(teacher, teacher, label, delta=DELTA, margin=margin)
        assert (losses > 0).all() == pays
        assert (losses == 0).all() != pays


def test_without_delta_it_is_half_the_squared_error(outputs):
    student, _, label = outputs
    squared = torch.nn.functional.mse_loss(student, label)
    found = HuberToLabel(delta=None, weight=1.0)(student, None, label)
    torch.testing.assert_close(found, squared / 2)


def test_the_teacher_is_a_bound_of_the_weighted_error():
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.8]])
    label = torch.zeros(1, 2)
    for weights, pays in (([1, 0], True), ([0, 1], False), ([1, 1], True), ([1, 2], False)):
        loss = TeacherBoundedHuber(output_weights=weights, weight=1.0)
        assert (loss(student, teacher, label) > 0) == pays


@pytest.mark.parametrize(("rate", "num_outputs"), [(0.9, 7), (1.0, 48), (1.1, 5), (0.01, 300)])
def test_one_number_weighs_each_further_output_by_a_power_of_it(rate, num_outputs):
    weights = OutputWeights(rate)(num_outputs)
    powers = rate ** np.arange(num_outputs)
    np.testing.assert_allclose(weights, powers / powers.mean(), rtol=1e-5, atol=1e-30)
    assert (weights == 1).all() == (rate == 1)


@pytest.mark.parametrize("choice", [0.8, 30.0, [0, 1, 5], [2.0, 2.0, 2.0]])
def test_weights_of_outputs_are_1_on_average(choice):
    weights = OutputWeights(choice)(3)
    assert weights.mean().item() == pytest.approx(1)
    assert torch.isfinite(OutputWeights(30.0)(500)).all()


@pytest.mark.parametrize("make", [HuberToLabel, HuberToTeacher, TeacherBoundedHuber])
def test_too_many_or_too_few_weights_are_refused_at_the_first_batch(make, outputs):
    for weights in ([1.0], [1, 1, 1, 1]):
        loss = make(output_weights=weights, weight=1.0)
        with pytest.raises(UserError, match=f"as outputs, 3, but got {len(weights)}"):
            loss(*outputs)


@pytest.mark.parametrize("choice", [0, -1.0, float("nan"), [], [0, 0], [1, -1], [1, float("inf")]])
def test_impossible_weights_of_outputs_are_refused(choice):
    with pytest.raises(UserError, match="output_weights"):
        OutputWeights(choice)


def test_weights_of_outputs_are_no_part_of_a_checkpoint():
    assert HuberToLabel(output_weights=[1, 2], weight=1.0).state_dict() == {}


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_finite_differences(loss, outputs):
    student, teacher, label = outputs
    assert torch.autograd.gradcheck(
        lambda output: loss(output, teacher, label), student.clone().requires_grad_()
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_computed_in_float32_and_finite_inside_autocast_or_not(loss, dtype, outputs):
    student, teacher, label = ((x * 100).to(dtype) for x in outputs)
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(student, teacher, label)
    outside = loss(student, teacher, label)
    outside.backward()
    assert outside.dtype == torch.float32
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
    assert torch.isfinite(student.grad).all()
    exact = loss(*(x.detach().double() for x in (student, teacher, label)))
    torch.testing.assert_close(outside, exact.float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_zero_at_the_goal_and_never_below(loss, outputs):
    student, teacher, label = outputs
    assert loss(label, label, label) == 0
    assert loss(student, teacher, label) > 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(4, 1), (3,)])
def test_outputs_that_would_broadcast_are_refused(loss, shape):
    with pytest.raises(ValueError, match="one shape"):
        loss(torch.zeros(4, 3), torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("delta", [0, -1.0, float("nan")])
@pytest.mark.parametrize("make", [HuberToLabel, HuberToTeacher, TeacherBoundedHuber])
def test_impossible_delta_is_refused(make, delta):
    with pytest.raises(UserError, match="delta"):
        make(delta=delta, weight=1.0)


def test_negative_margin_is_refused():
    with pytest.raises(UserError, match="margin"):
        TeacherBoundedHuber(margin=-0.1, weight=1.0)


def test_weight_warms_up_and_is_left_to_whoever_sums_the_terms(outputs):
    light, heavy = (HuberToTeacher(weight=w, warmup_epochs=2) for w in (0.5, 5.0))
    assert light(*outputs) == heavy(*outputs)
    assert [light.weight_at(epoch) for epoch in (0, 1, 2, 3)] == [0, 0.25, 0.5, 0.5]
    assert HuberToLabel(weight=1.0).needs_teacher is False
