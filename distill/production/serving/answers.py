"""What a model's numbers mean to people, by task: labels, confidence, quantiles, in their units.

Knows a contract; knows nothing of how it was asked.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.contract import Contract
from distill.statistics.metrics import log_softmax
from distill.tasks import Task, TaskKind

MAX_SHOWN = 10  # classes, of those with the largest probabilities


def decided(contract: Contract | None, outputs: NDArray[Any]) -> list[tuple[int, float]] | None:
    """Name the class of each row of logits, [N, C], and its probability; None of other tasks."""
    if contract is None or contract.asks.kind is not TaskKind.CLASSIFICATION:
        return None
    if len(outputs) == 1:  # NumPy takes five times as long for so few
        logits = outputs[0].tolist()
        largest = max(logits)
        total = sum(math.exp(logit - largest) for logit in logits)
        return [(logits.index(largest), 1 / total)]
    labels = outputs.argmax(axis=1)
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    confidences = 1 / np.exp(shifted).sum(axis=1)
    return list(zip(labels.tolist(), confidences.tolist(), strict=True))


def said(contract: Contract, outputs: NDArray[Any]) -> list[dict[str, Any]]:
    """Say what each row of the first output, [N, C], means.

    Of classes `label`, `confidence` and `probabilities`; of several labels `labels` and
    `probabilities`; of numbers `prediction` by name, and where there are any `quantiles`.
    """
    task = contract.asks
    say = {
        TaskKind.CLASSIFICATION: _class,
        TaskKind.MULTI_LABEL: _labels,
        TaskKind.REGRESSION: _numbers,
    }[task.kind]
    return [say(task, row) for row in np.asarray(outputs, np.float64)]


def _class(task: Task, logits: NDArray[np.float64]) -> dict[str, Any]:
    probabilities = np.exp(log_softmax(logits[None])[0])
    likeliest = np.argsort(-probabilities, kind="stable")[:MAX_SHOWN]
    return {
        "label": task.outputs[likeliest[0]],
        "confidence": float(probabilities[likeliest[0]]),
        "probabilities": {task.outputs[i]: float(probabilities[i]) for i in likeliest},
    }


def _labels(task: Task, logits: NDArray[np.float64]) -> dict[str, Any]:
    probabilities = np.exp(-np.logaddexp(0, -logits))
    return {
        "labels": [task.outputs[i] for i in np.flatnonzero(logits > 0)],
        "probabilities": dict(zip(task.outputs, map(float, probabilities), strict=True)),
    }


def _numbers(task: Task, values: NDArray[np.float64]) -> dict[str, Any]:
    if not task.quantiles:
        return {"prediction": dict(zip(task.outputs, map(float, values), strict=True))}
    rows = task.ascending(values[None])[0].reshape(len(task.outputs), -1)
    by_number = dict(zip(task.outputs, rows, strict=True))
    return {
        "prediction": {name: float(own[task.middle]) for name, own in by_number.items()},
        "quantiles": {
            name: dict(zip(map(str, task.quantiles), map(float, own), strict=True))
            for name, own in by_number.items()
        },
    }
