"""What a student can reach, said before it is trained: from what is known of all others.

Words from plain values; decides nothing.
"""

from collections.abc import Mapping
from typing import Any

from distill.budget import AccuracyBudget
from distill.statistics.metrics import estimate_from
from distill.wording import ERRORS, metric_name, metric_text

Values = Mapping[str, Any]


def prospect(
    baseline: Values, teacher: Values | None, budget: AccuracyBudget, *, before: bool
) -> list[str]:
    """Say between what a student will stand, and what the budget asks of it.

    Args:
        baseline: `baseline.json`.
        teacher: its metric as {"estimate", "interval"}; None where it is not known.
        budget: the limits on it.
        before: whether the teacher is yet to be trained where its metric is not known.
    """
    metric = baseline["metric"]
    best = baseline["baselines"][baseline["best"]][metric]
    references = _references(baseline, teacher)
    said = [_range(metric, baseline["best"], best, references)]
    incumbent = baseline["incumbent"]
    if incumbent is not None and baseline["best"] != "incumbent":
        said.append(f"The incumbent stands at {_text(metric, incumbent[metric]['estimate'])}.")
    if teacher is None:
        said.append(f"The teacher is {'not trained yet' if before else 'not known on this set'}.")
    limit = _limit(metric, budget, teacher)
    if limit is not None:
        said.append(_asked(metric, *limit, best, references))
    return [" ".join(said)]


def _text(metric: str, value: float) -> str:
    """Write a metric; an error with its name, for it is no percentage."""
    if metric in ERRORS:
        return f"{metric_name(metric)} {metric_text(metric, value)}"
    return metric_text(metric, value, 1)


def _references(baseline: Values, teacher: Values | None) -> dict[str, Values]:
    """Name whoever may know more than a student can: a vote of people, and the teacher."""
    humans = baseline["humans"]
    found = {"majority of humans": humans["score"]["majority"]} if humans else {}
    return found | ({"teacher": teacher} if teacher else {})


def _range(metric: str, best_name: str, best: Values, references: Mapping[str, Values]) -> str:
    low = f"{_text(metric, best['estimate'])} ({best_name.replace('_', ' ')})"
    if not references:
        return f"The best baseline stands at {low}; nothing that knows more was asked yet."
    sign = -1 if metric in ERRORS else 1
    order = sorted(references, key=lambda name: -sign * references[name]["estimate"])
    others = [f"{name}: {_text(metric, references[name]['estimate'])}" for name in order[1:]]
    most = references[order[0]]["estimate"]
    high = f"{_text(metric, most)} ({'; '.join([order[0], *others])})"
    gain = most - best["estimate"]
    if metric in ERRORS:
        gain = 1 - most / best["estimate"] if best["estimate"] else 0.0
    if gain <= 0:
        return (
            f"The best baseline, {low}, is at least as good as {high}: unless a better teacher is "
            "found, a student has nothing to gain but speed and size."
        )
    unit = "%" if metric in ERRORS else "points"
    return f"Between {low} and {high} a student has {100 * gain:.1f} {unit} to gain."


def _limit(metric: str, budget: AccuracyBudget, teacher: Values | None) -> tuple[float, str] | None:
    """Find the hardest limit of the budget on the metric, whatever the baseline does."""
    drop, is_error = budget.max_drop_vs_teacher, metric in ERRORS
    own, name = (budget.max, "max") if is_error else (budget.min, "min")
    limits = [] if own is None else [(own, f"`accuracy.{name}`")]
    if drop is not None and teacher is not None and (drop < 1 or not is_error):
        at = teacher["estimate"] / (1 - drop) if is_error else teacher["estimate"] - drop
        far = f"{100 * drop:g} {'% over' if is_error else 'points under'} the teacher"
        limits.append((at, far))
    return (min if is_error else max)(limits, default=None)


def _asked(
    metric: str, limit: float, why: str, best: Values, references: Mapping[str, Values]
) -> str:
    wanted = metric_text(metric, limit, 1)
    if metric in ERRORS:
        wanted = f"{metric_name(metric)} of {wanted} at most"
    asked = f"The budget asks for {wanted} ({why})"
    known = [best, *references.values()]
    if references and all(_misses(metric, value, limit) for value in known):
        return (
            f"{asked}, which is more than anyone reaches here: expect no student to. Lower the "
            "limit, or find a better teacher."
        )
    if _holds(metric, best, limit):
        return (
            f"{asked}, which the best baseline already holds: ship that, unless it is too slow or "
            "too large."
        )
    return f"{asked}."


def _misses(metric: str, value: Values, limit: float) -> bool:
    low, high = estimate_from(value).interval
    return low > limit if metric in ERRORS else high < limit


def _holds(metric: str, value: Values, limit: float) -> bool:
    low, high = estimate_from(value).interval
    return high <= limit if metric in ERRORS else low >= limit
