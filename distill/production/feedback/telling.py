"""What a selection or a collection did, in a few lines for people, and what comes next.

Knows surveys, choices and rows; knows nothing of a terminal.
"""

from pathlib import Path

import numpy as np

from distill.audit import MIN_ROWS, evenly
from distill.dataset_versions import ACTIVE, AUDIT, UNLABELLED, Rows, counts
from distill.production.feedback.collecting import Collected
from distill.production.feedback.selecting import Selected
from distill.production.feedback.survey import Survey
from distill.production.feedback.tiers import Tier

ADDRESS = "http://127.0.0.1:8000/review"


def selected(seen: Survey, done: Selected, *, strategy: str, budget: int) -> list[str]:
    """Say what was chosen of how many, or why nothing was; and how the audit stands."""
    total, found = len(seen.answers), done.choice
    if done.num_new:
        line = f"{strategy} chose {done.num_new:,} of {done.num_candidates:,} predictions"
    else:
        line = f"{strategy} chose nothing" + (" (limits.budget=0)" if not budget else "")
    over = [f"{found.num_duplicates:,} duplicates"] if found.num_duplicates else []
    over += [f"{found.num_over_unit:,} over limits.per_unit"] if found.num_over_unit else []
    lines = [line + (f", passing over {' and '.join(over)}." if over else ".")]
    others = {why: count for why, count in _unasked(seen, done).items() if count}
    if total in others.values():
        lines.append(f"All {total:,} predictions {next(iter(others))}.")
    elif others:
        told = ", ".join(f"{count:,} {why}" for why, count in others.items())
        lines.append(f"Of all {total:,} predictions {told}.")
    return [*lines, _audit(seen)]


def collected(seen: Survey, done: Collected, path: Path, *, is_new: bool) -> list[str]:
    """Say what a version holds, what was left out, and whether training can be judged by it."""
    found = counts(done.rows)
    learnt = ", ".join(f"{n:,} by {who.replace('_', ' ')}" for who, n in found[ACTIVE].items())
    number = sum(found[ACTIVE].values())
    lines = [
        f"{path} ({'new' if is_new else 'nothing has changed'}): {number:,} rows to learn from"
        + (f" ({learnt})" if learnt else "")
        + f", {sum(found[AUDIT].values()):,} of the audit, {sum(found[UNLABELLED].values()):,} "
        "that nobody spoke of.",
        _audit(seen),
    ]
    if done.num_leaks:
        lines.append(
            f"{done.num_leaks:,} chosen rows are left out: the audit has the very same inputs, and "
            "what judges is not learnt from (`num_leaks`)."
        )
    usable, number = usable_audit(done.rows), sum(found[AUDIT].values())
    thinned = f" of {number:,}, thinned to the smallest share" if usable < number else ""
    line = f"At most {usable:,} audited rows{thinned} can judge a model trained again, and "
    line += f"{MIN_ROWS} must: those whose inputs it was trained on are left out, too."
    return [*lines, line]


def usable_audit(rows: Rows) -> int:
    """Count audited rows that are labelled and all drawn with one probability."""
    audit = rows.of(AUDIT)
    return int(evenly(audit.ids.tolist(), audit.inclusion_probabilities).sum())


def to_label(num_waiting: int, serve: str) -> str:
    """Say where people label.

    Args:
        num_waiting: items that somebody may be handed now.
        serve: the command that shows them.
    """
    if not num_waiting:
        return "No item waits for anybody at /review."
    what = "1 item waits" if num_waiting == 1 else f"{num_waiting:,} items wait"
    return f"{what} at /review: `{serve}`, then {ADDRESS}"


def share_told(seen: Survey) -> list[str]:
    """Say from when on the audit's share holds, where it was another one."""
    if len(seen.shares) < 2:
        return []
    before, now = seen.shares[-2], seen.shares[-1]
    return [
        f"The audit's share is {now.share:.1%} of the predictions that came after it was set; of "
        f"those before it stays {before.share:.1%}. Where both judge, the larger is thinned to the "
        "smaller; `looking.days=` looks back less far."
    ]


def _audit(seen: Survey) -> str:
    own, share = seen.audit, seen.shares[-1].share
    drawn = f"The audit ({share:.1%}): {own.num_drawn:,} drawn, {seen.num_drawn:,} of them now; "
    judged = own.num_drawn - own.num_open
    found = own.accuracy(confidence=0.95)
    accuracy = "" if found is None else f", accuracy {found.estimate:.1%}"
    if found is not None and own.num_answered < len(own.ids):
        accuracy += f" on the {own.num_answered:,} that this version answered"
    return f"{drawn}{judged:,} have a label{accuracy}, {own.num_open:,} are open."


def _unasked(seen: Survey, done: Selected) -> dict[str, int]:
    """Count predictions that could not be chosen, by the reason."""
    known = seen.answers.truths >= 0
    waits = np.array([one in seen.queue for one in seen.answers.ids], bool) & ~known
    free = int((~known & ~waits).sum())
    return {
        "have a truth already": int(known.sum()),
        "are in the queue already": int(waits.sum()),
        "are older than the latest `looking.max_pool`": free - len(seen.pool),
        "need nobody, since the teacher is sure": sum(t is not Tier.UNSURE for t in seen.tiers),
        "have no input that could be shown": done.num_without_input,
    }
