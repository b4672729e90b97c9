"""The rules by which a version becomes challenger or champion: evidence in, outcomes out.

Knows answers, verdicts and margins; knows nothing of where versions are kept. What must hold in any
case (files whole, golden samples replay) is not decided here: no force sets it aside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from distill.budget import Outcome, at_most
from distill.contract import Contract
from distill.errors import UsageError
from distill.production.registry.ledger import Entry
from distill.production.registry.package import Package
from distill.statistics.metrics import Interval
from distill.statistics.scoring import Scoring
from distill.wording import check_figure, metric_name, metric_text

MAX_TOLD = 6  # checks that a note names
Marks = NDArray[Any]
Pair = tuple[Marks, Marks]  # the champion's and the candidate's


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a candidate must hold.

    Attributes:
        max_drop_vs_champion: in what decides, as a fraction (see `Scoring.compare`): the margin
            within which a tie counts.
        max_drop_on_old_test: the same on the old test set, where audited data decides.
        confidence: of the paired intervals.
    """

    max_drop_vs_champion: float = 0.01
    max_drop_on_old_test: float = 0.05
    confidence: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Request:
    """A promotion that is asked for.

    Attributes:
        alias: champion or challenger.
        version: None for the challenger, else the newest.
        force: set aside rules that do not hold; needs a reason.
        reason: in the words of whoever asks.
        audit: reads audited data, given the contract of whom it is for: inputs [N, ...], labels
            (see `TaskKind`). After a drift it decides, and the old test set is a guardrail.
    """

    alias: str
    version: int | None = None
    force: bool = False
    reason: str | None = None
    audit: Callable[[Contract], tuple[NDArray[Any], NDArray[Any]]] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be asked for."""
        if self.alias not in ("champion", "challenger"):
            raise UsageError(f"Expected `to` to be champion or challenger but got {self.alias!r}.")
        if self.force and not (self.reason or "").strip():
            raise UsageError("Expected `reason=` with `force=true`: the history will show it.")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One rule held against one candidate; figures where the rule has any."""

    rule: str
    outcome: Outcome
    note: str
    limit: float | None = None
    measured: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What came of a promotion.

    Attributes:
        outcome: of all rules together.
        entry: what the ledger says of it now; None where it was refused, or nothing was to do.
        version: that was asked for.
        findings: one for each rule.
        why: in a sentence.
    """

    outcome: Outcome
    entry: Entry | None
    version: int
    findings: tuple[Finding, ...]
    why: str


def challenger_findings(candidate: Package) -> list[Finding]:
    """A challenger must not have failed its budget; it may be an open question."""
    verdict = Outcome(candidate.verdict["verdict"])
    outcome = Outcome.FAIL if verdict is Outcome.FAIL else Outcome.PASS
    note = f"the verdict is {verdict}" + missed(candidate, Outcome.FAIL)
    return [Finding(rule="verdict_has_not_failed", outcome=outcome, note=note)]


def verdict_finding(candidate: Package) -> Finding:
    """A champion must have passed, with the very artefact that ships."""
    verdict, chosen = Outcome(candidate.verdict["verdict"]), candidate.verdict["chosen"]["artefact"]
    note = f"the verdict is {verdict}" + (f" and chose {chosen}" if chosen else "")
    if verdict is not Outcome.PASS:
        note += missed(candidate, Outcome.FAIL, Outcome.INCONCLUSIVE)
    return Finding(rule="verdict", outcome=verdict, note=note)


def missed(candidate: Package, *outcomes: Outcome) -> str:
    """Say which checks of a verdict came out so, with figures, and where all of it is told."""
    told = [
        f"{check['outcome']} {check['artefact']} {check['name']} "
        f"{check_figure(check['name'], check.get('measured'))}, limit "
        f"{check_figure(check['name'], check.get('limit'))}"
        + (f" ({check['note']})" if check.get("note") else "")
        for check in candidate.verdict["checks"]
        if check["outcome"] in outcomes
    ]
    if not told:
        return ""
    more = f"; {len(told) - MAX_TOLD} more" if len(told) > MAX_TOLD else ""
    return f": {'; '.join(told[:MAX_TOLD])}{more}; see {candidate.root / 'report.html'}"


def in_the_way(candidate: Package, findings: Sequence[Finding]) -> str:
    """Say what would decide rules that are open."""
    open_checks = [
        check["name"]
        for check in candidate.verdict["checks"]
        if check["outcome"] == Outcome.INCONCLUSIVE
    ]
    on_device = ("_ms", "_bytes", "_per_second")
    ways = []
    if any(name.endswith(on_device) for name in open_checks):
        ways.append("measure again, longer (`effort=normal`, `effort.max_seconds=`)")
    is_drop = any(finding.rule.startswith("drop_") for finding in findings)
    if is_drop or any(not name.endswith(on_device) for name in open_checks):
        ways.append("test on more samples")
    if is_drop:
        ways.append("let `audit=` decide")
    told = ", or ".join([*ways, "try it beside the champion: `to=challenger`"])
    return told[0].upper() + told[1:]


def classes_finding(candidate: Package, champion: Package) -> Finding:
    """Whoever calls the champion must be able to call the candidate: same classes, same order."""
    kinds = candidate.contract.asks.kind, champion.contract.asks.kind
    if kinds[0] is not kinds[1]:
        own, present = (kind.replace("_", " ") for kind in kinds)
        note = f"{own} where the champion answers for {present}"
        return Finding(rule="same_classes", outcome=Outcome.FAIL, note=note)
    own, present = candidate.contract.classes, champion.contract.classes
    if own == present:
        return Finding(rule="same_classes", outcome=Outcome.PASS, note=f"the same {len(own)}")
    if sorted(own) == sorted(present):
        note = "the same classes as the champion's, but in another order"
    else:
        new, gone = sorted({*own} - {*present}), sorted({*present} - {*own})
        note = (
            f"{len(own)} classes where the champion has {len(present)}: "
            f"new {', '.join(new[:5]) or 'none'}; gone {', '.join(gone[:5]) or 'none'}"
        )
    return Finding(rule="same_classes", outcome=Outcome.FAIL, note=note)


def paired_answers(
    candidate: Package, champion: Package | None, champion_sha256: str
) -> tuple[Pair, str] | None:
    """Find answers of both to one and the same test set, and say whose it is.

    Either both were tested on it, or the candidate's run asked the champion (`against=champion`).

    Returns:
        Their marks, by the candidate's scoring.
    """
    if champion is not None and champion.test_fingerprint == candidate.test_fingerprint:
        return (champion.marks(candidate.scoring), candidate.marks()), "the test set of both"
    asked = candidate.marks_of_incumbent(champion_sha256)
    return None if asked is None else ((asked, candidate.marks()), "the candidate's test set")


def drop_finding(
    rule: str,
    pair: Pair,
    where: str,
    scoring: Scoring,
    *,
    blocks: NDArray[Any] | None = None,
    max_drop: float,
    confidence: float,
) -> Finding:
    """Hold the gain of the champion over the candidate against a margin."""
    comparison = scoring.compare(*pair, blocks=blocks, confidence=confidence)
    outcome = at_most(comparison.estimate, max_drop, comparison.interval)
    before, after = (_stands(scoring, marks) for marks in pair)
    note = (
        f"on {where} ({comparison.num_samples} samples) the champion {before} and the candidate "
        f"{after}, p = {comparison.p_value:.2g}"
    )
    if outcome is Outcome.INCONCLUSIVE:
        note += "; more samples would decide"
    return Finding(
        rule=rule,
        outcome=outcome,
        note=note,
        limit=max_drop,
        measured=comparison.estimate,
        interval=comparison.interval,
    )


def _stands(scoring: Scoring, marks: Marks) -> str:
    value = scoring.value(marks)
    if scoring.is_error:
        return f"has {metric_name(scoring.metric)} {metric_text(scoring.metric, value)}"
    return f"is right on {value:.2%}"


def no_common_test(rule: str) -> Finding:
    """Without a common test set there is nothing to hold the two against each other with."""
    return Finding(
        rule=rule,
        outcome=Outcome.INCONCLUSIVE,
        note="the two were tested on different samples; run `pipeline against=champion`, which "
        "asks the champion, too",
    )
