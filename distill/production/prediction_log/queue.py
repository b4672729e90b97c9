"""What people shall label: put in once, handed to one person at a time, the most urgent first.

Knows nothing of strategies, nor of what a label means; what people say is for `annotations`.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from distill.production.prediction_log.connection import talking_to, writing
from distill.production.prediction_log.records import (
    HUMAN,
    LABEL,
    Annotation,
    Prediction,
    QueueItem,
)
from distill.production.prediction_log.rows import record_of, row_of
from distill.production.prediction_log.schema import (
    ANNOTATIONS,
    AUDITS,
    FEEDBACK,
    HOLDS,
    PREDICTIONS,
    QUEUE,
    insert_new,
)

HOLD_S = 900.0  # so long an item waits for the person whom it was handed to
_LOCK = 0x6469_7374_696C_71  # PostgreSQL's key for handing out
_AT_ONCE = 500

_Q, _A, _H = QUEUE.c, ANNOTATIONS.c, HOLDS.c


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """An item, the prediction that it is of, what people said, and whether the truth is known.

    Attributes:
        item: of the queue.
        prediction: that it is of.
        annotations: in the order of time.
        truth: label that turned out by itself, from no annotation here; None while it is unknown.
        truth_source: who said so.
    """

    item: QueueItem
    prediction: Prediction
    annotations: tuple[Annotation, ...] = ()
    truth: int | None = None
    truth_source: str | None = None


def add_items(engine: sa.Engine, items: Sequence[QueueItem]) -> int:
    """Put items in; those that are there already, or whose prediction is gone, are passed over.

    Returns:
        How many are new.

    Raises:
        LogUnavailableError: the database cannot be written now.
    """
    added = 0
    statement = insert_new(QUEUE, engine.dialect)
    with talking_to(engine):
        for start in range(0, len(items), _AT_ONCE):
            part = items[start : start + _AT_ONCE]
            with writing(engine) as connection:
                of_these = PREDICTIONS.c.id.in_([item.prediction for item in part])
                known = set(
                    connection.execute(sa.select(PREDICTIONS.c.id).where(of_these)).scalars()
                )
                for item in part:
                    if item.prediction in known:
                        done = connection.exec_driver_sql(statement, row_of(item))
                        added += done.rowcount
    return added


def audit_shares(engine: sa.Engine) -> list[tuple[float, float]]:
    """From when on which share of the predictions is audited, in the order of time.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    query = sa.select(AUDITS).order_by(AUDITS.c.since)
    with talking_to(engine), engine.connect() as connection:
        return [(row.since, row.share) for row in connection.execute(query)]


def set_audit_share(engine: sa.Engine, share: float) -> list[tuple[float, float]]:
    """Audit a share of the predictions from now on; the first share holds for all that came before.

    A share that holds already changes nothing. "Now" is after all that is in the log, whatever the
    clocks that wrote it say: no row that was seen changes its share.

    Returns:
        As `audit_shares`.

    Raises:
        LogUnavailableError: the database cannot be written now.
    """
    with talking_to(engine), writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        last = connection.execute(sa.select(AUDITS).order_by(AUDITS.c.since.desc())).first()
        latest = connection.execute(sa.select(sa.func.max(PREDICTIONS.c.time))).scalar() or 0.0
        since = 0.0 if last is None else max(time.time(), latest + 1e-6, last.since + 1e-6)
        if last is None or last.share != share:
            connection.execute(sa.insert(AUDITS).values(since=since, share=share))
    return audit_shares(engine)


def reviewed(
    engine: sa.Engine, classes_sha256: str, *, page: int = 500, inputs: bool = True
) -> Iterator[Reviewed]:
    """Read the items of a list of classes with all that was said, in the order of their ids.

    Args:
        engine: an open log.
        classes_sha256: see `QueueItem`.
        page: items read at once.
        inputs: whether to read inputs, which are most of the bytes.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    query = _items(classes_sha256).order_by(_Q.prediction).limit(page)
    if not inputs:
        query = query.with_only_columns(
            *(sa.null().label("input") if c.name == "input" else c for c in query.selected_columns)
        )
    last = ""
    while True:
        with talking_to(engine), engine.connect() as connection:
            found = _whole(connection, query.where(_Q.prediction > last))
        yield from found
        if len(found) < page:
            return
        last = found[-1].item.prediction


def find_item(engine: sa.Engine, prediction: str) -> Reviewed | None:
    """Find an item by its prediction's id.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    query = _items(None).where(_Q.prediction == prediction)
    with talking_to(engine), engine.connect() as connection:
        return next(iter(_whole(connection, query)), None)


def hand_out(
    engine: sa.Engine, annotator: str, classes_sha256: str, *, now: float | None = None
) -> Reviewed | None:
    """Hand a person the next item, and hold it for them for a while.

    Left out are items that are settled, that the person has answered or skipped, that as many as
    are wanted have answered or hold, and those whose input nobody kept.

    Args:
        engine: an open log.
        annotator: who asks.
        classes_sha256: see `QueueItem`.
        now: UTC, in seconds since 1970; None is now.

    Returns:
        None where there is nothing for them now.

    Raises:
        LogUnavailableError: the database cannot be written now.
    """
    now = time.time() if now is None else now
    with talking_to(engine), writing(engine) as connection:
        if engine.dialect.name == "postgresql":  # sqlite has one writer at a time anyway
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        connection.execute(sa.delete(HOLDS).where(_H.annotator == annotator))
        wanted = _items(classes_sha256).where(*open_for(annotator, now))
        contradicted = sa.case((_Q.num_extra > 0, 0), else_=1)
        best = wanted.order_by(contradicted, _Q.priority.desc(), _Q.prediction).limit(1)
        found = _whole(connection, best)
        if not found:
            return None
        hold(connection, found[0].item.prediction, annotator, now)
    return found[0]


def hold(connection: sa.Connection, prediction: str, annotator: str, now: float) -> None:
    """Keep an item for a person for a while, within a transaction."""
    row = {"prediction": prediction, "annotator": annotator, "until": now + HOLD_S}
    mine = (_H.prediction == prediction) & (_H.annotator == annotator)
    connection.execute(sa.delete(HOLDS).where(mine))
    connection.execute(sa.insert(HOLDS).values(row))


def is_open() -> list[sa.ColumnElement[bool]]:
    """Conditions of an item that people can still settle: of no known truth, with an input."""
    truth = sa.select(FEEDBACK.c.prediction).where(
        FEEDBACK.c.prediction == _Q.prediction, FEEDBACK.c.name == LABEL
    )
    return [_Q.label.is_(None), PREDICTIONS.c.input.is_not(None), ~truth.exists()]


def open_for(annotator: str, now: float) -> list[sa.ColumnElement[bool]]:
    """Conditions of an item that a person may be handed."""

    def count(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        own = sa.select(sa.func.count()).select_from(table)
        return own.where(table.c.prediction == _Q.prediction, *conditions).scalar_subquery()

    # Clocks differ a little; one that went back must not make a hold last for ever.
    held = (_H.annotator != annotator, _H.until > now, _H.until <= now + 2 * HOLD_S)
    mine = sa.select(_A.prediction).where(_A.prediction == _Q.prediction, _A.annotator == annotator)
    taken = count(ANNOTATIONS, _A.label.is_not(None)) + count(HOLDS, *held)
    return [*is_open(), ~mine.exists(), taken < _Q.num_wanted + _Q.num_extra]


def _items(classes_sha256: str | None) -> sa.Select:
    own = [column.label(f"item_{column.name}") for column in QUEUE.columns]
    query = sa.select(*own, *PREDICTIONS.columns).join_from(
        QUEUE, PREDICTIONS, PREDICTIONS.c.id == _Q.prediction
    )
    return query if classes_sha256 is None else query.where(_Q.classes_sha256 == classes_sha256)


def _whole(connection: sa.Connection, query: sa.Select) -> list[Reviewed]:
    rows = connection.execute(query).mappings().all()
    ids = [row["id"] for row in rows]
    said: dict[str, list[Annotation]] = defaultdict(list)
    truths: dict[str, tuple[int, str]] = {}
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        of_these = sa.select(ANNOTATIONS).where(_A.prediction.in_(part))
        for row in connection.execute(of_these.order_by(_A.time, _A.annotator)).mappings():
            said[row["prediction"]].append(record_of(Annotation, row))
        known = sa.select(FEEDBACK).where(FEEDBACK.c.prediction.in_(part), FEEDBACK.c.name == LABEL)
        for row in connection.execute(known):
            truths[row.prediction] = (row.label, row.source)
    return [_reviewed(row, said[row["id"]], truths.get(row["id"])) for row in rows]


def _reviewed(
    row: sa.RowMapping, annotations: list[Annotation], truth: tuple[int, str] | None
) -> Reviewed:
    own = {column.name: row[f"item_{column.name}"] for column in QUEUE.columns}
    item = record_of(QueueItem, own)
    # What was settled here became feedback itself, and is no truth that turned out.
    label, source = (None, None) if truth in (None, (item.label, HUMAN)) else truth
    return Reviewed(
        item=item,
        prediction=record_of(Prediction, row),
        annotations=tuple(annotations),
        truth=label,
        truth_source=source,
    )
