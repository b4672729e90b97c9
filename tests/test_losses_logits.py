"""Losses on logits, all of them in one table, against the papers' formulas in NumPy and SciPy."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax

from distill.errors import UserError
from distill.training.losses.divergences import (
    GeneralizedJSD,
    SkewKL,
    generalized_jsd,
    skew_kl,
)
from distill.training.losses.logits import (
    CrossEntropy,
    DecoupledKL,
    HardTeacherLabels,
    LogitMSE,
    SoftTargetKL,
    StandardizedKL,
    cross_entropy,
    decoupled_kl,
    hard_teacher_labels,
    logit_mse,
    soft_target_kl,
    standardized_kl,
)
from distill.training.losses.multi_label import (
    BinaryCrossEntropy,
    BinarySoftTargets,
    binary_cross_entropy,
    binary_soft_targets,
)
from distill.training.losses.relational_logits import (
    CorrelationLoss,
    MultiLevelKL,
    correlation_loss,
    multi_level_kl,
)


def reference_kl(student, teacher, temperature):
    p = softmax(teacher / temperature, axis=1)
    gap = log_softmax(teacher / temperature, axis=1) - log_softmax(student / temperature, axis=1)
    return (p * gap).sum(axis=1) * temperature**2


def reference_standardized(student, teacher, temperature):
    def z_score(x):
        mean = x.mean(axis=1, keepdims=True)
        std = np.sqrt(((x - mean) ** 2).mean(axis=1, keepdims=True))
        return (x - mean) / (std + 1e-7)

    return reference_kl(z_score(student), z_score(teacher), temperature)


def reference_decoupled(student, teacher, label, alpha, beta, temperature):
    losses = []
    for z, v, k in zip(student / temperature, teacher / temperature, label, strict=True):
        others = np.arange(len(z)) != k

        def two_way(x, k=k, others=others):
            return np.array([x[k], logsumexp(x[others])]) - logsumexp(x)

        target = np.exp(two_way(v)) @ (two_way(v) - two_way(z))
        rest_z, rest_v = log_softmax(z[others]), log_softmax(v[others])
        losses.append(alpha * target + beta * (np.exp(rest_v) @ (rest_v - rest_z)))
    return np.array(losses) * temperature**2


def reference_mse(student, teacher):
    z = student - student.mean(axis=1, keepdims=True)
    v = teacher - teacher.mean(axis=1, keepdims=True)
    return ((z - v) ** 2).mean(axis=1)


def reference_binary(student, teacher, temperature):
    z, v = student / temperature, teacher / temperature
    p = expit(v)
    cross = -(p * log_expit(z) + expit(-v) * log_expit(-z))
    entropy = -(p * log_expit(v) + expit(-v) * log_expit(-v))
    return (cross - entropy).sum(axis=1) * temperature**2


def log_mix(log_p, log_q, share):
    if share in (0, 1):
        return log_p if share else log_q
    return np.logaddexp(np.log(share) + log_p, np.log(1 - share) + log_q)


def plain_kl(log_p, log_q):
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


def reference_jsd(student, teacher, beta, temperature):
    p, q = log_softmax(teacher / temperature, axis=1), log_softmax(student / temperature, axis=1)
    if beta in (0, 1):
        return (plain_kl(q, p) if beta else plain_kl(p, q)) * temperature**2
    m = log_mix(p, q, beta)
    return (beta * plain_kl(p, m) + (1 - beta) * plain_kl(q, m)) * temperature**2


def reference_skew(student, teacher, alpha, reverse, temperature):
    p, q = log_softmax(teacher / temperature, axis=1), log_softmax(student / temperature, axis=1)
    if reverse:
        return plain_kl(q, log_mix(p, q, 1 - alpha)) * temperature**2
    return plain_kl(p, log_mix(p, q, alpha)) * temperature**2


def reference_correlation(student, teacher, beta, gamma, temperature):
    q, p = softmax(student / temperature, axis=1), softmax(teacher / temperature, axis=1)
    rows = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)]
    columns = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)]
    return (beta * np.mean(rows) + gamma * np.mean(columns)) * temperature**2


def reference_multi_level(student, teacher, temperatures):
    total = 0.0
    size, classes = student.shape
    for temperature in temperatures:
        q, p = softmax(student / temperature, axis=1), softmax(teacher / temperature, axis=1)
        total += reference_kl(student, teacher, temperature).mean()
        for a in range(size):
            for b in range(size):
                total += (p[a] @ p[b] - q[a] @ q[b]) ** 2 / size
        for a in range(classes):
            for b in range(classes):
                total += (p[:, a] @ p[:, b] - q[:, a] @ q[:, b]) ** 2 / classes
    return total / len(temperatures)


def reference_cross_entropy(logits, label):
    return -log_softmax(logits, axis=1)[np.arange(len(label)), label]


def reference_binary_labels(logits, label):
    y = np.eye(logits.shape[1])[label]
    return -(y * log_expit(logits) + (1 - y) * log_expit(-logits)).sum(axis=1)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A loss, its oracle on (student, teacher, label), and what it is invariant to."""

    make: Callable[[float], torch.nn.Module]  # from a temperature
    oracle: Callable[..., np.ndarray]
    temperature: bool = True  # has one at all
    constant_gradient: bool = True  # for small logits, whatever the temperature
    shift: bool = True
    scale: bool = False
    teacher: bool = True  # 0 where student and teacher agree
    degenerate: bool = True  # the oracle holds for constant rows and columns as well


T = 2.5
CASES = {
    "kd": Case(
        make=lambda t: SoftTargetKL(temperature=t, weight=1.0),
        oracle=lambda z, v, y: reference_kl(z, v, T),
    ),
    "standardized": Case(
        make=lambda t: StandardizedKL(temperature=t, weight=1.0),
        oracle=lambda z, v, y: reference_standardized(z, v, T),
        scale=True,
        degenerate=False,  # 1e-16 of rounding is divided by 1e-7
    ),
    "decoupled": Case(
        make=lambda t: DecoupledKL(alpha=1.5, beta=8.0, temperature=t, weight=1.0),
        oracle=lambda z, v, y: reference_decoupled(z, v, y, 1.5, 8.0, T),
    ),
    "mse": Case(
        make=lambda t: LogitMSE(weight=1.0),
        oracle=lambda z, v, y: reference_mse(z, v),
        temperature=False,
    ),
    "binary": Case(
        make=lambda t: BinarySoftTargets(temperature=t, weight=1.0),
        oracle=lambda z, v, y: reference_binary(z, v, T),
        shift=False,
    ),
    "correlation": Case(
        make=lambda t: CorrelationLoss(beta=1.5, gamma=0.5, temperature=t, weight=1.0),
        oracle=lambda z, v, y: reference_correlation(z, v, 1.5, 0.5, T),
        constant_gradient=False,
        degenerate=False,  # a constant has no correlation
    ),
    "multi_level": Case(
        make=lambda t: MultiLevelKL(temperatures=[t, t + 1, 2 * t], weight=1.0),
        oracle=lambda z, v, y: reference_multi_level(z, v, [T, T + 1, 2 * T]),
    ),
    "cross_entropy": Case(
        make=lambda t: CrossEntropy(weight=1.0),
        oracle=lambda z, v, y: reference_cross_entropy(z, y),
        temperature=False,
        teacher=False,
    ),
    "hard": Case(
        make=lambda t: HardTeacherLabels(weight=1.0),
        oracle=lambda z, v, y: reference_cross_entropy(z, v.argmax(axis=1)),
        temperature=False,
        teacher=False,
    ),
    "binary_labels": Case(
        make=lambda t: BinaryCrossEntropy(weight=1.0),
        oracle=lambda z, v, y: reference_binary_labels(z, y),
        temperature=False,
        shift=False,
        teacher=False,
    ),
}
for beta in (0.0, 0.1, 0.5, 1.0):
    CASES[f"jsd {beta}"] = Case(
        make=lambda t, b=beta: GeneralizedJSD(beta=b, temperature=t, weight=1.0),
        oracle=lambda z, v, y, b=beta: reference_jsd(z, v, b, T),
    )
for alpha, reverse in ((0.0, False), (0.1, False), (0.0, True), (0.1, True)):
    CASES[f"skew {alpha}{' reverse' if reverse else ''}"] = Case(
        make=lambda t, a=alpha, r=reverse: SkewKL(alpha=a, reverse=r, temperature=t, weight=1.0),
        oracle=lambda z, v, y, a=alpha, r=reverse: reference_skew(z, v, a, r, T),
    )


def cases(keep=lambda case: True):
    kept = [pytest.param(case, id=name) for name, case in CASES.items() if keep(case)]
    return pytest.mark.parametrize("case", kept)


@pytest.fixture
def batch(rng):
    """Eight examples of six classes, [B, C], [B, C] and [B]."""
    student, teacher = rng.normal(size=(2, 8, 6)) * 3
    return torch.tensor(student), torch.tensor(teacher), torch.tensor(rng.integers(0, 6, 8))


def gradient(loss, student, teacher, label):
    student = student.clone().requires_grad_()
    loss(student, teacher, label).backward()
    return student.grad


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


def test_gradient_of_the_correlation_loss_grows_with_the_temperature(batch):
    # A correlation does not see the factor 1 / T of soft labels near the uniform distribution.
    case, (student, teacher, label) = CASES["correlation"], batch
    low, high = (
        gradient(case.make(t), student / 10, teacher / 10, label).norm() for t in (8.0, 32.0)
    )
    assert (high / low).item() == pytest.approx(16, rel=0.05)


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


@pytest.mark.parametrize("name", ["correlation", "multi_level"])
def test_losses_on_relations_depend_on_the_batch(batch, name):
    loss = CASES[name].make(T)
    halves = [loss(*(x[half] for x in batch)) for half in (slice(4), slice(4, 8))]
    assert (loss(*batch) - sum(halves) / 2).abs() > 0.01


def test_losses_that_look_at_labels_alone_say_so():
    alone = {name for name, case in CASES.items() if not case.make(T).needs_teacher}
    assert alone == {"cross_entropy", "binary_labels"}


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


def test_jsd_is_symmetric_and_bounded_at_a_half(batch):
    student, teacher, _ = batch
    there, back = (
        generalized_jsd(a, b, beta=0.5, temperature=1.0)
        for a, b in ((student * 100, teacher * 100), (teacher * 100, student * 100))
    )
    torch.testing.assert_close(there, back)
    assert there.max() <= np.log(2) + 1e-9


@pytest.mark.parametrize(("beta", "reverse"), [(0.0, False), (1.0, True)])
def test_jsd_over_its_share_tends_to_forward_and_reverse_kl(batch, beta, reverse):
    # Agarwal et al., 2024: JSD(beta) / beta -> KL(teacher || student) as beta -> 0, and mirrored.
    student, teacher, _ = batch
    near = generalized_jsd(student, teacher, beta=abs(beta - 1e-6), temperature=2.0) / 1e-6
    end = generalized_jsd(student, teacher, beta=beta, temperature=2.0)
    plain = skew_kl(student, teacher, alpha=0.0, reverse=reverse, temperature=2.0)
    torch.testing.assert_close(end, plain)
    torch.testing.assert_close(near, end, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_skew_kl_is_bounded(batch, reverse):
    student, teacher, _ = batch
    losses = skew_kl(student * 1000, teacher * 1000, alpha=0.1, reverse=reverse, temperature=1.0)
    assert losses.max() == pytest.approx(np.log(10), rel=1e-6)


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
