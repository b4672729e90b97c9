"""What inputs and answers looked like when a model was made: what monitoring compares against.

Histograms have fixed edges, so that those of another day can be laid over them; quantiles are for
reading. Knows arrays and models; knows nothing of files, nor of what counts as a drift.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.runtime import OnnxModel
from distill.statistics.metrics import log_softmax
from distill.statistics.scoring import Scoring, Truth
from distill.tables.columns import Column, Kind, Records, is_missing
from distill.tasks import Task, TaskKind

VERSION = 1
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
NUM_BINS = 32
DECILES = tuple(i / 10 for i in range(1, 10))
NUM_VALUES = 50  # of a category, the commonest
EMBEDDINGS = "predictions/reference_embeddings.npz"  # beside the figures, where there are any
NUM_EMBEDDED = 500  # rows, of which there is one for each of production's that it is held against

_LUMA = {1: np.ones(1), 3: np.array([0.299, 0.587, 0.114])}  # ITU-R BT.601
TOPS = {"brightness": 255.0, "contrast": 128.0, "sharpness": 6.0}  # upper edges of histograms

Figures = dict[str, Any]


def input_statistics(parts: Iterable[NDArray[np.uint8]]) -> Figures:
    """Describe images, given piece by piece, [n, H, W, C] uint8 each with C of 1 or 3.

    Brightness is the mean and contrast the standard deviation of an image's luma, in gray levels;
    sharpness is the decimal logarithm of 1 plus the variance of its Laplacian (Pech-Pacheco et al.,
    "Diatom autofocusing in brightfield microscopy", 2000).
    """
    pixels: NDArray[np.int64] | None = None
    found: list[NDArray[np.float64]] = []
    for part in parts:
        channels = part.shape[3]
        if pixels is None:
            pixels = np.zeros((channels, 256), np.int64)
        for channel in range(channels):
            pixels[channel] += np.bincount(part[..., channel].ravel(), minlength=256)
        found.append(looks(part))
    assert pixels is not None, "there is always a validation image"
    stacked = np.concatenate(found, axis=1)
    return {
        "count": stacked.shape[1],
        "channels": [_channel(counts) for counts in pixels],
        **{
            name: _distribution(values, TOPS[name])
            for name, values in zip(TOPS, stacked, strict=True)
        },
    }


def column_statistics(columns: Sequence[Column], records: Records) -> Figures:
    """Describe a table's columns: gaps, quantiles, shares.

    Of a category the shares of its commonest values; of numbers and dates those between each two of
    their deciles here, between which those of another day can be counted.

    Args:
        columns: of the records.
        records: [N]; of a window every step counts.
    """
    return {
        "count": len(records),
        "columns": {own.name: _column(own, records[own.name].ravel()) for own in columns},
    }


def _column(column: Column, values: NDArray[Any]) -> Figures:
    gap = is_missing(column, values)
    own: Figures = {"kind": str(column.kind), "gaps": float(gap.mean())}
    if column.kind is Kind.CATEGORY:
        names, counts = np.unique(values, return_counts=True)
        commonest = np.argsort(-counts, kind="stable")[:NUM_VALUES]
        shown = {str(names[i]): float(counts[i] / len(values)) for i in commonest}
        return own | {"num_values": len(names), "shares": shown}
    present = values[~gap].astype(np.float64)
    if not len(present):
        return own | {"mean": None, "std": None, "quantiles": None, "edges": [], "shares": []}
    edges = np.unique(np.quantile(present, DECILES))
    counts = np.bincount(np.searchsorted(edges, present, side="right"), minlength=len(edges) + 1)
    levels = dict(zip(map(str, QUANTILES), np.quantile(present, QUANTILES).tolist(), strict=True))
    return own | {
        "mean": float(present.mean()),
        "std": float(present.std()),
        "quantiles": levels,
        "edges": edges.tolist(),
        "shares": (counts / len(present)).tolist(),
    }


def output_statistics(
    answers: NDArray[np.floating], truth: Truth, task: Task, scoring: Scoring, *, confidence: float
) -> Figures:
    """Describe a model's answers, and how good they are.

    Args:
        answers: logits [N, C], or numbers [N, D] in their own units.
        truth: of the same samples.
        task: what is asked for.
        scoring: of the task.
        confidence: of the intervals.
    """
    good = scoring.score(answers, truth, confidence=confidence)
    known = {"count": len(answers), "metric": scoring.metric, scoring.metric: good[scoring.metric]}
    if task.kind is TaskKind.CLASSIFICATION:
        return known | _class_statistics(answers)
    if task.kind is TaskKind.MULTI_LABEL:
        given = (answers > 0).mean(axis=0)
        return known | {"given_shares": dict(zip(task.outputs, given.tolist(), strict=True))}
    return known | {"outputs": _numbers(task.answers, answers)}


def _numbers(names: Sequence[str], values: NDArray[np.floating]) -> Figures:
    columns = [Column(name=name, kind=Kind.NUMBER) for name in names]
    pairs = zip(columns, values.astype(np.float64).T, strict=True)
    return {column.name: _column(column, own) for column, own in pairs}


def _class_statistics(logits: NDArray[np.floating]) -> Figures:
    """Describe logits [N, C].

    Entropy is in units of that of a uniform answer, so that it ends at 1; the margin is between the
    two largest probabilities.
    """
    log_probabilities = log_softmax(logits)
    probabilities = np.exp(log_probabilities)
    num_classes = logits.shape[1]
    entropy = -(probabilities * log_probabilities).sum(axis=1) / np.log(max(num_classes, 2))
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    answers = logits.argmax(axis=1)
    return {
        "predicted_shares": shares(answers, num_classes),
        "confidence": _distribution(first, 1.0),
        "entropy": _distribution(entropy, 1.0),
        "margin": _distribution(first - second, 1.0),
    }


def embeddings(model: OnnxModel, inputs: NDArray[Any], *, seed: int = 0) -> NDArray[np.float32]:
    """Give a model's penultimate features of some rows, drawn at random, [n, D].

    Rows are run one by one: of a model quantised as it runs, a batch decides how they are rounded.

    Args:
        model: that has such an output.
        inputs: [N, ...], or records of a table, [N]; `NUM_EMBEDDED` of them at most are run.
        seed: of the draw.
    """
    drawn = np.random.default_rng(seed).permutation(len(inputs))[:NUM_EMBEDDED]
    return model.embed(inputs[np.sort(drawn)], batch_size=1)


def shares(classes: NDArray[np.int64], num_classes: int) -> list[float]:
    """Give the share of each class among [N] class numbers."""
    return (np.bincount(classes, minlength=num_classes) / len(classes)).tolist()


def reference(
    inputs: Figures,
    models: Mapping[str, Figures],
    labels: NDArray[Any],
    task: Task,
) -> Figures:
    """Put together what monitoring needs.

    Args:
        inputs: of `input_statistics`.
        models: artefact's file name to its `output_statistics`.
        labels: of the same samples, see `TaskKind`.
        task: what is asked for.
    """
    if task.kind is TaskKind.REGRESSION:
        known: Figures = {"labels": _numbers(task.outputs, labels)}
    elif task.kind is TaskKind.MULTI_LABEL:
        known = {"label_shares": labels.mean(axis=0).tolist()}
    else:
        known = {"label_shares": shares(labels, len(task.outputs))}
    return {
        "schema_version": VERSION,
        "count": len(labels),
        "task": task.kind,
        "classes": list(task.outputs),
        **known,
        "inputs": inputs,
        "models": dict(models),
    }


def looks(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Brightness, contrast and sharpness of each image, [3, n]."""
    gray = images @ _LUMA[images.shape[3]]  # [n, H, W]
    flat = gray.reshape(len(gray), -1)
    inner = gray[:, 1:-1, 1:-1]
    around = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
    laplacian = (around - 4 * inner).reshape(len(gray), -1)
    sharpness = laplacian.var(axis=1) if laplacian.size else np.zeros(len(gray))
    return np.stack([flat.mean(axis=1), flat.std(axis=1), np.log10(1 + sharpness)])


def _channel(counts: NDArray[np.int64]) -> Figures:
    share, levels = counts / counts.sum(), np.arange(256)
    mean = float(share @ levels)
    return {
        "mean": mean,
        "std": float(np.sqrt(share @ (levels - mean) ** 2)),
        "histogram": _histogram(share.reshape(NUM_BINS, -1).sum(axis=1), 256.0),
    }


def _distribution(values: NDArray[np.float64], top: float) -> Figures:
    clipped = np.clip(values, 0, top)
    counts, _ = np.histogram(clipped, bins=NUM_BINS, range=(0, top))
    levels = dict(zip(map(str, QUANTILES), np.quantile(values, QUANTILES).tolist(), strict=True))
    return {
        "mean": float(values.mean()),
        "quantiles": levels,
        "histogram": _histogram(counts / len(values), top),
    }


def _histogram(share: NDArray[np.float64], top: float) -> Figures:
    """Shares of `NUM_BINS` equal bins from 0 to `top`."""
    return {"top": top, "shares": share.tolist()}
