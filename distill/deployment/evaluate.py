"""Scores of models and what the student gains or loses, from logits on the test set.

Knows logits and labels; knows nothing of where they were computed, which is passed along as
`measured_through`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.metrics import (
    CalibrationBin,
    Estimate,
    PairedComparison,
    calibration_bins,
    compare_paired,
    per_class_regressions,
    proportion,
    score,
)

Logits = NDArray[np.floating]

INCUMBENT = "incumbent"  # its name among the baselines


@dataclass(frozen=True, kw_only=True)
class ModelScore:
    """One model on the test set; every figure with its interval."""

    measured_through: str
    accuracy: Estimate
    macro_f1: Estimate
    nll: Estimate
    ece: Estimate
    agreement_with_teacher: Estimate | None
    calibration: list[CalibrationBin]


def score_model(
    logits: Logits,
    labels: NDArray[np.int64],
    *,
    measured_through: str,
    teacher_logits: Logits | None,
    confidence: float,
) -> ModelScore:
    """Score one model.

    Args:
        logits: [N, C].
        labels: [N].
        measured_through: what computed the logits.
        teacher_logits: [N, C]; None for the teacher itself, or without one.
        confidence: of every interval.
    """
    agreement = None
    if teacher_logits is not None:
        same = logits.argmax(axis=1) == teacher_logits.argmax(axis=1)
        agreement = proportion(same, confidence=confidence)
    return ModelScore(
        measured_through=measured_through,
        agreement_with_teacher=agreement,
        calibration=calibration_bins(logits, labels),
        **score(logits, labels, confidence=confidence),
    )


@dataclass(frozen=True, kw_only=True)
class References:
    """What the student's artefacts stand beside, besides teacher and control.

    Attributes:
        best: name of the best baseline.
        baselines: predictions of each, the incumbent's too, [N].
        humans: the vote of people, [N], -1 where nobody answered; None without annotations.
    """

    best: str
    baselines: dict[str, NDArray[np.int64]]
    humans: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How one artefact stands beside its references; paired on the same test samples.

    Attributes:
        gain_vs_control: artefact minus control.
        gain_vs_baseline: artefact minus the best baseline.
        gain_vs_incumbent: artefact minus the model now in production; None without one.
        gain_vs_humans: artefact minus the vote of people, on the samples that they answered; None
            without annotations.
        gain_vs_baselines: artefact minus each baseline.
        drop_vs_teacher: teacher minus artefact; None where the teacher has no answers.
        drop_vs_float32: the student in float32 minus artefact; None for that student itself.
    """

    gain_vs_control: PairedComparison
    gain_vs_baseline: PairedComparison
    gain_vs_incumbent: PairedComparison | None
    gain_vs_humans: PairedComparison | None
    gain_vs_baselines: dict[str, PairedComparison]
    drop_vs_teacher: PairedComparison | None
    drop_vs_float32: PairedComparison | None


def compare_with_references(
    predictions: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    control: NDArray[np.int64],
    references: References,
    teacher: NDArray[np.int64] | None,
    float32: NDArray[np.int64] | None,
    confidence: float,
) -> Margins:
    """Compare one artefact's predictions [N] with those of its references [N]."""
    right = predictions == labels

    def drop(reference: NDArray[np.int64] | None) -> PairedComparison | None:
        if reference is None:
            return None
        return compare_paired(reference == labels, right, confidence=confidence)

    gains = {
        name: compare_paired(right, answers == labels, confidence=confidence)
        for name, answers in references.baselines.items()
    }
    humans, vote = None, references.humans
    if vote is not None:
        seen = vote >= 0
        humans = compare_paired(right[seen], (vote == labels)[seen], confidence=confidence)
    return Margins(
        gain_vs_control=compare_paired(right, control == labels, confidence=confidence),
        gain_vs_baseline=gains[references.best],
        gain_vs_incumbent=gains.get(INCUMBENT),
        gain_vs_humans=humans,
        gain_vs_baselines=gains,
        drop_vs_teacher=drop(teacher),
        drop_vs_float32=drop(float32),
    )


def evaluate(
    logits: dict[str, Logits],
    labels: NDArray[np.int64],
    *,
    references: References,
    measured_through: dict[str, str],
    classes: tuple[str, ...],
    confidence: float,
) -> dict[str, Any]:
    """Evaluate teacher, control and all student artefacts.

    Args:
        logits: `control`, `student`, further artefacts of the student, and `teacher` where it has
            answers for the test set, [N, C] each.
        labels: [N].
        references: baselines and people.
        measured_through: what computed each.
        classes: names.
        confidence: of every interval.
    """
    models = {
        name: score_model(
            own,
            labels,
            measured_through=measured_through[name],
            teacher_logits=None if name == "teacher" else logits.get("teacher"),
            confidence=confidence,
        )
        for name, own in logits.items()
    }
    answers = {name: own.argmax(axis=1) for name, own in logits.items()}
    margins = {
        name: compare_with_references(
            answer,
            labels,
            control=answers["control"],
            references=references,
            teacher=answers.get("teacher"),
            float32=None if name == "student" else answers["student"],
            confidence=confidence,
        )
        for name, answer in answers.items()
        if name not in ("teacher", "control")
    }
    regressions = per_class_regressions(
        answers["student"] == labels, answers["control"] == labels, labels, classes, confidence
    )
    return {
        "num_samples": len(labels),
        "confidence": confidence,
        "models": models,
        "margins": margins,
        "per_class_vs_control": regressions,
    }
