"""Losses on logits in one table, with the papers' formulas in NumPy and SciPy as oracles."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, log_softmax, logsumexp, softmax

from distill.training.losses.divergences import (
    GeneralizedJSD,
    SkewKL,
)
from distill.training.losses.logits import (
    CrossEntropy,
    DecoupledKL,
    HardTeacherLabels,
    LogitMSE,
    SoftTargetKL,
    StandardizedKL,
)
from distill.training.losses.multi_label import (
    BinaryCrossEntropy,
    BinarySoftTargets,
)
from distill.training.losses.relational_logits import (
    CorrelationLoss,
    MultiLevelKL,
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


def gradient(loss, student, teacher, label):
    student = student.clone().requires_grad_()
    loss(student, teacher, label).backward()
    return student.grad
