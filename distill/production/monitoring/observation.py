"""What the log says of one model: a sample of the last days, and the labels of its random slice.

However many labels there are, memory stays bounded: those of a slice that was drawn all count, and
where the truth of nearly all rows is known a share of them is drawn, each with the same chance.

Knows the log and the model's world; knows nothing of what is concluded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distill.audit import Audit, Share, evenly, place_of
from distill.errors import UserError
from distill.production.logged_inputs import stacked
from distill.production.monitoring.world import World
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.labelled import Labelled, count_labels, labelled
from distill.production.prediction_log.observed import count, sample
from distill.production.prediction_log.queue import audit_shares
from distill.production.prediction_log.reader import SkewCount, inputs_of, skews
from distill.production.prediction_log.records import Prediction
from distill.production.prediction_log.scope import DAY, Scope
from distill.production.teacher_answers import TeacherAnswers

MIN_COVERED = 0.95  # of the rows; labels of so many are no choice
NUM_COUNTED = 20_000  # that tell how many there are to one percent
NUM_PROBED = 50  # inputs that tell how large they are
MAX_BYTES = 2**28  # of inputs in memory
MAX_VALUES = 20_000_000  # numbers of labelled rows in memory, however many a row has
Ask = Callable[[Sequence[str], Sequence[bytes]], TeacherAnswers]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The truths of one model's answers, over its whole life.

    Attributes:
        num_known: answers whose truth is known, chosen ones among them; about, where not all were
            looked at.
        num_read: of them that were looked at.
        audit: rows that nobody has chosen, in the order of their ids; None where there are none.
        how: the slice came to be, for people; None likewise.
        draws: with which probabilities the rows of `audit` were drawn; None where all alike.
    """

    num_known: int = 0
    num_read: int = 0
    audit: Labelled | None = None
    how: str | None = None
    draws: Audit | None = None

    def even(self, rows: Labelled) -> Labelled:
        """Thin audited rows to a simple random sample of their time: see `distill.audit`."""
        if self.draws is None:
            return rows
        drawn = np.array([self.draws.probability(time) for time in rows.times.tolist()])
        return rows.take(evenly(rows.names, drawn))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one model did lately.

    Attributes:
        since, until: of the window; UTC in seconds since 1970.
        first: the model's first answer.
        num_rows: of the window, of all models.
        rows: drawn from the window, in the order of time.
        skews: gaps and new categories, in the window, of all models.
        labels: see there.
        teacher: what it says of `rows` and of audited rows, as far as it was asked.
        lost: what could not be had, and why, for people.
    """

    since: float
    until: float
    first: float
    num_rows: int
    rows: tuple[Prediction, ...]
    skews: tuple[SkewCount, ...] = ()
    labels: Labels = field(default_factory=Labels)
    teacher: TeacherAnswers | None = None
    lost: tuple[str, ...] = ()

    @property
    def answers(self) -> NDArray[np.float32]:
        """To `rows`: logits or numbers, [n, K]."""
        return np.stack([np.frombuffer(row.output, "<f4") for row in self.rows])

    @cached_property
    def audit(self) -> Labelled | None:
        """Audited rows of the window, all drawn with one probability; None without any."""
        audit = self.labels.audit
        if audit is None or not (audit.times >= self.since).any():
            return None
        return self.labels.even(audit.take(audit.times >= self.since))


def observe(
    engine: Engine,
    world: World,
    *,
    until: float,
    first: float,
    window_days: float,
    num_rows: int,
    num_labels: int,
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
        num_labels: to read, where the truth of more is known and no slice was drawn.
        num_asked: of the rows that the teacher is asked about, at most.
        ask: the teacher; None where there is none.
        lost: what is known to be missing already.

    Raises:
        UserError: no answer of this model is in the window, or the log cannot be read.
    """
    scope = Scope(since=max(until - window_days * DAY, first), until=until)
    drawn = sample(engine, scope, world.artefact_sha256, wanted=num_rows)
    width = len(world.contract.asks.answers)
    rows = tuple(row for row in drawn if len(row.output) == 4 * width)
    if not rows:
        raise UserError(
            f"Expected answers of {world.artefact.name} ({world.artefact_sha256[:12]}) in the last "
            f"{window_days:g} days but the log has none. Serve it, or look further back with "
            "`window_days=`."
        )
    assert scope.since is not None
    seen = Seen(
        since=scope.since,
        until=until,
        first=first,
        num_rows=count(engine, scope),
        rows=rows,
        skews=tuple(one for one in skews(engine, scope)),
        labels=_labels(engine, world, Scope(since=first, until=until), num_labels),
    )
    teacher, missing = _teacher(engine, ask, seen, num_asked, num_rows)
    return replace(seen, teacher=teacher, lost=(*lost, *missing))


def sampled(engine: Engine, world: World, life: Scope, wanted: int) -> tuple[Labelled, float]:
    """Draw about so many answers whose truth is known, and tell the chance of each to be drawn.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    shape = world.shape
    wanted = min(wanted, MAX_VALUES // shape.width)
    share = min(wanted / max(count_labels(engine, life, shape), 1), 1.0)
    return labelled(engine, life, world.artefact_sha256, shape, share=share), share


def with_inputs(engine: Engine, rows: Labelled) -> tuple[Labelled, dict[str, bytes]]:
    """Read the inputs of labelled rows, of fewer rows where they are large; by id, as kept.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    by_chance = sorted(rows.names, key=place_of)
    some = inputs_of(engine, by_chance[:NUM_PROBED])
    size = max(map(len, some.values()), default=1)
    names = by_chance[: MAX_BYTES // size]
    is_read = set(names)
    kept = np.array([name in is_read for name in rows.names], bool)
    return rows.take(kept), inputs_of(engine, names)


def _labels(engine: Engine, world: World, life: Scope, wanted: int) -> Labels:
    shares = audit_shares(engine)
    rows, share = sampled(engine, world, life, min(wanted, NUM_COUNTED) if shares else wanted)
    known = Labels(num_known=round(len(rows) / share), num_read=len(rows))
    if shares:
        audit = Audit(shares=tuple(Share(since=since, share=own) for since, own in shares))
        largest = max(own for _, own in shares)
        if share < 1:  # all of the slice counts
            rows = labelled(
                engine,
                life,
                world.artefact_sha256,
                world.shape,
                drawn=lambda one: place_of(one) < largest,
            )
        is_drawn = [audit.has(*row) for row in zip(rows.names, rows.times.tolist(), strict=True)]
        rows = rows.take(np.array(is_drawn, bool))
        return replace(
            known,
            num_read=max(known.num_read, len(rows)),
            audit=rows,
            how=_drawn(audit, life),
            draws=audit,
        )
    total, covered = count(engine, life), known.num_known
    if share < 1:  # what the draw may have missed by chance is no gap
        missed = 3 * len(rows) ** 0.5 / share
        covered = min(count_labels(engine, life, world.shape), covered + missed)
    if not total or covered < MIN_COVERED * total:
        return known
    how = f"the truth of {min(known.num_known / total, 1.0):.0%} of the rows"
    if share < 1:
        how += f", of which {known.num_read:,} of about {known.num_known:,} were drawn at random"
    return replace(known, audit=rows, how=how)


def _drawn(audit: Audit, life: Scope) -> str:
    """Say which shares of the rows were drawn while the model lived."""
    since, until = life.since or 0.0, life.until or np.inf
    told = [f"{audit.probability(since):.1%}"]
    for own in audit.shares:
        if since < own.since <= until:
            moment = datetime.fromtimestamp(own.since, UTC)
            told.append(f"{own.share:.1%} since {moment:%Y-%m-%d %H:%M} UTC")
    thinned = "; where both count, those before are thinned to the smaller" if len(told) > 1 else ""
    return f"{', '.join(told)} of the rows, drawn at random{thinned}"


def _teacher(
    engine: Engine, ask: Ask | None, seen: Seen, num_asked: int, num_audited: int
) -> tuple[TeacherAnswers | None, list[str]]:
    if ask is None:
        return None, []
    step = max(len(seen.rows) // num_asked, 1)
    asked = {row.id: row.input for row in seen.rows[::step] if row.input is not None}
    if seen.audit is not None:
        # As random as the slice is.
        asked |= inputs_of(engine, sorted(seen.audit.names, key=place_of)[:num_audited])
    if not asked:
        return None, ["The log keeps no inputs: the teacher cannot be asked (`log.inputs=keep`)."]
    try:
        return ask(list(asked), list(asked.values())), []
    except (UserError, ValueError) as error:
        return None, [lost_teacher(error)]


def lost_teacher(error: Exception) -> str:
    """Say that a teacher cannot be asked, and why."""
    return f"The teacher's opinion is lost: {error}"


def stacked_inputs(
    world: World, rows: Sequence[Prediction]
) -> tuple[NDArray, NDArray[np.bool_]] | None:
    """Put the inputs of rows together, and tell which have one, [n]; None where none has."""
    has = np.array([row.input is not None for row in rows])
    if not has.any():
        return None
    table = world.contract.table
    columns = None if table is None else table.columns
    return stacked([row.input for row in rows if row.input is not None], columns), has
