"""How good people are at a task, and how far they agree, with intervals.

Works on counts by sample and class and on single answers; knows nothing of files or of models. What
people say of one sample hangs together, so intervals are over samples, or blocks of them, never
over answers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.people.agreement import (
    Counts,
    Sums,
    cohen_by_weight,
    fleiss_by_weight,
    majority_vote,
)
from distill.people.annotations import Annotations
from distill.statistics.metrics import Estimate, bootstrap
from distill.statistics.resampling import Blocks, share

Names = NDArray[Any] | None  # of the samples' blocks


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """One person's answers."""

    name: str
    num_samples: int
    accuracy: Estimate


@dataclass(frozen=True, kw_only=True)
class HumanScore:
    """People on the samples that they answered; None is unknown.

    Attributes:
        num_samples: with an answer.
        num_annotations: answers.
        num_left_out: answers that were cancelled or are empty.
        num_ties: samples on which the vote is one.
        single: accuracy of one person's answer, over all answers.
        majority: accuracy of the vote; a tie is broken at random.
        per_annotator: each person, where known.
        cohen_kappa: where there are two, on the samples that both answered.
        fleiss_kappa: where samples have several answers.
        median_seconds: an answer takes.
    """

    num_samples: int
    num_annotations: int
    num_left_out: int
    num_ties: int
    single: Estimate
    majority: Estimate
    per_annotator: list[Annotator]
    cohen_kappa: Estimate | None
    fleiss_kappa: Estimate | None
    median_seconds: float | None


def score_humans(
    annotations: Annotations,
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    blocks: Names = None,
    confidence: float,
) -> tuple[HumanScore, NDArray[np.int64]]:
    """Score what people said of a split.

    Args:
        annotations: of some of its samples.
        labels: the truth, [N].
        num_classes: C.
        blocks: of the split's samples, [N], see `Truth`.
        confidence: of every interval.

    Returns:
        The figures, and the vote on every sample, [N], -1 where nobody answered.
    """
    table = annotations.table(len(labels), num_classes)
    answered = np.flatnonzero(table.sum(axis=1))
    counts, truth, some = table[answered], labels[answered], _of(blocks, answered)
    winners, ties = majority_vote(counts)
    vote = np.full(len(labels), -1)
    vote[answered] = winners
    score = HumanScore(
        num_samples=len(answered),
        num_annotations=int(counts.sum()),
        num_left_out=annotations.num_left_out,
        num_ties=int(ties.sum()),
        single=_single(counts, truth, some, confidence),
        majority=share(winners == truth, blocks=some, confidence=confidence),
        per_annotator=_each(annotations, labels, blocks, confidence),
        cohen_kappa=_two(annotations, num_classes, blocks, confidence),
        fleiss_kappa=_many(counts, some, confidence),
        median_seconds=None
        if annotations.seconds is None
        else float(np.median(annotations.seconds)),
    )
    return score, vote


def gain_of_single(
    annotations: Annotations,
    labels: NDArray[np.int64],
    reference: NDArray[np.int64],
    num_classes: int,
    *,
    blocks: Names = None,
    confidence: float,
) -> Estimate:
    """One person's answer minus a reference's, in accuracy, paired on the samples with answers.

    Args:
        annotations: of some samples of a split.
        labels: the truth, [N].
        reference: class numbers, [N].
        num_classes: C.
        blocks: of the split's samples, [N], see `Truth`.
        confidence: of the interval, a bootstrap over samples, or blocks of them.
    """
    table = annotations.table(len(labels), num_classes)
    answered = np.flatnonzero(table.sum(axis=1))
    counts, truth = table[answered], labels[answered]
    sums, num_units = _units(len(counts), _of(blocks, answered))
    right, total = sums(counts[np.arange(len(counts)), truth]), sums(counts.sum(axis=1))
    other, sizes = sums((reference[answered] == truth).astype(float)), sums(np.ones(len(counts)))

    def gain(weights: NDArray[Any]) -> NDArray[Any]:
        return weights @ right / (weights @ total) - weights @ other / (weights @ sizes)

    found = bootstrap({"gain": gain}, num_units, confidence)["gain"]
    low, high = found.interval
    return replace(found, interval=(max(low, -1.0), min(high, 1.0)))  # of one block unbounded


def _of(blocks: Names, samples: NDArray[np.int64]) -> Names:
    return None if blocks is None else blocks[samples]


def _units(num_samples: int, blocks: Names) -> tuple[Sums, int]:
    """Say what is drawn as one: how its samples are added up, and how many there are."""
    if blocks is None:
        return np.asarray, num_samples
    rows = Blocks(num_samples, blocks)
    return rows.sums, rows.num_groups


def _single(counts: Counts, truth: NDArray[np.int64], blocks: Names, confidence: float) -> Estimate:
    right, total = counts[np.arange(len(counts)), truth], counts.sum(axis=1)
    if (right == total).all() or not right.any():  # no spread: see `metrics.score`
        return share(right > 0, blocks=blocks, confidence=confidence)
    sums, num_units = _units(len(counts), blocks)
    right, total = sums(right), sums(total)
    accuracy = {"accuracy": lambda w: w @ right / (w @ total)}
    return bootstrap(accuracy, num_units, confidence)["accuracy"]


def _each(
    annotations: Annotations, labels: NDArray[np.int64], blocks: Names, confidence: float
) -> list[Annotator]:
    if annotations.annotators is None:
        return []
    right = annotations.labels == labels[annotations.samples]
    people = []
    for name in np.unique(annotations.annotators):
        own = annotations.annotators == name
        some = _of(blocks, annotations.samples[own])
        accuracy = share(right[own], blocks=some, confidence=confidence)
        people.append(Annotator(name=str(name), num_samples=int(own.sum()), accuracy=accuracy))
    return people


def _two(
    annotations: Annotations, num_classes: int, blocks: Names, confidence: float
) -> Estimate | None:
    people = [] if annotations.annotators is None else np.unique(annotations.annotators)
    if len(people) != 2:
        return None
    said = []
    for name in people:
        own = annotations.annotators == name
        said.append(dict(zip(annotations.samples[own], annotations.labels[own], strict=True)))
    both = sorted(said[0].keys() & said[1].keys())
    if len(both) < 2:
        return None
    first, second = (np.array([answers[sample] for sample in both]) for answers in said)
    sums, num_units = _units(len(both), _of(blocks, np.array(both)))
    return _kappa(cohen_by_weight(first, second, num_classes, sums), num_units, confidence)


def _many(counts: Counts, blocks: Names, confidence: float) -> Estimate | None:
    if (counts.sum(axis=1) > 1).sum() < 2:
        return None
    sums, num_units = _units(len(counts), blocks)
    return _kappa(fleiss_by_weight(counts, sums), num_units, confidence)


def _kappa(
    kappa: Callable[[NDArray[Any]], NDArray[Any]], n: int, confidence: float
) -> Estimate | None:
    """Estimate a kappa; None where it is not defined."""
    if np.isnan(kappa(np.ones((1, n)))[0]):
        return None
    found = bootstrap({"kappa": kappa}, n, confidence)["kappa"]
    # It is not defined in some draws, such as of one class, and one block says nothing of others.
    is_known = np.isfinite(found.interval).all()
    return found if is_known else replace(found, interval=(-1.0, 1.0))
