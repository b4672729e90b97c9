"""What the figures so far say of a challenger: better or no worse, worse, or not known yet.

One outcome decides; guardrails can only send away. All of it may be looked at after every request:
see `sequential`. Knows nothing of where the figures come from, nor of what follows.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from distill.budget import Outcome, at_least, at_most, conjunction
from distill.production.experiment.policy import Policy
from distill.production.registry.promotion import Finding
from distill.statistics.sequential import (
    RARE,
    Estimate,
    Moments,
    log_e_value,
    mean_difference,
    p_value,
    paired_difference,
    share_bounds,
    trials_needed,
)

GUARDRAILS = {
    "errors": "met with an error",
    "timeouts": "had no answer in time",
    "slow": "waited longer than the budget allows",
}
SKEW = "skew"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Units of each arm, each counted once."""

    challenger: int = 0
    champion: int = 0


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Units of which something may hold for both, for one alone, or for neither.

    Of labels, that an answer is right, where both gave one; of skew, that a value is new.
    """

    count: int
    challenger_alone: int
    champion_alone: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was seen so far.

    Attributes:
        units: assigned to each arm and compared.
        share: of those, that the challenger's arm should have.
        harms: by guardrail the units that met with it at least once.
        skew: of the units that the challenger was asked by, those that sent values new to the
            training of one of the two alone; None before it was asked.
        pairs: of labels, where both answered the same requests.
        arms: of the outcome by unit: the challenger's and the champion's.
    """

    units: Counts = Counts()
    share: float = 0.5
    harms: Mapping[str, Counts] = field(default_factory=dict)
    skew: Pairs | None = None
    pairs: Pairs | None = None
    arms: tuple[Moments, Moments] | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What they say.

    Attributes:
        outcome: pass: better, or no worse by more than the margin, and no guardrail is touched.
        findings: one for each rule.
        estimate: of the outcome that decides; challenger minus champion, more is better.
        why: in a sentence for people.
    """

    outcome: Outcome
    findings: tuple[Finding, ...]
    estimate: Estimate | None
    why: str


def decide(policy: Policy, evidence: Evidence) -> Decision:
    """Hold the figures against the rules."""
    estimate = estimated(policy, evidence)
    findings = (
        _sample_ratio(policy, evidence),
        *(_guardrail(policy, name, evidence) for name in GUARDRAILS),
        *_skew(policy, evidence.skew),
        _outcome(policy, estimate),
    )
    outcome = conjunction([finding.outcome for finding in findings])
    deciding = next(f for f in reversed(findings) if f.outcome is outcome)
    return Decision(outcome=outcome, findings=findings, estimate=estimate, why=deciding.note)


def estimated(policy: Policy, evidence: Evidence) -> Estimate | None:
    """Estimate by how much the challenger is better; pairs before arms, None without either."""
    if evidence.pairs is not None:
        pairs = evidence.pairs
        return paired_difference(
            pairs.challenger_alone,
            pairs.champion_alone,
            pairs.count,
            alpha=policy.alpha,
            tuned_at=policy.tuned_at,
        )
    if evidence.arms is None:
        return None
    challenger, champion = evidence.arms
    better = (champion, challenger) if policy.less_is_better else (challenger, champion)
    return mean_difference(*better, alpha=policy.alpha, tuned_at=policy.tuned_at)


def _sample_ratio(policy: Policy, evidence: Evidence) -> Finding:
    """A share of units that chance does not explain: the comparison itself is broken."""
    units, share = evidence.units, evidence.share
    p = p_value(float(log_e_value(units.challenger, units.champion, share=share)))
    total = units.challenger + units.champion
    if not total:
        return Finding(
            rule="sample_ratio",
            outcome=Outcome.INCONCLUSIVE,
            note="no units to compare yet",
            limit=policy.sample_ratio_alpha,
        )
    broken = p <= policy.sample_ratio_alpha
    note = f"{units.challenger:,} of {total:,} compared units are the challenger's, " + (
        f"where {share:.0%} were meant to be: the assignment is broken and nothing can be compared"
        if broken
        else f"as {share:.0%} should be"
    )
    return Finding(
        rule="sample_ratio",
        outcome=Outcome.FAIL if broken else Outcome.PASS,
        note=note,
        limit=policy.sample_ratio_alpha,
        measured=p,
    )


def _guardrail(policy: Policy, name: str, evidence: Evidence) -> Finding:
    """Harm fails as soon as it shows; it is none once it cannot be more than the margin."""
    harmed, units = evidence.harms.get(name, Counts()), evidence.units
    log_e = log_e_value(harmed.challenger, harmed.champion, share=evidence.share, harm_only=True)
    p = p_value(float(log_e))
    challenger, champion = (
        _share(harmed.challenger, units.challenger, policy.guardrail_alpha / 2),
        _share(harmed.champion, units.champion, policy.guardrail_alpha / 2),
    )
    interval = challenger[1] - champion[2], challenger[2] - champion[1]
    outcome = Outcome.INCONCLUSIVE
    if p <= policy.guardrail_alpha:
        outcome = Outcome.FAIL
    elif interval[1] <= policy.guardrail_margin:
        outcome = Outcome.PASS
    note = (
        f"{harmed.challenger:,} of the challenger's {units.challenger:,} units "
        f"{GUARDRAILS[name]}, and {harmed.champion:,} of the champion's {units.champion:,}"
    )
    if outcome is Outcome.FAIL:
        note += f" (p = {p:.2g}): it does harm"
    elif outcome is Outcome.INCONCLUSIVE:
        below = policy.guardrail_margin + champion[1]
        needed = _needed(harmed.challenger, units.challenger, below, policy.guardrail_alpha / 2)
        note = _too_few(note, units.challenger, needed, policy.guardrail_margin)
    return Finding(
        rule=name,
        outcome=outcome,
        note=note,
        limit=policy.guardrail_margin,
        measured=challenger[0] - champion[0],
        interval=interval,
    )


def _skew(policy: Policy, skew: Pairs | None) -> Iterator[Finding]:
    """Inputs unlike those of its training, each held against both trainings; none is no rule.

    New values alone are no harm: it fails only once they are surely too many.
    """
    margin = policy.skew_margin
    if margin is None:
        return
    found = skew or Pairs(count=0, challenger_alone=0, champion_alone=0)
    estimate = paired_difference(
        found.challenger_alone,
        found.champion_alone,
        found.count,
        alpha=policy.guardrail_alpha,
        tuned_at=policy.tuned_at,
    )
    outcome = at_most(estimate.estimate, margin, estimate.interval)
    note = (
        f"{found.challenger_alone:,} of {found.count:,} units sent values new to the challenger's "
        f"training alone, and {found.champion_alone:,} to the champion's alone"
    )
    if outcome is Outcome.FAIL:
        note += ": its training data is unlike what it is asked"
    elif outcome is Outcome.INCONCLUSIVE:
        # As `paired_difference` has it: a quarter of the error for each rate.
        needed = _needed(found.challenger_alone, found.count, margin, policy.guardrail_alpha / 4)
        note = _too_few(note, found.count, needed, margin)
    yield Finding(
        rule=SKEW,
        outcome=outcome,
        note=note,
        limit=margin,
        measured=estimate.estimate,
        interval=estimate.interval if math.isfinite(estimate.interval[1]) else None,
    )


def _needed(harmed: int, units: int, below: float, alpha: float) -> int | None:
    return trials_needed(harmed, units, below, around=RARE, alpha=alpha)


def _too_few(note: str, units: int, needed: int | None, margin: float) -> str:
    """Say that units are too few to clear a challenger, and how many more it takes at least."""
    more = "more" if needed is None else f"about {needed - units:,} more"
    return (
        f"no harm is shown, but {units:,} units are too few to rule out {margin:.0%} too many; it "
        f"takes {more} without any: {note}"
    )


def _share(harmed: int, units: int, alpha: float) -> tuple[float, float, float]:
    """Tell which share of units was harmed, and the least and most that it may be."""
    low, high = share_bounds(harmed, units - harmed, around=RARE, alpha=alpha)
    return harmed / max(units, 1), low, high


def _outcome(policy: Policy, estimate: Estimate | None) -> Finding:
    rule = "accuracy" if policy.judges_labels else policy.outcome
    if estimate is None:
        missing = "labels" if policy.judges_labels else f"`{policy.outcome}`"
        note = f"no {missing} yet: POST /feedback reports them"
        return Finding(rule=rule, outcome=Outcome.INCONCLUSIVE, note=note, limit=-policy.margin)
    outcome = at_least(estimate.estimate, -policy.margin, estimate.interval)
    return Finding(
        rule=rule,
        outcome=outcome,
        note=_worded(policy, estimate, outcome),
        limit=-policy.margin,
        measured=estimate.estimate,
        interval=estimate.interval if math.isfinite(estimate.interval[1]) else None,
    )


def _worded(policy: Policy, estimate: Estimate, outcome: Outcome) -> str:
    low, high = estimate.interval
    if policy.judges_labels:
        scale, unit, what = 100.0, " points", f"on {estimate.count:,} labelled answers"
    else:
        scale, unit, what = 1.0, "", f"over {estimate.count:,} units, `{policy.outcome}`:"
    off = f"{abs(estimate.estimate) * scale:.2f}{unit}"
    word = "better" if estimate.estimate > 0 else "worse"
    than = f"{off} {word} than" if estimate.estimate else "as good as"
    said = f"{what} the challenger is {than} the champion"
    if math.isfinite(low) and math.isfinite(high):
        said += f" ({low * scale:+.2f} to {high * scale:+.2f})"
    margin = f"{policy.margin * scale:g}{unit}"
    if outcome is Outcome.PASS:
        return said + (": it is better" if low > 0 else f": no worse than by the margin, {margin}")
    if outcome is Outcome.FAIL:
        return said + f": it is worse, by more than the margin, {margin}"
    return said + f": whether it is worse by more than {margin} is not known yet"
