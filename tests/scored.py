"""Two models' answers to made-up rows of each task, the first of which are the better ones."""

import numpy as np
from scipy import stats

from distill.statistics.scoring import Classes, Labels, Numbers, Quantiles, Truth
from distill.tasks import Task, TaskKind, classification

UNITS = np.array([0.01, 1000.0])
PAIR = Task(
    kind=TaskKind.REGRESSION, outputs=("share", "price"), mean=(0.0, 0.0), scale=tuple(UNITS)
)
ALONE = Task(kind=TaskKind.REGRESSION, outputs=("price",), mean=(0.0,), scale=(1000.0,))
STEPS = Task(
    kind=TaskKind.REGRESSION,
    outputs=("1", "2", "3"),
    mean=(0.0,) * 3,
    scale=(7.0,) * 3,
    has_one_unit=True,
)
LEVELS = (0.1, 0.5, 0.8)
RANGES = Task(
    kind=TaskKind.REGRESSION, outputs=("share", "price"), mean=(0.0, 0.0), scale=tuple(UNITS),
    quantiles=LEVELS,
)  # fmt: skip
TAGS = Task(kind=TaskKind.MULTI_LABEL, outputs=tuple("abcde"))
CLASSES = classification("abcd")


def classes(rng, n=200):
    """Logits of two models and labels of four classes."""
    labels = rng.integers(0, 4, n)
    first = rng.normal(size=(n, 4)) + 2 * np.eye(4)[labels]
    return first, rng.normal(size=(n, 4)) + np.eye(4)[labels], Truth(labels=labels)


def tags(rng, n=150):
    """Logits of two models and five labels, not all alike common."""
    labels = (rng.random((n, 5)) < [0.5, 0.3, 0.2, 0.1, 0.6]).astype(np.float32)
    first, second = (rng.normal(size=(n, 5)) + s * (2 * labels - 1) for s in (1.5, 0.5))
    return first, second, Truth(labels=labels)


def numbers(rng, units, n=150, **more):
    """Answers of two models and labels, in their own units."""
    labels = (rng.normal(size=(n, len(units))) * units).astype(np.float32)
    first, second = (labels + s * rng.normal(size=labels.shape) * units for s in (0.3, 0.6))
    return first, second, Truth(labels=labels, **more)


def forecasts(rng, n=120):
    """Forecasts of three steps, of series that move by more or less in training."""
    naive = rng.choice([0.5, 2.0, 8.0], n)
    return numbers(rng, np.ones(3), n, naive_error=naive, blocks=np.arange(n) // 4)


def ranges(rng):
    """Quantiles of two numbers in their own units, of errors of these sizes."""
    first, second, truth = numbers(rng, UNITS)
    spread = np.outer(UNITS, stats.norm.ppf(LEVELS))  # [D, Q]
    pair = (a[..., None] + s * spread for a, s in ((first, 0.3), (second, 0.6)))
    return *(own.reshape(len(own), -1) for own in pair), truth


EVERY = {
    "accuracy": (Classes(4), classes),
    "label_accuracy": (Labels(), tags),
    "rmse": (Numbers(PAIR, "rmse"), lambda rng: numbers(rng, UNITS)),
    "mae": (Numbers(PAIR, "mae"), lambda rng: numbers(rng, UNITS)),
    "mase": (Numbers(STEPS, "mase"), forecasts),
    "pinball": (Quantiles(RANGES), ranges),
}
