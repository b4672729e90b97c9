"""What the log holds: predictions, the truth that came later, and inputs that did not fit.

Plain values. Knows nothing of databases, of threads, or of who decides what from them.
"""

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["champion", "challenger", "shadow", "fallback"]
Outcome = Literal["ok", "error", "timeout", "rejected"]
Odd = Literal["own", "champion", "both"]

LABEL = "label"  # the name of the feedback that says which class it was
HUMAN = "human"  # source of the feedback that people's annotations become
TRUTH = "truth."  # and then the number of an output: likewise, of numbers and of several labels

_ID = re.compile(r"[0-9a-f]{30}")


def new_id(time_s: float | None = None) -> str:
    """Make an id that nobody can guess and that sorts by time: inserts go to an index's end.

    Args:
        time_s: UTC, in seconds since 1970; None is now.

    Returns:
        Microseconds in 14 hexadecimal digits, then 64 random bits in 16.
    """
    now_us = time.time_ns() // 1000 if time_s is None else int(time_s * 1e6)
    return f"{now_us:014x}{secrets.token_hex(8)}"


def is_id(text: str) -> bool:
    """Whether a text could be an id of ours."""
    return _ID.fullmatch(text) is not None


def time_of(prediction_id: str) -> float:
    """When an id was made: UTC, in seconds since 1970."""
    return int(prediction_id[:14], 16) / 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One answer of one model to one row.

    Attributes:
        request: joins the answers of champion and shadow to the same row. Made by the service and
            never taken from a client, who may send the same one twice; one for each row of a batch.
        model: its name, or a path.
        version: in the registry; None for a plain path.
        artefact_sha256: of the file that answered.
        role: in which the model answered; `fallback` answers in the place of a challenger.
        latency_ms: from the whole request to the answer.
        output: the first output's row, float32; empty where there is none.
        outcome: how it ended.
        experiment: None outside of any.
        stage: the step of the ramp, whose weights are its own.
        unit: who is assigned, always to the same model; None where nobody is known and the request
            of this one row stands for itself.
        input: one row, as .npy or encoded columns; None where nobody kept it.
        input_sha256: of the row, which may stand in its place.
        label: the predicted class; None for numbers and for failures.
        confidence: of that class, from 0 to 1.
        odd: whose training has not seen a value of the input: the model's own, that of the champion
            beside which it is tried, or that of both; None where each value was seen.
        detail: what went wrong; it is kept as it is, so it must not quote the input.
        time: UTC, in seconds since 1970.
        id: handed to whoever asked, to say the truth later.
    """

    request: str
    model: str
    version: int | None
    artefact_sha256: str
    role: Role
    latency_ms: float
    output: bytes = b""
    outcome: Outcome = "ok"
    experiment: str | None = None
    stage: str | None = None
    unit: str | None = None
    input: bytes | None = None
    input_sha256: str | None = None
    label: int | None = None
    confidence: float | None = None
    odd: Odd | None = None
    detail: str | None = None
    time: float = field(default_factory=time.time)
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Feedback:
    """What turned out later.

    Attributes:
        prediction: its id.
        name: `label`, or of a numeric outcome such as `click` or `revenue`.
        label: the true class, for `label` alone.
        value: of a numeric outcome.
        source: who says so, such as `human` or `api`.
        time: UTC, in seconds since 1970.
    """

    prediction: str
    name: str = LABEL
    label: int | None = None
    value: float | None = None
    source: str = "api"
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True, slots=True)
class Skew:
    """Inputs that were answered but are not what the model was trained on, of one kind and column.

    Attributes:
        model: that was asked.
        kind: `gap`, or `category` of one that training has not seen.
        column: of a table, or the input's name.
        count: how many rows.
        version: None for a plain path.
        time: UTC, in seconds since 1970; of the first.
        id: of this count.
    """

    model: str
    kind: str
    column: str
    count: int
    version: int | None = None
    time: float = field(default_factory=time.time)
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueItem:
    """A prediction that people shall label.

    Attributes:
        prediction: its id.
        split: `audit` rows were drawn at random and alone may judge; `active` ones were chosen.
        reason: for which it is here: a strategy's name, or `audit`.
        classes_sha256: of the names that labels count through.
        priority: who has the largest comes first.
        tier: that a teacher put it in; None without one.
        score: of the strategy.
        inclusion_probability: with which it was drawn; None where it was chosen.
        num_wanted: how many people shall say a class.
        num_extra: how many more, since people, or one of them and a teacher, contradict each other.
        teacher_label: what the teacher says.
        teacher_confidence: of it, from 0 to 1.
        label: that people settled on.
        time: UTC, in seconds since 1970.
    """

    prediction: str
    split: Literal["audit", "active"]
    reason: str
    classes_sha256: str
    priority: float
    tier: str | None = None
    score: float | None = None
    inclusion_probability: float | None = None
    num_wanted: int = 1
    num_extra: int = 0
    teacher_label: int | None = None
    teacher_confidence: float | None = None
    label: int | None = None
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """What one person says of one prediction.

    Attributes:
        prediction: its id.
        annotator: who.
        label: the class; None where it was skipped.
        lead_time_s: that it took.
        time: UTC, in seconds since 1970.
    """

    prediction: str
    annotator: str
    label: int | None
    lead_time_s: float | None = None
    time: float = field(default_factory=time.time)


Record = Prediction | Skew
