"""Does a new champion do harm, now that it answers everybody? What was usual says how much is.

Nobody is answered by the old one any more, so there are no arms: each guardrail has a limit, the
most that was usual and a margin, and may be looked at after every request. It can only take back.
Knows nothing of where the figures come from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from distill.budget import Outcome, conjunction
from distill.production.experiment.decision import GUARDRAILS, SKEW, Decision
from distill.production.experiment.policy import Policy
from distill.production.registry.promotion import Finding
from distill.statistics.sequential import RARE, log_e_value, p_value, share_bounds

WATCHED = {**GUARDRAILS, SKEW: "sent values new to the champion's training"}


@dataclass(frozen=True, kw_only=True)
class Share:
    """Units, each by its first answer, and those of them that met with something."""

    harmed: int = 0
    units: int = 0


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """What was seen since a promotion, and before.

    Attributes:
        usual: by guardrail, until the promotion: what the old champion's units met with; of skew,
            what the challenger was asked.
        seen: likewise since then, of the new champion.
        failures: requests that it has failed in a row, up to now.
    """

    usual: Mapping[str, Share] = field(default_factory=dict)
    seen: Mapping[str, Share] = field(default_factory=dict)
    failures: int = 0


def decide_aftermath(policy: Policy, aftermath: Aftermath) -> Decision:
    """Hold what was seen against the rules; what fails asks for the old champion."""
    findings = (_failures(policy, aftermath.failures), *_guardrails(policy, aftermath))
    outcome = conjunction([finding.outcome for finding in findings])
    deciding = next(f for f in reversed(findings) if f.outcome is outcome)
    return Decision(outcome=outcome, findings=findings, estimate=None, why=deciding.note)


def _failures(policy: Policy, failures: int) -> Finding:
    limit = policy.max_consecutive_failures
    return Finding(
        rule="failures",
        outcome=Outcome.FAIL if failures >= limit else Outcome.PASS,
        note=f"the last {failures:,} requests failed"
        if failures
        else "the last request did not fail",
        limit=limit,
        measured=failures,
    )


def _guardrails(policy: Policy, aftermath: Aftermath) -> Iterator[Finding]:
    for name in WATCHED:
        margin = policy.skew_margin if name == SKEW else policy.guardrail_margin
        if margin is not None:
            usual, seen = (of.get(name, Share()) for of in (aftermath.usual, aftermath.seen))
            yield _guardrail(name, usual, seen, margin=margin, alpha=policy.guardrail_alpha / 2)


def _guardrail(name: str, usual: Share, seen: Share, *, margin: float, alpha: float) -> Finding:
    """Hold a share against the most that was usual, with a margin.

    The chance of a false alarm is alpha for each of the two: that what was usual is bounded too
    low, and that the share is ever called higher than the bound while it is not.
    """
    limit = _bounds(usual, alpha)[1] + margin
    interval = _bounds(seen, alpha)
    outcome = Outcome.PASS if interval[1] <= limit else Outcome.INCONCLUSIVE
    note = f"{seen.harmed:,} of {seen.units:,} units {WATCHED[name]} since the promotion"
    if limit >= 1:
        note += ": too little was seen before it to tell what is usual"
        limit = 1.0
    else:
        calm = seen.units - seen.harmed
        p = p_value(float(log_e_value(seen.harmed, calm, share=limit, harm_only=True)))
        note += f", and {usual.harmed:,} of {usual.units:,} before it"
        if p <= alpha:
            outcome = Outcome.FAIL
            note += f" (p = {p:.2g}): that is more than {limit:.1%}"
    return Finding(
        rule=name,
        outcome=outcome,
        note=note,
        limit=limit,
        measured=seen.harmed / max(seen.units, 1),
        interval=interval,
    )


def _bounds(share: Share, alpha: float) -> tuple[float, float]:
    return share_bounds(share.harmed, share.units - share.harmed, around=RARE, alpha=alpha)
