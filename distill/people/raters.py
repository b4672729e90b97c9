"""How good people are at a task, and how far they agree, with intervals.

Works on counts by sample and class and on single answers; knows nothing of files or of models. What
people say of one sample hangs together, so intervals are over samples, never over answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.people.agreement import Counts, cohen_by_weight, fleiss_by_weight, majority_vote
from distill.people.annotations import Annotations
from distill.statistics.metrics import Estimate, bootstrap, proportion


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
    annotations: Annotations, labels: NDArray[np.int64], num_classes: int, *, confidence: float
) -> tuple[HumanScore, NDArray[np.int64]]:
    """Score what people said of a split.

    Args:
        annotations: of some of its samples.
        labels: the truth, [N].
        num_classes: C.
        confidence: of every interval.

    Returns:
        The figures, and the vote on every sample, [N], -1 where nobody answered.
    """
    table = annotations.table(len(labels), num_classes)
    answered = np.flatnonzero(table.sum(axis=1))
    counts, truth = table[answered], labels[answered]
    winners, ties = majority_vote(counts)
    vote = np.full(len(labels), -1)
    vote[answered] = winners
    score = HumanScore(
        num_samples=len(answered),
        num_annotations=int(counts.sum()),
        num_left_out=annotations.num_left_out,
        num_ties=int(ties.sum()),
        single=_single(counts, truth, confidence),
        majority=proportion(winners == truth, confidence=confidence),
        per_annotator=_each(annotations, labels, confidence),
        cohen_kappa=_two(annotations, num_classes, confidence),
        fleiss_kappa=_many(counts, confidence),
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
    confidence: float,
) -> Estimate:
    """One person's answer minus a reference's, in accuracy, paired on the samples with answers.

    Args:
        annotations: of some samples of a split.
        labels: the truth, [N].
        reference: class numbers, [N].
        num_classes: C.
        confidence: of the interval, a bootstrap over samples.
    """
    table = annotations.table(len(labels), num_classes)
    answered = np.flatnonzero(table.sum(axis=1))
    counts, truth = table[answered], labels[answered]
    right, total = counts[np.arange(len(counts)), truth], counts.sum(axis=1)
    other = (reference[answered] == truth).astype(float)

    def gain(weights: NDArray[Any]) -> NDArray[Any]:
        return weights @ right / (weights @ total) - weights @ other / weights.sum(axis=1)

    return bootstrap({"gain": gain}, len(counts), confidence)["gain"]


def _single(counts: Counts, truth: NDArray[np.int64], confidence: float) -> Estimate:
    right, total = counts[np.arange(len(counts)), truth], counts.sum(axis=1)
    if (right == total).all() or not right.any():  # no spread: see `metrics.score`
        return proportion(right > 0, confidence=confidence)
    accuracy = {"accuracy": lambda w: w @ right / (w @ total)}
    return bootstrap(accuracy, len(counts), confidence)["accuracy"]


def _each(
    annotations: Annotations, labels: NDArray[np.int64], confidence: float
) -> list[Annotator]:
    if annotations.annotators is None:
        return []
    right = annotations.labels == labels[annotations.samples]
    people = []
    for name in np.unique(annotations.annotators):
        own = right[annotations.annotators == name]
        accuracy = proportion(own, confidence=confidence)
        people.append(Annotator(name=str(name), num_samples=len(own), accuracy=accuracy))
    return people


def _two(annotations: Annotations, num_classes: int, confidence: float) -> Estimate | None:
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
    return _kappa(cohen_by_weight(first, second, num_classes), len(both), confidence)


def _many(counts: Counts, confidence: float) -> Estimate | None:
    if (counts.sum(axis=1) > 1).sum() < 2:
        return None
    return _kappa(fleiss_by_weight(counts), len(counts), confidence)


def _kappa(
    kappa: Callable[[NDArray[Any]], NDArray[Any]], n: int, confidence: float
) -> Estimate | None:
    """Estimate a kappa; None where it is not defined."""
    if np.isnan(kappa(np.ones((1, n)))[0]):
        return None
    return bootstrap({"kappa": kappa}, n, confidence)["kappa"]
