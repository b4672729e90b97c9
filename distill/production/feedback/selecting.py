"""From a survey to the queue: what people are asked besides the audit.

What a proven teacher is sure of needs no person; of the rest a strategy chooses. Knows the log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from distill.dataset_versions import ACTIVE
from distill.errors import UsageError, nearest
from distill.production.feedback.acquisition import Pool, Strategy
from distill.production.feedback.logged import hash_of, read_inputs
from distill.production.feedback.model import Model
from distill.production.feedback.selection import Choice, Limits, choose
from distill.production.feedback.survey import Survey, item_of, num_wanted
from distill.production.feedback.teacher import Teacher
from distill.production.feedback.tiers import Tier
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.queue import add_items
from distill.production.prediction_log.records import QueueItem

_MOST_ASKED = 5_000  # of what was asked before, the latest


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What is asked.

    Attributes:
        strategy: see `acquisition`.
        name: of it.
        limits: of what is chosen.
        overlap: share of the items that two people are asked about.
        costs: of a label by predicted class, in any unit; others cost 1.
        members: of an ensemble, for strategies that look at them.
        seed: of strategies that draw.
    """

    strategy: Strategy
    name: str
    limits: Limits
    overlap: float = 0.1
    costs: Mapping[str, float] | None = None
    members: Sequence[Teacher] = ()
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Selected:
    """What was put into the queue.

    Attributes:
        num_new: items that were chosen and are new.
        num_candidates: predictions that they were chosen from.
        num_without_input: that nobody could be shown.
        choice: see there.
        has_embedding: whether distances are of penultimate features.
    """

    num_new: int
    num_candidates: int
    num_without_input: int
    choice: Choice
    has_embedding: bool


def select(engine: Engine, seen: Survey, asking: Asking) -> Selected:
    """Choose, and put what was chosen into the queue.

    Raises:
        UsageError: the strategy lacks something, or a cost is none.
        LogUnavailableError: the database cannot be written now.
    """
    unsure = [row for row, tier in enumerate(seen.tiers) if tier is Tier.UNSURE]
    shown = _look(engine, seen, seen.pool[unsure])
    rows = [row for row in unsure if seen.answers.ids[seen.pool[row]] in shown.hashes]
    places = seen.pool[rows]
    ids = [seen.answers.ids[i] for i in places]
    pool = Pool(
        logits=seen.answers.logits[places],
        embedding=shown.embedding,
        teacher_logits=None if seen.teacher_logits is None else seen.teacher_logits[rows],
        member_logits=_members(engine, seen.model, ids, asking.members),
        costs=_costs(asking.costs, seen.model, seen.answers.labels[places]),
        asked=partial(_asked, engine, seen),
        seed=asking.seed,
    )
    choice = choose(
        pool,
        asking.strategy,
        asking.limits,
        units=[seen.answers.units[i] for i in places],
        hashes=[shown.hashes[one] for one in ids],
    )
    items: list[QueueItem] = []
    for rank, pick in enumerate(choice.picks):
        row, place = rows[pick.place], int(places[pick.place])
        known = None if seen.teacher_logits is None else seen.teacher_logits[row]
        own = item_of(
            seen.answers,
            place,
            seen.model,
            teacher=None if known is None else (known, seen.tiers[row]),
            num_wanted=num_wanted(ids[pick.place], asking.overlap),
            split="active",
            reason=asking.name,
            score=pick.score if np.isfinite(pick.score) else None,
            priority=1 - rank / len(choice.picks),
        )
        items.append(own)
    return Selected(
        num_new=add_items(engine, items),
        num_candidates=len(rows),
        num_without_input=len(unsure) - len(rows),
        choice=choice,
        has_embedding=shown.embedding is not None,
    )


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """Inputs of candidates: by id a hash, and an embedding of each in the order of the hashes."""

    hashes: dict[str, str]
    embedding: NDArray[np.float32] | None


def _asked(engine: Engine, seen: Survey) -> Pool:
    """Look at what is learnt from of this model's rows: what was asked, and what turned out.

    The audit is not, and rows of versions before have logits of another model.
    """
    answers = seen.answers
    asked = [seen.queue.get(one) for one in answers.ids]
    learnt = [
        truth >= 0 if own is None else own.item.split == ACTIVE
        for own, truth in zip(asked, answers.truths, strict=True)
    ]
    places = np.flatnonzero(learnt)[-_MOST_ASKED:]
    if not seen.model.has_embedding:
        return Pool(logits=answers.logits[places])
    shown = _look(engine, seen, places)
    kept = [place for place in places if answers.ids[place] in shown.hashes]
    return Pool(logits=answers.logits[kept], embedding=shown.embedding)


def _look(engine: Engine, seen: Survey, places: NDArray[np.int64]) -> _Shown:
    hashes: dict[str, str] = {}
    parts: list[NDArray[np.float32]] = []
    for ids, inputs in read_inputs(engine, [seen.answers.ids[place] for place in places]):
        hashes |= {one: hash_of(data) for one, data in zip(ids, inputs, strict=True)}
        if seen.model.has_embedding:
            parts.append(seen.model.embed(seen.model.inputs(inputs)))
    return _Shown(hashes=hashes, embedding=np.concatenate(parts) if parts else None)


def _members(
    engine: Engine, model: Model, ids: list[str], members: Sequence[Teacher]
) -> NDArray[np.floating] | None:
    if not members:
        return None
    said = []
    for member in members:
        logits = member.logits_of(model, ids, lambda wanted: read_inputs(engine, wanted))
        if logits is None:
            raise UsageError(f"Expected all `teacher.members` to be there but: {member.problem}")
        said.append(logits)
    return np.stack(said)


def _costs(
    given: Mapping[str, float] | None, model: Model, labels: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    if not given:
        return None
    costs = np.ones(len(model.classes))
    for name, cost in given.items():
        if name not in model.classes:
            raise UsageError(
                f"Expected classes in `costs` but got {name!r}. {nearest(name, model.classes)}"
            )
        if not isinstance(cost, int | float) or not cost > 0 or not np.isfinite(cost):
            raise UsageError(f"Expected `costs.{name}` > 0 but got {cost!r}.")
        costs[model.classes.index(name)] = cost
    return costs[labels]
