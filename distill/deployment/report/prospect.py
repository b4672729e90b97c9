"""What a student can reach, said before it is trained: from what is known of all others.

Words from plain values; decides nothing.
"""

from collections.abc import Mapping
from typing import Any

from distill.budget import AccuracyBudget
from distill.pages import percent

Values = Mapping[str, Any]


def prospect(
    baseline: Values, teacher: Values | None, budget: AccuracyBudget, *, before: bool
) -> list[str]:
    """Say between what a student will stand, and what the budget asks of it.

    Args:
        baseline: `baseline.json`.
        teacher: its accuracy as {"estimate", "interval"}; None where it is not known.
        budget: the limits on accuracy.
        before: whether the teacher is yet to be trained where its accuracy is not known.
    """
    best = baseline["baselines"][baseline["best"]]["accuracy"]
    references = _references(baseline, teacher)
    said = [_range(baseline["best"], best, references)]
    incumbent = baseline["incumbent"]
    if incumbent is not None and baseline["best"] != "incumbent":
        said.append(f"The incumbent stands at {percent(incumbent['accuracy']['estimate'], 1)}.")
    if teacher is None:
        said.append(f"The teacher is {'not trained yet' if before else 'not known on this set'}.")
    floor = _floor(budget, teacher)
    if floor is not None:
        said.append(_asked(*floor, best, references))
    return [" ".join(said)]


def _references(baseline: Values, teacher: Values | None) -> dict[str, Values]:
    """Name whoever may know more than a student can: a vote of people, and the teacher."""
    humans = baseline["humans"]
    found = {"majority of humans": humans["score"]["majority"]} if humans else {}
    return found | ({"teacher": teacher} if teacher else {})


def _range(best_name: str, best: Values, references: Mapping[str, Values]) -> str:
    low = f"{percent(best['estimate'], 1)} ({best_name.replace('_', ' ')})"
    if not references:
        return f"The best baseline stands at {low}; nothing that knows more was asked yet."
    order = sorted(references, key=lambda name: -references[name]["estimate"])
    others = [f"{name}: {percent(references[name]['estimate'], 1)}" for name in order[1:]]
    high = f"{percent(references[order[0]]['estimate'], 1)} ({'; '.join([order[0], *others])})"
    gain = 100 * (references[order[0]]["estimate"] - best["estimate"])
    if gain <= 0:
        return (
            f"The best baseline, {low}, is at least as good as {high}: unless a better teacher is "
            "found, a student has nothing to gain but speed and size."
        )
    return f"Between {low} and {high} a student has {gain:.1f} points to gain."


def _floor(budget: AccuracyBudget, teacher: Values | None) -> tuple[float, str] | None:
    """Find the highest accuracy that the budget asks for, whatever the baseline does."""
    floors = [] if budget.min is None else [(budget.min, "`accuracy.min`")]
    if budget.max_drop_vs_teacher is not None and teacher is not None:
        lowest = teacher["estimate"] - budget.max_drop_vs_teacher
        floors.append((lowest, f"{100 * budget.max_drop_vs_teacher:g} points under the teacher"))
    return max(floors, default=None)


def _asked(floor: float, why: str, best: Values, references: Mapping[str, Values]) -> str:
    asked = f"The budget asks for {percent(floor, 1)} ({why})"
    known = [best, *references.values()]
    if references and all(value["interval"][1] < floor for value in known):
        return (
            f"{asked}, which is more than anyone reaches here: expect no student to. Lower the "
            "limit, or find a better teacher."
        )
    if best["interval"][0] >= floor:
        return (
            f"{asked}, which the best baseline already holds: ship that, unless it is too slow or "
            "too large."
        )
    return f"{asked}."
