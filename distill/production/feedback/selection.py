"""From a strategy's walk to a budget: no duplicates, no unit too often, every class its share.

Knows a strategy's order; knows nothing of how it came about.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.errors import UsageError
from distill.production.feedback.acquisition import Pool, Strategy


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a choice must hold to.

    Attributes:
        budget: how many are chosen at most.
        per_unit: of one unit at most; None is as many as there are.
        stratified: whether every predicted class gets the same share of the budget, as far as it
            has as many.
        duplicate_distance: two inputs are one where they lie nearer than this share of the pool's
            spread, the root mean square distance from its middle; 0 takes equal inputs alone.
    """

    budget: int
    per_unit: int | None = None
    stratified: bool = False
    duplicate_distance: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what chooses nothing."""
        if self.budget < 0 or (self.per_unit is not None and self.per_unit < 1):
            raise UsageError(
                f"Expected `budget` >= 0 and `per_unit` >= 1 or null but got {self.budget} and "
                f"{self.per_unit}."
            )
        if not 0 <= self.duplicate_distance < 1:
            raise UsageError(
                f"Expected `duplicate_distance` from 0 to below 1 but got "
                f"{self.duplicate_distance}. 0.01 is a hundredth of how far inputs are spread."
            )


@dataclass(frozen=True, kw_only=True)
class Pick:
    """One that was chosen: its place in the pool, and the strategy's score."""

    place: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, the most wanted first, and why others were passed over."""

    picks: tuple[Pick, ...]
    num_duplicates: int
    num_over_unit: int


def choose(
    pool: Pool,
    strategy: Strategy,
    limits: Limits,
    *,
    units: Sequence[str] | None = None,
    hashes: Sequence[str | None] | None = None,
) -> Choice:
    """Choose up to a budget.

    Args:
        pool: of N.
        strategy: see `acquisition`.
        limits: see there.
        units: of whom each is, [N]; None where all are strangers.
        hashes: of the inputs, [N]; equal ones are duplicates.
    """
    screen = _Screen(pool, limits, units or (), hashes or ())
    predicted = np.asarray(pool.logits).argmax(axis=1)
    quota = shares(predicted, limits.budget) if limits.stratified else None
    picks: list[Pick] = []
    spare: list[Pick] = []  # of classes that have their share
    for place, score in strategy(pool):
        if len(picks) >= limits.budget:
            break
        pick, own = Pick(place=place, score=score), int(predicted[place])
        if quota is not None and not quota[own]:
            spare.append(pick)
        elif screen.takes(place):
            picks.append(pick)
            if quota is not None:
                quota[own] -= 1
    for pick in spare:  # a share that duplicates left empty
        if len(picks) < limits.budget and screen.takes(pick.place):
            picks.append(pick)
    return Choice(
        picks=tuple(picks),
        num_duplicates=screen.num_duplicates,
        num_over_unit=screen.num_over_unit,
    )


def shares(predicted: NDArray[np.int64], budget: int) -> Counter[int]:
    """Share a budget out among classes, one by one to whoever has least and has more to give.

    Args:
        predicted: class of each, [N].
        budget: how many are given out, at most N.
    """
    left = Counter(predicted.tolist())
    given: Counter[int] = Counter()
    for _ in range(min(budget, len(predicted))):
        own = min((one for one in left if left[one]), key=lambda one: (given[one], one))
        given[own] += 1
        left[own] -= 1
    return given


class _Screen:
    """Lets each input pass once, and each unit so often."""

    def __init__(
        self, pool: Pool, limits: Limits, units: Sequence[str], hashes: Sequence[str | None]
    ) -> None:
        self._features, self._units, self._hashes = pool.features, units, hashes
        self._per_unit = limits.per_unit
        spread = self._features.std(axis=0) if len(pool) else np.zeros(1)
        self._radius = limits.duplicate_distance * float(np.sqrt((spread**2).sum()))
        self._taken: list[int] = []
        self._seen: set[str] = set()
        self._times: Counter[str] = Counter()
        self.num_duplicates = self.num_over_unit = 0

    def takes(self, place: int) -> bool:
        own_hash = self._hashes[place] if self._hashes else None
        if own_hash in self._seen or self._is_near(place):
            self.num_duplicates += 1
            return False
        unit = self._units[place] if self._units else None
        if unit is not None and self._per_unit is not None:
            if self._times[unit] >= self._per_unit:
                self.num_over_unit += 1
                return False
            self._times[unit] += 1
        if own_hash is not None:
            self._seen.add(own_hash)
        self._taken.append(place)
        return True

    def _is_near(self, place: int) -> bool:
        if not self._radius or not self._taken:
            return False
        apart = self._features[self._taken] - self._features[place]
        return bool(((apart**2).sum(axis=1) < self._radius**2).any())
