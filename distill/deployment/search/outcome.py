"""How a search came out, in words and figures: the winner, or what is nearest and misses what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.budget import Check, Outcome
from distill.deployment.search.preflight import excess, missed
from distill.deployment.search.record import QUALITY, Entry
from distill.pages import figure, percent

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The outcome of a search.

    Attributes:
        outcome: of the winner's verdict; `fail` where nothing can hold; else `inconclusive`.
        why: in words.
        winner: candidate, run folder, artefact and target; None where nothing passes.
        nearest: what came nearest, and each limit that it misses; None where there is a winner.
    """

    outcome: Outcome
    why: str
    winner: dict[str, Any] | None = None
    nearest: dict[str, Any] | None = None


def end(entries: Sequence[Entry], verdicts: Mapping[str, Values], stopped: str | None) -> Ending:
    """Say how a search came out.

    Args:
        entries: all candidates, the cheapest first.
        verdicts: of those that were trained in full.
        stopped: why not all was tried; None where it was.
    """
    for entry in entries:
        if entry.attempt and entry.attempt.verdict == Outcome.PASS:
            return _won(entry, verdicts[entry.name])
    survivors = [e for e in entries if e.preflight.outcome is not Outcome.FAIL]
    if not survivors:
        return _nothing_fits(entries)
    ahead = f"The search stopped early: {stopped}. " if stopped else ""
    if not verdicts:
        return _no_verdict(survivors, ahead)
    name = min(verdicts, key=lambda name: _distance(verdicts[name]))
    failed = all(verdict["verdict"] == Outcome.FAIL for verdict in verdicts.values())
    outcome = Outcome.FAIL if failed and not stopped else Outcome.INCONCLUSIVE
    misses = _misses(_nearest_artefact(verdicts[name]))
    shown = "fits" if outcome is Outcome.FAIL else "is shown to fit"
    return Ending(
        outcome=outcome,
        why=f"{ahead}Nothing {shown}. The nearest is {name}: "
        f"{'; '.join(m['text'] for m in misses)}. Raise that limit, add students to `space`, or "
        "take a better teacher.",
        nearest={"candidate": name, "misses": misses},
    )


def _won(entry: Entry, verdict: Values) -> Ending:
    assert entry.attempt is not None
    attempt = entry.attempt
    latency = f", p95 {figure(attempt.p95_latency_ms)} ms" if attempt.p95_latency_ms else ""
    return Ending(
        outcome=Outcome.PASS,
        why=f"{entry.name} is the cheapest that was found to hold the budget: {attempt.artefact}, "
        f"{percent(attempt.accuracy.estimate)} on the test set{latency}.",
        winner={
            "candidate": entry.name,
            "run_dir": attempt.run_dir,
            **verdict["chosen"],
        },
    )


def _nothing_fits(entries: Sequence[Entry]) -> Ending:
    nearest = min(entries, key=lambda entry: max(map(excess, entry.preflight.failed)))
    misses = _misses(nearest.preflight.failed)
    return Ending(
        outcome=Outcome.FAIL,
        why=f"Nothing fits: none of {len(entries)} candidates can meet the budget, whatever it "
        f"learns, so nothing was trained. The nearest is {nearest.name}: "
        f"{'; '.join(m['text'] for m in misses)}. Raise that limit, or add smaller students to "
        "`space`.",
        nearest={"candidate": nearest.name, "misses": misses},
    )


def _no_verdict(survivors: Sequence[Entry], ahead: str) -> Ending:
    trained = [entry for entry in survivors if entry.rungs]
    if not trained:
        return Ending(
            outcome=Outcome.INCONCLUSIVE,
            why=f"{ahead}Nothing is known of accuracy yet; {len(survivors)} candidates may fit. "
            "The same command with a larger `search.max_minutes` goes on.",
        )
    best = max(trained, key=lambda entry: entry.rungs[-1].outlook.chance_cheapest)
    outlook = best.rungs[-1].outlook
    return Ending(
        outcome=Outcome.INCONCLUSIVE,
        why=f"{ahead}The best known so far is {best.name}, predicted to reach "
        f"{percent(outlook.accuracy, 1)} on validation where {percent(outlook.needed, 1)} is "
        f"needed (chance {outlook.chance:.0%}). The same command with a larger "
        "`search.max_minutes` goes on.",
        nearest={"candidate": best.name, "misses": []},
    )


def _nearest_artefact(verdict: Values) -> list[Check]:
    """Take the checks that do not pass of the file that is the least away from passing."""
    checks = [Check(**check) for check in verdict["checks"]]
    names = {check.artefact for check in checks}
    bad = {n: [c for c in checks if c.artefact == n and c.outcome != Outcome.PASS] for n in names}
    return min(bad.values(), key=_away)


def _distance(verdict: Values) -> tuple[float, int]:
    return _away(_nearest_artefact(verdict))


def _away(checks: Sequence[Check]) -> tuple[float, int]:
    """Order by how far off the missed limits are, as shares; then by how many are open."""
    return sum(_gap(c) for c in checks if c.outcome == Outcome.FAIL), len(checks)


def _gap(check: Check) -> float:
    """Say by how much a limit is missed: of accuracies in points, of all else in shares of it."""
    if _is_share(check):
        return abs(check.limit - check.measured) if check.measured is not None else float("inf")
    return excess(check) - 1


def _is_share(check: Check) -> bool:
    return check.name.startswith(QUALITY) and check.name != "parity_logit_std"


def _misses(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Name each limit, what was measured, and by how much it is missed."""
    found = []
    for check in checks:
        seen, limit = check.measured, check.limit  # no limit is null in JSON
        by = None if seen is None or limit is None else abs(seen - limit)
        text = missed(check)
        if _is_share(check) and check.measured is not None and by is not None:
            sure = check.outcome == Outcome.FAIL
            name = check.name.replace("_", " ")
            text = f"{name} {percent(check.measured)}, limit {percent(check.limit)}"
            text += f", by {100 * by:.2f} points" if sure else ", too close to tell"
        elif check.outcome == Outcome.INCONCLUSIVE:
            text += f", not decided{f': {check.note}' if check.note else ''}"
        found.append(
            {
                "artefact": check.artefact,
                "name": check.name,
                "limit": check.limit,
                "measured": check.measured,
                "by": by,
                "outcome": str(check.outcome),
                "text": text,
            }
        )
    return found
