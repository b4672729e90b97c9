"""Who goes on in a search, and who is trained in full, by what short trainings promise.

Plain numbers in, decisions out; knows nothing of networks or files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.deployment.search.outlook import Outlook
from distill.pages import percent
from distill.statistics.scoring import Scoring


def beaten(
    correct: Mapping[str, NDArray[np.bool_]],
    scoring: Scoring,
    *,
    blocks: NDArray[Any] | None,
    confidence: float,
) -> dict[str, tuple[str, float]]:
    """Find the candidates that a cheaper one beats beyond noise; by which, and by how much.

    Args:
        correct: whether each validation sample is answered right, [N] by candidate, the cheapest
            first.
        scoring: of the task.
        blocks: of the samples, see `Truth`.
        confidence: of the intervals that tell what is noise.
    """
    found: dict[str, tuple[str, float]] = {}
    names = list(correct)
    for number, name in enumerate(names):
        for cheaper in names[:number]:
            if cheaper in found:
                continue
            pair = correct[cheaper], correct[name]
            ahead = scoring.compare(*pair, blocks=blocks, confidence=confidence)
            if ahead.interval[0] >= 0:
                found[name] = cheaper, ahead.estimate
                break
    return found


def dropped(
    found: Mapping[str, Outlook], lost: Mapping[str, tuple[str, float]], keep: float
) -> dict[str, str]:
    """Say which candidates go no further, and why.

    A share `keep` of them stays: those that are the likeliest to be the cheapest that holds. What
    was beaten goes in any case; one always stays.

    Args:
        found: by candidate, the cheapest first.
        lost: see `beaten`.
        keep: share that stays.
    """
    reasons = {
        name: f"{cheaper} is cheaper and {100 * ahead:.1f} points more accurate"
        for name, (cheaper, ahead) in lost.items()
    }
    ranked = sorted(
        (name for name in found if name not in reasons),
        key=lambda name: (found[name].chance_cheapest, found[name].chance),
        reverse=True,
    )
    for name in ranked[max(1, int(np.ceil(keep * len(found)))) :]:
        reasons[name] = _why(name, found)
    return {name: reasons[name] for name in found if name in reasons}


def _why(name: str, found: Mapping[str, Outlook]) -> str:
    own = found[name]
    if own.chance < 0.5:
        return (
            f"unlikely to hold: {percent(own.accuracy, 1)} predicted in full, "
            f"{percent(own.needed, 1)} needed (chance {own.chance:.0%})"
        )
    names = list(found)
    cheaper = max(names[: names.index(name)], key=lambda other: found[other].chance)
    return f"{cheaper} is cheaper and likely holds, too (chance {found[cheaper].chance:.0%})"


def next_attempt(
    found: Mapping[str, Outlook],
    costs: Mapping[str, float],
    tried: Sequence[str],
    *,
    min_chance: float,
    num_left: int,
) -> str | None:
    """Name the candidate to train in full next, so that the attempts left are worth the most.

    Of all ways to spend them, from cheap to dear and until one holds, the one that is expected to
    find the most: a candidate that holds is worth the inverse of its cost. So a cheap one that is
    unlikely to hold is tried where attempts are plenty, and passed over where they are few (dynamic
    programming; chances are taken as independent, and are new after every attempt).

    What is cheaper than one that was tried in vain is left out. Where nothing has been tried and
    nothing is likely to hold, the likeliest: its verdict says what is missing.

    Args:
        found: by candidate, the cheapest first.
        costs: of a call, by candidate, above 0.
        tried: candidates whose verdict is known, and did not pass.
        min_chance: of holding, below which nothing is tried.
        num_left: attempts, at least 1.
    """
    names = list(found)
    first = max((names.index(name) + 1 for name in tried if name in found), default=0)
    likely = [name for name in names[first:] if found[name].chance >= min_chance]
    if not likely:
        return None if tried else max(names, key=lambda name: found[name].chance)
    # By attempts left: what the dearer ones are worth, and which of them is tried first.
    plans: list[tuple[float, str | None]] = [(0.0, None)] * (num_left + 1)
    for name in reversed(likely):
        chance, cost = found[name].chance, costs[name]
        for left in range(num_left, 0, -1):
            worth = chance / cost + (1 - chance) * plans[left - 1][0]
            plans[left] = max(plans[left], (worth, name), key=lambda plan: plan[0])
    return plans[num_left][1]
