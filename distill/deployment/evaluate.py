"""Scores of models and what the student gains or loses, from answers to the test set.

Knows answers and labels; knows nothing of where they were computed, which is passed along as
`measured_through`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.deployment.naive import gains_over_naive
from distill.statistics.class_metrics import calibration_bins, per_class_regressions
from distill.statistics.metrics import Estimate
from distill.statistics.scoring import Paired, Scoring, Truth
from distill.tasks import Task, TaskKind

Answers = NDArray[np.floating]
Marks = NDArray[Any]

INCUMBENT = "incumbent"  # its name among the baselines


@dataclass(frozen=True, kw_only=True)
class References:
    """What the student's artefacts stand beside, besides teacher and control.

    Attributes:
        best: name of the best baseline.
        baselines: answers of each, the incumbent's too, as `score_baselines` returns them.
        humans: the vote of people, [N], -1 where nobody answered; None without annotations.
    """

    best: str
    baselines: dict[str, NDArray[Any]]
    humans: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How one artefact stands beside its references; paired on the same test samples.

    Every figure is a gain as of `Scoring.compare`, a drop the gain of the other side.

    Attributes:
        gain_vs_control: of the artefact over the control.
        gain_vs_baseline: over the best baseline.
        gain_vs_incumbent: over the model now in production; None without one.
        gain_vs_humans: over the vote of people, on the samples that they answered; None without
            annotations.
        gain_vs_baselines: over each baseline.
        drop_vs_teacher: of the teacher over the artefact; None where the teacher has no answers.
        drop_vs_float32: of the student in float32; None for that student itself.
    """

    gain_vs_control: Paired
    gain_vs_baseline: Paired
    gain_vs_incumbent: Paired | None
    gain_vs_humans: Paired | None
    gain_vs_baselines: dict[str, Paired]
    drop_vs_teacher: Paired | None
    drop_vs_float32: Paired | None


def evaluate(
    answers: dict[str, Answers],
    truth: Truth,
    scoring: Scoring,
    *,
    references: References,
    measured_through: dict[str, str],
    task: Task,
    confidence: float,
) -> dict[str, Any]:
    """Evaluate teacher, control and all student artefacts.

    Args:
        answers: of `control`, `student`, further artefacts of the student, and `teacher` where it
            can answer for the test set, [N, C] each: logits, or numbers in their own units.
        truth: of the test set.
        scoring: of the task.
        references: baselines and people.
        measured_through: what computed each.
        task: what is asked for.
        confidence: of every interval.
    """
    models = {
        name: {
            "measured_through": measured_through[name],
            "agreement_with_teacher": _agreement(scoring, name, answers, truth, confidence),
            "calibration": _calibration(task, own, truth),
            **scoring.score(own, truth, confidence=confidence),
        }
        for name, own in answers.items()
    }
    marks = {name: scoring.marks(own, truth) for name, own in answers.items()}
    beside = {name: scoring.marks(own, truth) for name, own in references.baselines.items()}
    margins = {
        name: _margins(scoring, marks, beside, references, truth, name, confidence)
        for name in marks
        if name not in ("teacher", "control")
    }
    return {
        "num_samples": len(truth.labels),
        "confidence": confidence,
        "metric": scoring.metric,
        "figures": scoring.figures,
        "quantiles": task.quantiles,
        "units": _units(task),
        "models": models,
        "margins": margins,
        "per_class_vs_control": _per_class(task, marks, truth, confidence),
        "naive": gains_over_naive(scoring, marks, beside, truth, confidence=confidence),
        "by_output": _by_output(task, scoring, answers | _numbers(task, references), truth),
    }


@dataclass(frozen=True, kw_only=True)
class OldTest:
    """What a model gives up on the world as it was.

    Attributes:
        metric: of the scores.
        num_samples: of the former test set.
        scores: of each artefact that may ship, and of the model in production, where it was asked.
        drops: of the model in production over each artefact; empty where it was not asked.
    """

    metric: str
    num_samples: int
    scores: dict[str, Any]
    drops: dict[str, Paired]


def on_old_test(
    answers: dict[str, Answers],
    incumbent: Answers | None,
    truth: Truth,
    scoring: Scoring,
    *,
    confidence: float,
) -> OldTest:
    """Hold artefacts against the model in production on what was the test set before.

    Args:
        answers: of each artefact, [N, C].
        incumbent: likewise; None where it was not asked.
        truth: of the former test set.
        scoring: of the task.
        confidence: of every interval.
    """
    everyone = answers if incumbent is None else answers | {INCUMBENT: incumbent}
    metric, drops = scoring.metric, {}
    if incumbent is not None:
        before = scoring.marks(incumbent, truth)
        drops = {
            name: scoring.compare(
                before, scoring.marks(own, truth), blocks=truth.blocks, confidence=confidence
            )
            for name, own in answers.items()
        }
    return OldTest(
        metric=metric,
        num_samples=len(truth.labels),
        scores={
            name: scoring.score(own, truth, confidence=confidence)[metric]
            for name, own in everyone.items()
        },
        drops=drops,
    )


def _margins(
    scoring: Scoring,
    marks: Mapping[str, Marks],
    beside: Mapping[str, Marks],
    references: References,
    truth: Truth,
    name: str,
    confidence: float,
) -> Margins:
    own = marks[name]

    def gain(first: Marks, second: Marks) -> Paired:
        return scoring.compare(first, second, blocks=truth.blocks, confidence=confidence)

    gains = {other: gain(own, theirs) for other, theirs in beside.items()}
    humans, vote = None, references.humans
    if vote is not None:
        seen = vote >= 0
        right = (vote == truth.labels)[seen]
        some = None if truth.blocks is None else truth.blocks[seen]
        humans = scoring.compare(own[seen], right, blocks=some, confidence=confidence)
    return Margins(
        gain_vs_control=gain(own, marks["control"]),
        gain_vs_baseline=gains[references.best],
        gain_vs_incumbent=gains.get(INCUMBENT),
        gain_vs_humans=humans,
        gain_vs_baselines=gains,
        drop_vs_teacher=gain(marks["teacher"], own) if "teacher" in marks else None,
        drop_vs_float32=None if name == "student" else gain(marks["student"], own),
    )


def _agreement(
    scoring: Scoring, name: str, answers: Mapping[str, Answers], truth: Truth, confidence: float
) -> Estimate | None:
    if name == "teacher" or "teacher" not in answers:
        return None
    pair = answers[name], answers["teacher"]
    return scoring.agreement(*pair, blocks=truth.blocks, confidence=confidence)


def _calibration(task: Task, answers: Answers, truth: Truth) -> list[Any]:
    if task.kind is not TaskKind.CLASSIFICATION:
        return []
    return list(calibration_bins(answers, truth.labels))


def _per_class(
    task: Task, marks: Mapping[str, Marks], truth: Truth, confidence: float
) -> list[Any]:
    if task.kind is not TaskKind.CLASSIFICATION:
        return []
    pair = marks["student"], marks["control"]
    given: dict[str, Any] = {"blocks": truth.blocks, "confidence": confidence}
    return list(per_class_regressions(*pair, truth.labels, task.outputs, **given))


def _numbers(task: Task, references: References) -> dict[str, Answers]:
    """Name the best baseline's answers, where it gives more than a class."""
    best = references.baselines[references.best]
    return {} if task.kind is TaskKind.CLASSIFICATION else {"baseline": best}


def _units(task: Task) -> dict[str, float]:
    """What each number's errors are divided by, before they are put together; none if nothing."""
    unit = task.unit if task.kind is TaskKind.REGRESSION else np.ones(1)
    return {} if (unit == 1).all() else dict(zip(task.outputs, unit.tolist(), strict=True))


def _by_output(
    task: Task, scoring: Scoring, answers: Mapping[str, Answers], truth: Truth
) -> dict[str, Any]:
    """Give the metric of each label, number or step of the horizon; none where there is one."""
    if task.kind is TaskKind.CLASSIFICATION or len(task.outputs) == 1:
        return {}
    marks = {name: scoring.marks(own, truth) for name, own in answers.items()}
    values = {
        name: [scoring.value(part) for part in np.split(own, len(task.outputs), axis=1)]
        for name, own in marks.items()
    }
    return {"outputs": task.outputs, "values": values}
