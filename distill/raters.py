"""How good people are at a task, and how far they agree: votes and kappas in NumPy.

Works on counts by sample and class and on single answers; knows nothing of files or of models. What
people say of one sample hangs together, so intervals are over samples, never over answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.annotations import Annotations
from distill.metrics import Estimate, bootstrap, proportion

Counts = NDArray[np.int64]  # [n, C]: how many people said what of each sample


def majority_vote(counts: Counts, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Take the class that most people say, [n], and tell where several have as many, [n].

    A tie is broken at random among those that tie, so that no class is favoured; the same seed
    breaks it alike.
    """
    most = counts == counts.max(axis=1, keepdims=True)
    chance = np.random.default_rng(seed).random(counts.shape)
    return np.where(most, chance, -1.0).argmax(axis=1), most.sum(axis=1) > 1


def cohen_kappa(first: NDArray[np.int64], second: NDArray[np.int64], num_classes: int) -> float:
    """Agreement of two people beyond chance, (p_o - p_e) / (1 - p_e).

    Cohen, "A coefficient of agreement for nominal scales", 1960. NaN where both always give one
    and the same class.

    Args:
        first: class numbers, [n].
        second: the other's, [n].
        num_classes: C.
    """
    return float(_cohen(first, second, num_classes)(np.ones((1, len(first))))[0])


def fleiss_kappa(counts: Counts) -> float:
    """Agreement of many people beyond chance, each sample by any number of them.

    Fleiss, "Measuring nominal scale agreement among many raters", 1971; for unequal numbers of
    raters as in Gwet, "Handbook of Inter-Rater Reliability", 2014: agreement is the mean over the
    samples with two answers or more, a class's share the mean of its shares over all samples. With
    equal numbers it is Fleiss' own. NaN where all say one class.
    """
    return float(_fleiss(counts)(np.ones((1, len(counts))))[0])


def _cohen(
    first: NDArray[np.int64], second: NDArray[np.int64], num_classes: int
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    one, other = np.eye(num_classes)[first], np.eye(num_classes)[second]  # [n, C]
    same = (first == second).astype(float)

    def kappa(weights: NDArray[Any]) -> NDArray[Any]:
        total = weights.sum(axis=1)
        by_chance = ((weights @ one) * (weights @ other)).sum(axis=1) / total**2
        return _beyond(weights @ same / total, by_chance)

    return kappa


def _fleiss(counts: Counts) -> Callable[[NDArray[Any]], NDArray[Any]]:
    raters = counts.sum(axis=1)
    several = (raters > 1).astype(float)
    pairs = np.maximum(raters * (raters - 1), 1)
    agreement = (counts * (counts - 1)).sum(axis=1) / pairs  # [n]
    shares = counts / raters[:, None]

    def kappa(weights: NDArray[Any]) -> NDArray[Any]:
        classes = weights @ shares / weights.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            observed = weights @ agreement / (weights @ several)
        return _beyond(observed, (classes**2).sum(axis=1))

    return kappa


def _beyond(observed: NDArray[Any], by_chance: NDArray[Any]) -> NDArray[Any]:
    nothing = np.full(observed.shape, np.nan)
    certain = by_chance > 1 - 1e-12  # one class alone: agreement says nothing
    return np.divide(observed - by_chance, 1 - by_chance, out=nothing, where=~certain)


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
    if (right == total).all() or not right.any():  # no spread: see `distill.metrics.score`
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
    return _kappa(_cohen(first, second, num_classes), len(both), confidence)


def _many(counts: Counts, confidence: float) -> Estimate | None:
    if (counts.sum(axis=1) > 1).sum() < 2:
        return None
    return _kappa(_fleiss(counts), len(counts), confidence)


def _kappa(
    kappa: Callable[[NDArray[Any]], NDArray[Any]], n: int, confidence: float
) -> Estimate | None:
    """Estimate a kappa; None where it is not defined."""
    if np.isnan(kappa(np.ones((1, n)))[0]):
        return None
    return bootstrap({"kappa": kappa}, n, confidence)["kappa"]
