"""What is known of a reviewed row, and what an audit says of a model and of its teacher.

Only audited rows judge. What people disagree about, and have not settled, counts against whoever is
judged: leaving it out would make the rest look better. Knows rows of the queue and logits.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.audit import evenly
from distill.production.feedback.precision import Proof, prove
from distill.production.feedback.tiers import confidences
from distill.production.prediction_log.queue import Reviewed
from distill.production.prediction_log.records import HUMAN
from distill.statistics.metrics import Estimate, proportion

DELAYED = "delayed_truth"
TEACHER = "teacher"
NOBODY = "nobody"
CONTESTED = -2  # people said something, and differ
NOT_ASKED = -1  # another version answered


@dataclass(frozen=True, kw_only=True)
class Audited:
    """An audit so far.

    Attributes:
        ids: of the rows whose truth is known or contested, [n], all drawn with one probability.
        labels: the truth, [n]; `CONTESTED` where people differ.
        predicted: by the model, [n]; -1 where another version answered, which says nothing of it.
        num_drawn: rows that were drawn.
        num_open: of them, of which nothing is known yet.
    """

    ids: list[str]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    num_drawn: int
    num_open: int

    @property
    def num_answered(self) -> int:
        """Rows that the model itself answered."""
        return int((self.predicted >= 0).sum())

    def accuracy(self, *, confidence: float) -> Estimate | None:
        """Of the model; None before anything is known."""
        own = self.predicted >= 0
        if not self.num_answered:
            return None
        return proportion(self.labels[own] == self.predicted[own], confidence=confidence)

    def proof(self, teacher_logits: NDArray[np.floating], **targets: Any) -> Proof:
        """Tell above which confidence a teacher may label; see `precision.prove`.

        Args:
            teacher_logits: of these rows, [n, C]; NaN where there is no answer.
            targets: of `prove`.
        """
        sure = confidences(teacher_logits)
        known = np.isfinite(sure)
        says = teacher_logits[known].argmax(axis=1)
        predicted = self.predicted[known]
        right, differs = says == self.labels[known], (says != predicted) & (predicted >= 0)
        return prove(sure[known], right, differs, **targets)


@dataclass(frozen=True, kw_only=True)
class Upheld:
    """How far people say what turns out later.

    Attributes:
        num_judged: labels by people of rows whose truth turned out.
        num_upheld: of them, that say the truth.
        num_contradicted: rows on which people settled, and of which something else turned out.
    """

    num_judged: int
    num_upheld: int
    num_contradicted: int


def upheld(rows: Sequence[Reviewed]) -> Upheld:
    """Hold what people said against what turned out, where it did."""
    known = [row for row in rows if row.truth is not None and row.truth_source != HUMAN]
    said = [own.label == row.truth for row in known for own in row.annotations
            if own.label is not None]  # fmt: skip
    return Upheld(
        num_judged=len(said),
        num_upheld=sum(said),
        num_contradicted=sum(row.item.label not in (None, row.truth) for row in known),
    )


def label_of(row: Reviewed) -> tuple[int, str] | None:
    """What is settled about a row, and by whom: `delayed_truth` or `human`."""
    if row.truth is not None:
        return row.truth, HUMAN if row.truth_source == HUMAN else DELAYED
    return None if row.item.label is None else (row.item.label, HUMAN)


def verdict_on(row: Reviewed) -> int | None:
    """The class that judges a row: the truth, or most people's; `CONTESTED`; None where unknown.

    It does not wait for an adjudication, which those rows alone wait for where somebody was wrong.
    """
    if row.truth is not None:
        return row.truth
    said = Counter(own.label for own in row.annotations if own.label is not None)
    if not said:
        return None
    (top, count), *_ = said.most_common(1)
    return top if top is not None and 2 * count > said.total() else CONTESTED


def judged(row: Reviewed) -> tuple[int, str] | None:
    """The class that an audited row is judged by, and who says so; None where nobody knows."""
    verdict = verdict_on(row)
    if verdict is None or verdict == CONTESTED:
        return None
    return verdict, DELAYED if row.truth is not None and row.truth_source != HUMAN else HUMAN


def audited(rows: Sequence[Reviewed], artefact_sha256: str) -> Audited:
    """Put the audited rows of a queue together.

    Args:
        rows: of the queue; chosen ones are left out.
        artefact_sha256: of the model that is judged. Rows that other versions of it answered tell
            of the teacher alone.
    """
    drawn = [row for row in rows if row.item.split == "audit"]
    probabilities = np.array([row.item.inclusion_probability for row in drawn], np.float64)
    even = evenly([row.item.prediction for row in drawn], probabilities)
    kept = [row for row, own in zip(drawn, even, strict=True) if own]
    known = [(row, label) for row in kept if (label := verdict_on(row)) is not None]
    return Audited(
        ids=[row.item.prediction for row, _ in known],
        labels=np.array([label for _, label in known], np.int64),
        predicted=np.array([_predicted(row, artefact_sha256) for row, _ in known], np.int64),
        num_drawn=len(drawn),
        num_open=sum(verdict_on(row) is None for row in drawn),
    )


def _predicted(row: Reviewed, artefact_sha256: str) -> int:
    own = row.prediction
    if own.artefact_sha256 != artefact_sha256 or own.label is None:
        return NOT_ASKED
    return own.label
