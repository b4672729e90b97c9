"""What the log says of one model: a sample of the last days, and every label of its random slice.

Knows the log and the model's world; knows nothing of what is concluded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distill.audit import Audit, Share
from distill.errors import UserError
from distill.production.logged_inputs import stacked
from distill.production.monitoring.world import World
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.observed import Labelled, count, labelled, sample
from distill.production.prediction_log.queue import audit_shares
from distill.production.prediction_log.reader import SkewCount, skews
from distill.production.prediction_log.records import Prediction
from distill.production.prediction_log.scope import Scope
from distill.production.teacher_answers import TeacherAnswers

DAY = 86_400.0
MIN_COVERED = 0.95  # of the rows; labels of so many are no choice
Ask = Callable[[Sequence[str], Sequence[bytes]], TeacherAnswers]


@dataclass(frozen=True, kw_only=True)
class Audited:
    """Labels of rows that nobody has chosen.

    Attributes:
        rows: of the random slice that have a label, in the order of their ids.
        how: how the slice came to be, for people; None where there is none.
    """

    rows: tuple[Labelled, ...] = ()
    how: str | None = None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one model did lately.

    Attributes:
        since, until: of the window; UTC in seconds since 1970.
        first: the model's first answer.
        num_rows: of the window, of all models.
        rows: drawn from the window, in the order of time.
        skews: what did not fit, in the window.
        labels: of the whole life of the model, chosen rows among them.
        audit: those of them that nobody has chosen.
        teacher: what it says of `rows` and labelled rows, as far as it was asked.
        lost: what could not be had, and why, for people.
    """

    since: float
    until: float
    first: float
    num_rows: int
    rows: tuple[Prediction, ...]
    skews: tuple[SkewCount, ...] = ()
    labels: tuple[Labelled, ...] = ()
    audit: Audited = field(default_factory=Audited)
    teacher: TeacherAnswers | None = None
    lost: tuple[str, ...] = ()

    @property
    def logits(self) -> NDArray[np.float32]:
        """Of `rows` that were answered, [n, C]."""
        return np.stack([np.frombuffer(row.output, "<f4") for row in self.rows])


def observe(
    engine: Engine,
    world: World,
    *,
    until: float,
    first: float,
    window_days: float,
    num_rows: int,
    num_asked: int,
    ask: Ask | None,
    lost: Sequence[str] = (),
) -> Seen:
    """Read what there is.

    Args:
        engine: the log.
        world: of the model.
        until: UTC, in seconds since 1970.
        first: the model's first answer.
        window_days: how far back the window goes.
        num_rows: to draw from it.
        num_asked: of them that the teacher is asked about, at most.
        ask: the teacher; None where there is none.
        lost: what is known to be missing already.

    Raises:
        UserError: no answer of this model is in the window, or the log cannot be read.
    """
    scope = Scope(since=max(until - window_days * DAY, first), until=until)
    drawn = sample(engine, scope, world.artefact_sha256, wanted=num_rows)
    rows = tuple(row for row in drawn if len(row.output) == 4 * len(world.contract.classes))
    if not rows:
        raise UserError(
            f"Expected answers of {world.artefact.name} ({world.artefact_sha256[:12]}) in the last "
            f"{window_days:g} days but the log has none. Serve it, or look further back with "
            "`window_days=`."
        )
    whole = Scope(until=until)
    labels = tuple(labelled(engine, whole, world.artefact_sha256))
    audit = _audit(engine, world, labels, Scope(since=first, until=until))
    teacher, missing = _teacher(ask, rows, audit, num_asked)
    assert scope.since is not None
    return Seen(
        since=scope.since,
        until=until,
        first=first,
        num_rows=count(engine, scope),
        rows=rows,
        skews=tuple(one for one in skews(engine, scope)),
        labels=labels,
        audit=audit,
        teacher=teacher,
        lost=(*lost, *missing),
    )


def _audit(engine: Engine, world: World, labels: Sequence[Labelled], life: Scope) -> Audited:
    shares = [Share(since=since, share=share) for since, share in audit_shares(engine)]
    if shares:
        audit = Audit(shares=tuple(shares))
        rows = tuple(row for row in labels if audit.has(row.id, row.time))
        now = f"{shares[-1].share:.1%} of the rows, drawn at random"
        return Audited(rows=rows, how=now)
    total = count(engine, life)
    if total and len(labels) >= MIN_COVERED * total:
        return Audited(
            rows=tuple(labels), how=f"the truth of {len(labels) / total:.0%} of the rows"
        )
    return Audited()


def _teacher(
    ask: Ask | None, rows: Sequence[Prediction], audit: Audited, num_asked: int
) -> tuple[TeacherAnswers | None, list[str]]:
    if ask is None:
        return None, []
    step = max(len(rows) // num_asked, 1)
    window = {row.id: row.input for row in rows[::step] if row.input is not None}
    known = {row.id: row.input for row in audit.rows if row.input is not None}
    asked = {**known, **window}
    if not asked:
        return None, ["The log keeps no inputs: the teacher cannot be asked (`log.inputs=keep`)."]
    try:
        return ask(list(asked), list(asked.values())), []
    except (UserError, ValueError) as error:
        return None, [f"The teacher's opinion is lost: {error}"]


def inputs_of(world: World, rows: Sequence[Prediction]) -> tuple[NDArray, NDArray[np.bool_]] | None:
    """Put the inputs of rows together, and tell which have one, [n]; None where none has."""
    has = np.array([row.input is not None for row in rows])
    if not has.any():
        return None
    table = world.contract.table
    columns = None if table is None else table.columns
    return stacked([row.input for row in rows if row.input is not None], columns), has
