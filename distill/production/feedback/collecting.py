"""From a survey to the rows of a dataset version: who labels what, and what that weighs.

People and the truth that turned out come first; a proven teacher adds its answers where the model
says otherwise, up to a share; rows that nobody spoke of go along for the teacher that is trained
next. Knows the log; knows nothing of files.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.audit import place_of
from distill.dataset_versions import ACTIVE, AUDIT, NO_LABEL, UNLABELLED, Rows
from distill.errors import UserError
from distill.production.feedback.logged import Told, hash_of, read_inputs
from distill.production.feedback.model import Model
from distill.production.feedback.survey import Survey
from distill.production.feedback.tiers import Tier, capped, confidences
from distill.production.feedback.verdicts import DELAYED, NOBODY, TEACHER, judged, label_of
from distill.production.prediction_log.connection import Engine


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What was collected.

    Attributes:
        rows: with inputs.
        num_without_input: labelled rows whose input was not kept.
        num_leaks: chosen rows that are left out, since their input is in the audit, too.
        num_teacher_left_out: answers of the teacher beyond its share.
    """

    rows: Rows
    num_without_input: int
    num_leaks: int
    num_teacher_left_out: int


@dataclass(frozen=True, kw_only=True)
class _Row:
    prediction: str
    time: float
    label: int
    source: str
    split: str
    weight: float = 1.0
    inclusion_probability: float = np.nan


def collect(
    engine: Engine, seen: Survey, *, max_teacher_share: float, max_unlabelled: int = 0
) -> Collected:
    """Put together what is labelled.

    Args:
        engine: an open log.
        seen: of it.
        max_teacher_share: of the labelled rows that are trained on, that the teacher labels alone.
        max_unlabelled: rows that nobody spoke of; another draw takes the same ones.

    Raises:
        UsageError: the share is none.
        UserError: nothing is labelled, or no labelled row has an input.
        LogUnavailableError: the database cannot be read now.
    """
    said = [*_queued(seen), *_turned_out(seen)]
    inputs = dict(_inputs(engine, [row.prediction for row in said]))
    audit = {hash_of(inputs[r.prediction]) for r in said if r.split == AUDIT and _has(inputs, r)}
    kept = [row for row in said if _has(inputs, row)]
    clean = [r for r in kept if r.split == AUDIT or hash_of(inputs[r.prediction]) not in audit]
    num_active = sum(row.split == ACTIVE for row in clean)
    taught = _taught(engine, seen, num_active, max_teacher_share, audit)
    inputs |= taught.inputs
    labelled = [*clean, *taught.rows]
    if not labelled:
        raise UserError(_nothing(len(said)))
    spoken = {row.prediction for row in taught.rows}
    unsaid, more = _unsaid(engine, seen, spoken, max_unlabelled, audit)
    inputs |= more
    rows = sorted([*labelled, *unsaid], key=lambda row: (row.time, row.prediction))
    return Collected(
        rows=_stacked(seen, rows, inputs, taught.logits),
        num_without_input=len(said) - len(kept),
        num_leaks=len(kept) - len(clean),
        num_teacher_left_out=taught.num_left_out,
    )


@dataclass(frozen=True, kw_only=True)
class _Taught:
    rows: list[_Row]
    inputs: dict[str, bytes]
    logits: dict[str, Any]
    num_left_out: int


def _queued(seen: Survey) -> list[_Row]:
    rows = []
    for own in seen.queue.values():
        is_audit = own.item.split == AUDIT
        if is_audit and seen.since is not None and own.prediction.time < seen.since:
            continue  # it judges how things are in the days that are looked back
        label = judged(own) if is_audit else label_of(own)
        if label is not None:
            probability = own.item.inclusion_probability
            row = _Row(
                prediction=own.item.prediction,
                time=own.prediction.time,
                label=label[0],
                source=label[1],
                split=own.item.split,
                inclusion_probability=np.nan if probability is None else probability,
            )
            rows.append(row)
    return rows


def _turned_out(seen: Survey) -> list[_Row]:
    """Give rows that nobody was asked about, and whose truth came by itself.

    Whichever version answered: the truth is none of its doing.
    """
    answers = seen.answers
    own = [
        Told(id=answers.ids[i], time=float(answers.times[i]), truth=int(answers.truths[i]))
        for i in np.flatnonzero(answers.truths >= 0)
    ]
    return [
        _Row(prediction=one.id, time=one.time, label=one.truth, source=DELAYED, split=ACTIVE)
        for one in (*own, *answers.told)
        if one.id not in seen.queue
    ]


def _taught(
    engine: Engine, seen: Survey, num_others: int, share: float, audit: set[str]
) -> _Taught:
    """Give the teacher's answers where it is proven, sure, and contradicts the model."""
    level = None if seen.proof is None else seen.proof.level
    sure = [i for i, tier in enumerate(seen.tiers) if tier is Tier.SOFT_LABEL]
    logits = {seen.answers.ids[seen.pool[i]]: _logits(seen, i) for i in sure}
    inputs = {
        one: data for one, data in _inputs(engine, list(logits)) if hash_of(data) not in audit
    }
    ids = [one for one in logits if one in inputs]
    confident = confidences(np.array([logits[i] for i in ids])) if ids else np.zeros(0)
    taken = [ids[i] for i in capped(confident, num_others, share)]
    time_of = dict(zip(seen.answers.ids, seen.answers.times.tolist(), strict=True))
    rows = [
        _Row(
            prediction=one,
            time=time_of[one],
            label=NO_LABEL,
            source=TEACHER,
            split=ACTIVE,
            weight=0.0 if level is None else level.differing_lower_bound,
        )
        for one in taken
    ]
    return _Taught(rows=rows, inputs=inputs, logits=logits, num_left_out=len(ids) - len(taken))


def _unsaid(
    engine: Engine, seen: Survey, taught: set[str], count: int, audit: set[str]
) -> tuple[list[_Row], dict[str, bytes]]:
    """Draw rows of the pool that nobody spoke of, by a hash of their ids."""
    places = {seen.answers.ids[i]: i for i in seen.pool.tolist()}
    ids = sorted({*places} - taught, key=lambda one: place_of(f"unlabelled {one}"))[:count]
    inputs = {one: data for one, data in _inputs(engine, ids) if hash_of(data) not in audit}
    rows = [
        _Row(
            prediction=one,
            time=float(seen.answers.times[places[one]]),
            label=NO_LABEL,
            source=NOBODY,
            split=UNLABELLED,
        )
        for one in inputs
    ]
    return rows, inputs


def _logits(seen: Survey, row: int) -> Any:
    assert seen.teacher_logits is not None
    return seen.teacher_logits[row]


def _inputs(engine: Engine, ids: list[str]) -> Any:
    for known, rows in read_inputs(engine, ids):
        yield from zip(known, rows, strict=True)


def _has(inputs: dict[str, bytes], row: _Row) -> bool:
    return row.prediction in inputs


def _stacked(
    seen: Survey, rows: list[_Row], inputs: dict[str, bytes], logits: dict[str, Any]
) -> Rows:
    model: Model = seen.model
    nothing = np.full(len(model.classes), np.nan, np.float32)
    return Rows(
        ids=np.array([row.prediction for row in rows], np.str_),
        times=np.array([row.time for row in rows], np.float64),
        inputs=model.inputs([inputs[row.prediction] for row in rows]),
        labels=np.array([row.label for row in rows], np.int64),
        teacher_logits=np.array(
            [logits.get(r.prediction, nothing) if r.source == TEACHER else nothing for r in rows],
            np.float32,
        ),
        sources=np.array([row.source for row in rows], np.str_),
        weights=np.array([row.weight for row in rows], np.float64),
        inclusion_probabilities=np.array([r.inclusion_probability for r in rows], np.float64),
        splits=np.array([row.split for row in rows], np.str_),
    )


def _nothing(num_labelled: int) -> str:
    if num_labelled:
        return (
            f"Expected inputs of the {num_labelled:,} labelled predictions but the log keeps none. "
            "Serve with `log.inputs=keep`; what is labelled still counts in monitoring."
        )
    return (
        "Expected labelled predictions but there is none yet. Label some on the page /review of "
        "`serve`, import answers with `feedback import files=[...]`, or send /feedback."
    )
