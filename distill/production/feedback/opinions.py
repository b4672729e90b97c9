"""How far the people of a queue agree: kappas of those who said something of the same items.

Knows annotations; knows nothing of how they were asked.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from distill.people.agreement import cohen_kappa, fleiss_kappa
from distill.production.prediction_log.records import Annotation


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two people on the items that both labelled.

    Attributes:
        first: who.
        second: who.
        num_both: items.
        num_same: of them, on which both say the same.
        cohen_kappa: agreement beyond chance; None where it is not defined.
    """

    first: str
    second: str
    num_both: int
    num_same: int
    cohen_kappa: float | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """All people.

    Attributes:
        num_annotators: who labelled anything.
        num_several: items that two of them or more labelled.
        pairs: with items in common, the most first.
        fleiss_kappa: over all labelled items; None where it is not defined.
    """

    num_annotators: int
    num_several: int
    pairs: tuple[Pair, ...]
    fleiss_kappa: float | None


def agreement(annotations: Sequence[Annotation], num_classes: int) -> Agreement:
    """Tell how far people agree.

    Args:
        annotations: skipped items are left out.
        num_classes: C.
    """
    by_item: dict[str, dict[str, int]] = defaultdict(dict)
    for own in annotations:
        if own.label is not None:
            by_item[own.prediction][own.annotator] = own.label
    shared: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    counts = np.zeros((len(by_item), num_classes), np.int64)
    for place, said in enumerate(by_item.values()):
        np.add.at(counts[place], list(said.values()), 1)
        for first, second in combinations(sorted(said), 2):
            shared[first, second].append((said[first], said[second]))
    pairs = [_pair(who, both, num_classes) for who, both in shared.items()]
    return Agreement(
        num_annotators=len({who for said in by_item.values() for who in said}),
        num_several=int((counts.sum(axis=1) > 1).sum()),
        pairs=tuple(sorted(pairs, key=lambda own: (-own.num_both, own.first, own.second))),
        fleiss_kappa=_defined(fleiss_kappa(counts)) if shared else None,
    )


def _pair(who: tuple[str, str], both: list[tuple[int, int]], num_classes: int) -> Pair:
    first, second = np.array(both).T
    return Pair(
        first=who[0],
        second=who[1],
        num_both=len(both),
        num_same=int((first == second).sum()),
        cohen_kappa=_defined(cohen_kappa(first, second, num_classes)),
    )


def _defined(kappa: float) -> float | None:
    return None if math.isnan(kappa) else kappa
