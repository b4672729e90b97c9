"""What a model answered, out of the log: logits, labels and times of every row, inputs on demand.

Inputs are most of a log's bytes; they are read for the rows that somebody asks about alone. Knows
the log; knows nothing of what is chosen.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.production.feedback.model import BATCH, Model
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.reader import inputs_of, stream
from distill.production.prediction_log.records import LABEL
from distill.production.prediction_log.scope import Scope


@dataclass(frozen=True, kw_only=True)
class Told:
    """A row that another version answered, and what turned out of it."""

    id: str
    time: float
    truth: int


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Rows that a model answered itself, in the order of time.

    Attributes:
        ids: of the predictions, [N].
        times: UTC, in seconds since 1970, [N].
        units: of whom, [N]; an unknown one is the request.
        logits: [N, C].
        labels: the answered classes, [N].
        truths: what turned out, [N]; -1 where nothing has.
        sources: who said so, [N]; empty where nobody has.
        hashes: of the input where the log keeps that instead, [N].
        told: rows of versions that are alike, whose truth is known, in the order of time.
        num_others: rows of other models, of shadows, and failures.
        num_ahead: rows whose time has not come yet, which wait.
    """

    ids: list[str]
    times: NDArray[np.float64]
    units: list[str]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    truths: NDArray[np.int64]
    sources: list[str]
    hashes: list[str | None]
    told: list[Told]
    num_others: int
    num_ahead: int

    def __len__(self) -> int:
        return len(self.ids)


def read_log(engine: Engine, model: Model, *, since: float | None, until: float) -> Answers:
    """Read what a model answered; what comes in meanwhile waits for the next time.

    Args:
        engine: an open log.
        model: whose answers.
        since: UTC, in seconds since 1970; None is from the beginning.
        until: exclusive.

    Raises:
        UserError: there is nothing of this model.
        LogUnavailableError: the database cannot be read now.
    """
    width, others = len(model.classes), Counter[str]()
    rows, told, num_ahead, num_other = [], [], 0, 0
    for logged in stream(engine, Scope(since=since), inputs=False):
        own = logged.prediction
        truth = next((f for f in logged.feedback if f.name == LABEL), None)
        is_answer = own.outcome == "ok" and own.role != "shadow" and len(own.output) == 4 * width
        is_answer = is_answer and own.label is not None
        if own.artefact_sha256 != model.sha256:
            others[f"{own.model} ({own.artefact_sha256[:12]})"] += 1
            counts = is_answer and own.time < until and own.artefact_sha256 in model.alike
            if counts and truth is not None and truth.label is not None:
                told.append(Told(id=own.id, time=own.time, truth=truth.label))
        elif not is_answer:
            num_other += 1
        elif own.time >= until:
            num_ahead += 1
        else:
            rows.append((own, truth))
    if not rows:
        raise _nothing(model, others, num_other, num_ahead)
    logits = np.frombuffer(b"".join(own.output for own, _ in rows), "<f4").reshape(-1, width)
    return Answers(
        ids=[own.id for own, _ in rows],
        times=np.array([own.time for own, _ in rows]),
        units=[own.unit or own.request for own, _ in rows],
        logits=logits,
        labels=np.array([own.label for own, _ in rows], np.int64),
        truths=np.array([-1 if t is None else t.label for _, t in rows], np.int64),
        sources=["" if t is None else t.source for _, t in rows],
        hashes=[own.input_sha256 for own, _ in rows],
        told=told,
        num_others=sum(others.values()) + num_other,
        num_ahead=num_ahead,
    )


def read_inputs(engine: Engine, ids: Sequence[str]) -> Iterator[tuple[list[str], list[bytes]]]:
    """Read inputs piece by piece; predictions whose input was not kept are left out.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    for start in range(0, len(ids), BATCH):
        asked = ids[start : start + BATCH]
        found = inputs_of(engine, asked)
        known = [one for one in asked if one in found]
        if known:
            yield known, [found[one] for one in known]


def hash_of(data: bytes) -> str:
    """What equal inputs have in common."""
    return hashlib.sha256(data).hexdigest()


def _nothing(model: Model, others: Counter[str], num_other: int, num_ahead: int) -> UserError:
    wanted = f"Expected predictions of {model.path} ({model.sha256[:12]}) in the log but "
    if others:
        known = ", ".join(f"{count:,} of {name}" for name, count in others.most_common(5))
        return UserError(f"{wanted}it has {known}. Name the artefact that answered: `artefact=`.")
    if num_other or num_ahead:
        return UserError(
            f"{wanted}of {num_other + num_ahead:,} rows {num_other:,} are failures, shadows or of "
            f"other classes and {num_ahead:,} are of a time to come. See whether the clocks are "
            "right, and what the service says."
        )
    return UserError(f"{wanted}it is empty. Serve the model with this log first: `log.url=`.")
