"""One look at a log: who answered what, which rows are audited, what a teacher says and may say.

Both choosing and collecting begin with it. It draws the audit, which never depends on anything that
is chosen. Knows the log and the teacher.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.audit import Audit, Share, check_share, place_of, share_to_keep
from distill.production.feedback.logged import Answers, read_inputs, read_log
from distill.production.feedback.model import Model
from distill.production.feedback.precision import Proof
from distill.production.feedback.teacher import Teacher
from distill.production.feedback.tiers import Tier, confidences, tiers
from distill.production.feedback.verdicts import Audited, audited
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.queue import (
    Reviewed,
    add_items,
    audit_shares,
    reviewed,
    set_audit_share,
)
from distill.production.prediction_log.records import QueueItem
from distill.production.prediction_log.scope import DAY


@dataclass(frozen=True, kw_only=True)
class Looking:
    """How a log is looked at.

    Attributes:
        audit_share: of the predictions that are drawn at random; None keeps what the log has.
        days: that are looked back; None is all of the log.
        max_pool: predictions that are chosen from, the latest.
        target: precision that a teacher must be proven to have before it labels anything.
        differing_target: likewise where the model says something else, before it is trained on.
        confidence: of these proofs, and of intervals.
        overlap: share of the items that two people are asked about.
    """

    audit_share: float | None = None
    days: float | None = None
    max_pool: int = 20_000
    target: float = 0.95
    differing_target: float = 0.5
    confidence: float = 0.95
    overlap: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was seen.

    Attributes:
        model: that answered.
        answers: of it.
        queue: of its classes, by prediction.
        pool: places of the answers that may be chosen, [K]: not audited, not queued, of no truth.
        teacher_logits: of the pool, [K, C]; NaN where there is no answer; None without a teacher.
        tiers: of the pool.
        audit: so far.
        proof: of the teacher; None without one.
        num_drawn: rows that came to the audit now.
        shares: of the predictions that are audited, in the order of time.
        since: UTC in seconds since 1970, from where it was looked; None from the beginning.
    """

    model: Model
    answers: Answers
    queue: dict[str, Reviewed]
    pool: NDArray[np.int64]
    teacher_logits: NDArray[np.float32] | None
    tiers: list[Tier]
    audit: Audited
    proof: Proof | None
    num_drawn: int
    shares: tuple[Share, ...]
    since: float | None = None


def survey(
    engine: Engine, model: Model, teacher: Teacher, looking: Looking, *, now: float | None = None
) -> Survey:
    """Look at a log, and draw its audit.

    Args:
        engine: an open log.
        model: that answered.
        teacher: that is asked.
        looking: how; a share of the audit that differs from the log's holds from now on.
        now: UTC in seconds since 1970; None is now.

    Raises:
        UsageError: the audit's share is none.
        UserError: there is nothing of this model, or the teacher has other classes.
        ModelError: the teacher fails.
        LogUnavailableError: the database cannot be read or written now.
    """
    asked = looking.audit_share
    share = share_to_keep(None, held_share(engine)) if asked is None else check_share(asked)
    now = time.time() if now is None else now
    since = None if looking.days is None else now - looking.days * DAY
    answers = read_log(engine, model, since=since, until=now)
    shares = set_audit_share(engine, share)
    audit = Audit(shares=tuple(Share(since=own, share=share) for own, share in shares))
    ask = partial(teacher.logits_of, model, read_inputs=partial(read_inputs, engine))
    queue = _queue(engine, model)
    judge = _Judge(model=model, answers=answers, ask=ask, looking=looking)
    drawn = np.array([audit.has(*row) for row in zip(answers.ids, answers.times, strict=True)])
    new = [i for i in np.flatnonzero(drawn).tolist() if answers.ids[i] not in queue]
    num_drawn = add_items(engine, judge.drawn(new, audit, judge.proof([*queue.values()])))
    free = ~drawn & (answers.truths < 0) & np.array([i not in queue for i in answers.ids])
    queue = _queue(engine, model)
    proof = judge.proof([*queue.values()])  # what had a truth already when it was drawn judges, too
    pool = np.flatnonzero(free)[-looking.max_pool :]
    teacher_logits, found = judge.sorted_out(pool.tolist(), proof)
    return Survey(
        model=model,
        answers=answers,
        queue=queue,
        pool=pool,
        teacher_logits=teacher_logits,
        tiers=found,
        audit=audited([*queue.values()], model.sha256),
        proof=proof,
        num_drawn=num_drawn,
        shares=audit.shares,
        since=since,
    )


def held_share(engine: Engine) -> float | None:
    """Tell which share of the predictions is audited now; None where nothing was drawn yet.

    Raises:
        LogUnavailableError: the database cannot be read now.
    """
    shares = audit_shares(engine)
    return shares[-1][1] if shares else None


def item_of(
    answers: Answers,
    place: int,
    model: Model,
    *,
    teacher: tuple[NDArray[np.floating], Tier] | None,
    num_wanted: int,
    **facts: Any,
) -> QueueItem:
    """Make an item of an answer.

    Args:
        answers: of the model.
        place: among them.
        model: that answered.
        teacher: its logits, [C], and the tier that it puts the answer in.
        num_wanted: people who shall say a class.
        facts: of `QueueItem`: split, reason, priority, and the like.
    """
    label = confidence = tier = None
    if teacher is not None and np.isfinite(teacher[0]).all():
        tier, label = str(teacher[1]), int(teacher[0].argmax())
        confidence = float(confidences(teacher[0][None])[0])
    return QueueItem(
        prediction=answers.ids[place],
        classes_sha256=model.classes_sha256,
        num_wanted=num_wanted,
        tier=tier,
        teacher_label=label,
        teacher_confidence=confidence,
        **facts,
    )


def num_wanted(prediction_id: str, overlap: float) -> int:
    """How many people are asked about an item: two of a share of them, whoever draws it."""
    return 1 + (place_of(f"overlap {prediction_id}") < overlap)


@dataclass(frozen=True, kw_only=True)
class _Judge:
    """What a teacher says, and may say."""

    model: Model
    answers: Answers
    ask: Callable[[list[str]], NDArray[np.float32] | None]
    looking: Looking

    def proof(self, rows: Sequence[Reviewed]) -> Proof | None:
        so_far, looking = audited(rows, self.model.sha256), self.looking
        logits = self.ask(so_far.ids)
        if logits is None:
            return None
        return so_far.proof(
            logits,
            target=looking.target,
            differing_target=looking.differing_target,
            confidence=looking.confidence,
        )

    def sorted_out(
        self, places: list[int], proof: Proof | None
    ) -> tuple[NDArray[np.float32] | None, list[Tier]]:
        logits = self.ask([self.answers.ids[i] for i in places])
        if logits is None or proof is None:
            return logits, [Tier.UNSURE] * len(places)
        labels = self.answers.labels[places]
        found = tiers(logits, labels, threshold=proof.threshold, may_teach=proof.may_teach)
        return logits, found

    def drawn(self, places: list[int], audit: Audit, proof: Proof | None) -> list[QueueItem]:
        """Make items of the audit.

        Their order is as random as their draw: where people stop early, the audit is smaller, and
        still one.
        """
        logits, found = self.sorted_out(places, proof)
        items = []
        for row, place in enumerate(places):
            one = self.answers.ids[place]
            probability = audit.probability(float(self.answers.times[place]))
            own = item_of(
                self.answers,
                place,
                self.model,
                teacher=None if logits is None else (logits[row], found[row]),
                num_wanted=num_wanted(one, self.looking.overlap),
                split="audit",
                reason="audit",
                priority=1 - place_of(one) / probability,
                inclusion_probability=probability,
            )
            items.append(own)
        return items


def _queue(engine: Engine, model: Model) -> dict[str, Reviewed]:
    rows = reviewed(engine, model.classes_sha256, inputs=False)
    return {row.item.prediction: row for row in rows}
