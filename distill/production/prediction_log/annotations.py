"""What people say of items in the queue, and when that settles one: then it is feedback, too.

An answer is kept once, whoever repeats it, and can be taken back by whoever gave it. What settles,
what contradicts and what is undone is decided in the transaction that keeps the answer, so that of
two people who answer at once none is lost. Knows nothing of what a label means.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from distill.errors import UserError
from distill.production.prediction_log.connection import talking_to, writing
from distill.production.prediction_log.queue import hold, is_open, open_for
from distill.production.prediction_log.records import HUMAN, LABEL, Annotation, Feedback, QueueItem
from distill.production.prediction_log.rows import clean, record_of, row_of
from distill.production.prediction_log.schema import (
    ANNOTATIONS,
    FEEDBACK,
    HOLDS,
    PREDICTIONS,
    QUEUE,
    insert_new,
)

SURE_TIERS = ("agree", "soft_label")  # in which the teacher's word counts against a person's

_Q, _A, _H, _F = QUEUE.c, ANNOTATIONS.c, HOLDS.c, FEEDBACK.c


class UnknownItemError(UserError):
    """The prediction is not in the queue."""


class ConflictingAnnotationError(UserError):
    """The same person said something else before."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What became of an answer.

    Attributes:
        is_new: False where the same person had said the same before.
        item: as it stands now.
    """

    is_new: bool
    item: QueueItem


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far people are with the items of a list of classes.

    Attributes:
        total: items.
        settled: by people, or by a truth that turned out.
        open_for: items that one person may still be handed.
        answered: labels by one person.
        adjudicate: open items on which people, or one of them and the teacher, differ.
        hidden: open items whose input was not kept.
        contradicted: items on which people settled, and of which something else turned out.
        judged: labels by people of items whose truth turned out.
        upheld: of them, that say the truth.
    """

    total: int
    settled: int
    open_for: int
    answered: int
    adjudicate: int
    hidden: int
    contradicted: int
    judged: int
    upheld: int


def settled_label(labels: Sequence[int], item: QueueItem) -> tuple[int | None, int]:
    """Tell what people settle on, or how many more of them are asked.

    That is what more than half of them say, once as many have answered as are wanted, and two of
    them where a confident teacher says otherwise. Else one more is asked.

    Args:
        labels: of people who did not skip it.
        item: says how many are wanted, and what the teacher says.

    Returns:
        The class or None, and the number of people beyond those who are wanted anyway.
    """
    if len(labels) < item.num_wanted:
        return None, 0
    (top, count), *_ = Counter(labels).most_common(1)
    against = item.tier in SURE_TIERS and item.teacher_label not in (None, top) and count < 2
    if 2 * count > len(labels) and not against:
        return top, len(labels) - item.num_wanted
    return None, len(labels) + 1 - item.num_wanted


def answer(engine: sa.Engine, annotation: Annotation, *, replace: bool = False) -> Answered:
    """Keep what a person says.

    Args:
        engine: an open log.
        annotation: with a label, or without where it is skipped.
        replace: whether it takes the place of what the same person said before; else only the same
            may be said again.

    Raises:
        UnknownItemError: the prediction is not in the queue, or no longer.
        ConflictingAnnotationError: the person said something else before; that stays.
        UserError: the annotator has no name.
        LogUnavailableError: the database cannot be written now.
    """
    annotation = dataclasses.replace(annotation, annotator=named(annotation.annotator))
    row = row_of(annotation)
    mine = _mine(annotation.prediction, annotation.annotator)
    with talking_to(engine), writing(engine) as connection:
        item = _locked(connection, annotation.prediction)
        before = connection.execute(sa.select(ANNOTATIONS).where(mine)).mappings().first()
        if before is not None and before["label"] == annotation.label:
            return Answered(is_new=False, item=item)
        if before is not None and not replace:
            raise ConflictingAnnotationError(
                f"Expected {annotation.annotator} to say one thing of {item.prediction} but it was "
                "answered otherwise before. Take that back first."
            )
        connection.execute(sa.delete(ANNOTATIONS).where(mine))
        connection.exec_driver_sql(insert_new(ANNOTATIONS, connection.dialect), row)
        connection.execute(
            sa.delete(HOLDS).where(
                _H.prediction == item.prediction, _H.annotator == annotation.annotator
            )
        )
        return Answered(is_new=True, item=_settled(connection, item))


def take_back(
    engine: sa.Engine, prediction: str, annotator: str, *, now: float | None = None
) -> bool:
    """Forget what a person said of an item, which is theirs again for a while.

    What the answer had settled is open again, unless others settle it without it.

    Returns:
        False where they had said nothing.

    Raises:
        UnknownItemError: the prediction is not in the queue, or no longer.
        LogUnavailableError: the database cannot be written now.
    """
    annotator, now = named(annotator), time.time() if now is None else now
    with talking_to(engine), writing(engine) as connection:
        item = _locked(connection, prediction)
        gone = connection.execute(sa.delete(ANNOTATIONS).where(_mine(prediction, annotator)))
        if not gone.rowcount:
            return False
        _settled(connection, item)
        hold(connection, prediction, annotator, now)
    return True


def answers(engine: sa.Engine, classes_sha256: str, *, last: int | None = None) -> list[Annotation]:
    """Read labels that people gave to items of a list of classes, by item and person.

    Args:
        engine: an open log.
        classes_sha256: see `QueueItem`.
        last: so many items alone, those with the latest predictions; None is all.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    query = (
        sa.select(ANNOTATIONS)
        .join(QUEUE, _Q.prediction == _A.prediction)
        .where(_Q.classes_sha256 == classes_sha256, _A.label.is_not(None))
        .order_by(_A.prediction, _A.annotator)
    )
    if last is not None:
        labelled = sa.select(_A.prediction).join(QUEUE, _Q.prediction == _A.prediction)
        labelled = labelled.where(_Q.classes_sha256 == classes_sha256, _A.label.is_not(None))
        newest = labelled.distinct().order_by(_A.prediction.desc()).limit(last)
        query = query.where(_A.prediction.in_(newest))
    with talking_to(engine), engine.connect() as connection:
        return [record_of(Annotation, row) for row in connection.execute(query).mappings()]


def progress(engine: sa.Engine, classes_sha256: str, annotator: str) -> Progress:
    """Count how far people are.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """

    def count(*conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        query = sa.select(sa.func.count()).select_from(
            QUEUE.join(PREDICTIONS, PREDICTIONS.c.id == _Q.prediction)
        )
        return query.where(_Q.classes_sha256 == classes_sha256, *conditions).scalar_subquery()

    def said(condition: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        query = sa.select(sa.func.count()).select_from(
            ANNOTATIONS.join(QUEUE, _Q.prediction == _A.prediction)
        )
        wanted = _Q.classes_sha256 == classes_sha256, _A.label.is_not(None), condition
        return query.where(*wanted).scalar_subquery()

    known = sa.select(_F.prediction).where(_F.prediction == _Q.prediction, _F.name == LABEL)
    turned_out = known.where(_F.source != HUMAN)
    by_me = sa.select(_A.prediction).where(_mine(_Q.prediction, annotator), _A.label.is_not(None))
    query = sa.select(
        count().label("total"),
        count(_Q.label.is_not(None) | known.exists()).label("settled"),
        count(*open_for(annotator, time.time())).label("open_for"),
        count(by_me.exists()).label("answered"),
        count(*is_open(), _Q.num_extra > 0).label("adjudicate"),
        count(_Q.label.is_(None), ~known.exists(), PREDICTIONS.c.input.is_(None)).label("hidden"),
        count(turned_out.where(_F.label != _Q.label).exists()).label("contradicted"),
        said(turned_out.exists()).label("judged"),
        said(turned_out.where(_F.label == _A.label).exists()).label("upheld"),
    )
    with talking_to(engine), engine.connect() as connection:
        return Progress(**connection.execute(query).mappings().one())


def named(annotator: str) -> str:
    """Return a person's name as it is kept.

    Raises:
        UserError: it is empty or long.
    """
    name = " ".join(clean(annotator).split())
    if not 1 <= len(name) <= 64:
        raise UserError(
            f"Expected the annotator's name to be 1 to 64 characters but got {annotator[:80]!r}."
        )
    return name


def _mine(prediction: sa.ColumnElement[str] | str, annotator: str) -> sa.ColumnElement[bool]:
    return (_A.prediction == prediction) & (_A.annotator == annotator)


def _locked(connection: sa.Connection, prediction: str) -> QueueItem:
    """Read an item that nobody else changes until the transaction ends."""
    query = sa.select(QUEUE).where(_Q.prediction == prediction).with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        raise UnknownItemError(
            f"Expected an item of the queue but there is no {prediction[:60]!r}, or no longer: "
            "it may have gone for its age. Go on with the next one."
        )
    return record_of(QueueItem, row)


def _settled(connection: sa.Connection, item: QueueItem) -> QueueItem:
    """Bring an item, and the feedback that it became, to what people say now."""
    said = sa.select(_A.label).where(_A.prediction == item.prediction, _A.label.is_not(None))
    label, num_extra = settled_label(connection.execute(said).scalars().all(), item)
    if item.label is not None and item.label != label:
        ours = (_F.prediction == item.prediction) & (_F.name == LABEL) & (_F.source == HUMAN)
        connection.execute(sa.delete(FEEDBACK).where(ours, _F.label == item.label))
    if label is not None and label != item.label:
        feedback = Feedback(prediction=item.prediction, label=label, source=HUMAN)
        connection.exec_driver_sql(insert_new(FEEDBACK, connection.dialect), row_of(feedback))
    changed = dataclasses.replace(item, label=label, num_extra=num_extra)
    if changed != item:
        update = sa.update(QUEUE).where(_Q.prediction == item.prediction)
        connection.execute(update.values(label=label, num_extra=num_extra))
    return changed
