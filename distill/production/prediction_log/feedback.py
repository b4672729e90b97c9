"""The truth, as it comes in later: each said once, of predictions that are in the log.

What people settled on in the queue is an opinion: a truth that turns out takes its place, whatever
it says, and the opinion stays where it was given, in the queue and in the annotations.
Knows nothing of classes: whether a label is one of them is for the caller to see.
"""

import math
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from distill.errors import UserError
from distill.production.prediction_log.connection import talking_to, writing
from distill.production.prediction_log.reader import GRACE_MS, wait_for
from distill.production.prediction_log.records import HUMAN, LABEL, Feedback, is_id
from distill.production.prediction_log.rows import record_of, row_of
from distill.production.prediction_log.schema import FEEDBACK, PREDICTIONS, QUEUE, insert_new

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


class UnknownPredictionError(UserError):
    """There is no such prediction in the log."""


class ConflictingFeedbackError(UserError):
    """The same thing was said of the prediction before, and otherwise."""


def add_feedback(
    engine: sa.Engine,
    feedback: Feedback,
    *,
    grace_ms: float = GRACE_MS,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Keep what turned out, on the disk as far as the log's `sync` goes.

    A prediction that may be on its way to the log is waited for; see `wait_for`.

    Args:
        engine: an open log.
        feedback: what turned out.
        grace_ms: see `wait_for`.
        sleep: likewise.

    Returns:
        True if it is new, or takes the place of what people had settled on; False if exactly that
        was said before.

    Raises:
        UnknownPredictionError: no such prediction is there, or not yet; the log may lag behind.
        ConflictingFeedbackError: something else was said before, and not by the queue; that stays.
        UserError: it is no feedback.
        LogUnavailableError: the database cannot be written now.
    """
    row = _checked(feedback)
    if not is_id(feedback.prediction):
        raise _unknown(feedback.prediction)
    with talking_to(engine):
        look = partial(_seen, engine, feedback.prediction)
        if wait_for(look, feedback.prediction, grace_ms=grace_ms, sleep=sleep) is None:
            raise _unknown(feedback.prediction)
        return _insert(engine, feedback, row)


def _seen(engine: sa.Engine, prediction: str) -> Any:
    with engine.connect() as connection:
        query = sa.select(PREDICTIONS.c.id).where(PREDICTIONS.c.id == prediction)
        return connection.execute(query).scalar()


def _insert(engine: sa.Engine, feedback: Feedback, row: tuple) -> bool:
    said = sa.select(FEEDBACK).where(
        FEEDBACK.c.prediction == feedback.prediction, FEEDBACK.c.name == feedback.name
    )
    try:
        with writing(engine) as connection:
            opinion = _opinion(connection, feedback)
            done = connection.exec_driver_sql(insert_new(FEEDBACK, engine.dialect), row)
            if done.rowcount:
                return True
            known = record_of(Feedback, connection.execute(said).mappings().one())
            if known.source == HUMAN and known.label is not None and known.label == opinion:
                ours = FEEDBACK.c.prediction == known.prediction, FEEDBACK.c.name == known.name
                new = {"label": feedback.label, "source": feedback.source, "time": feedback.time}
                connection.execute(sa.update(FEEDBACK).where(*ours).values(new))
                return True
    except exc.IntegrityError as error:  # it was deleted for its age in this moment
        raise _unknown(feedback.prediction) from error
    if (known.label, known.value) == (feedback.label, feedback.value):
        return False
    raise ConflictingFeedbackError(
        f"Expected `{feedback.name}` of prediction {feedback.prediction} to stay "
        f"{_said(known)}, as {known.source} said, but got {_said(feedback)}. The first one is kept."
    )


def _opinion(connection: sa.Connection, feedback: Feedback) -> int | None:
    """Give what people settled on in the queue, which a truth that turns out replaces.

    Until the transaction ends nobody settles it otherwise, or takes it back.
    """
    if feedback.name != LABEL or feedback.source == HUMAN:
        return None
    query = sa.select(QUEUE.c.label).where(QUEUE.c.prediction == feedback.prediction)
    return connection.execute(query.with_for_update()).scalar()


def _checked(feedback: Feedback) -> tuple:
    if not _NAME.fullmatch(feedback.name):
        raise UserError(
            "Expected the name of an outcome to be 1 to 64 letters, digits, `_`, `.` and `-` but "
            f"got {feedback.name[:80]!r}."
        )
    given = feedback.label if feedback.name == LABEL else feedback.value
    other = feedback.value if feedback.name == LABEL else feedback.label
    if given is None or other is not None:
        wanted = "a label" if feedback.name == LABEL else "a value"
        raise UserError(
            f"Expected {wanted}, and nothing else, for `{feedback.name}` but got label "
            f"{feedback.label!r} and value {feedback.value!r}."
        )
    if feedback.value is not None and not math.isfinite(feedback.value):
        raise UserError(
            f"Expected a finite `{feedback.name}` but got {feedback.value}. Leave unknown ones out."
        )
    try:
        return row_of(feedback)
    except (TypeError, ValueError) as error:
        raise UserError(f"Expected feedback that a log can hold. {error}") from error


def _said(feedback: Feedback) -> str:
    return f"{feedback.label if feedback.name == LABEL else feedback.value}"


def _unknown(prediction: str) -> UnknownPredictionError:
    return UnknownPredictionError(
        f"Expected the id of a prediction in the log but there is no {prediction[:80]!r}. Take it "
        "from the answer; if that was just given and the log lags behind, say it again later."
    )
