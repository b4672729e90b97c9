"""From the prediction log to an experiment's evidence, and to what came after its promotion.

Knows nothing of rules or of routing.
"""

import dataclasses
from collections.abc import Mapping

from distill.production.experiment.decision import GUARDRAILS, SKEW, Counts, Evidence, Pairs
from distill.production.experiment.policy import Policy, Setting
from distill.production.experiment.rollout import Stage, State
from distill.production.experiment.watch import WATCHED, Aftermath, Share
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.firsts import failures_in_a_row, first_answers
from distill.production.prediction_log.pairs import unit_pairs
from distill.production.prediction_log.records import Role
from distill.production.prediction_log.scope import Scope
from distill.production.prediction_log.units import unit_counts, unit_skew, unit_sums
from distill.statistics.sequential import Moments

SHADOWED: tuple[Role, ...] = ("shadow",)
CHALLENGED: tuple[Role, ...] = ("challenger", "fallback")  # whoever answers for it, the unit is its
CONTROL: tuple[Role, ...] = ("champion",)


def gather(
    engine: Engine,
    setting: Setting,
    state: State,
    *,
    until: float | None = None,
) -> tuple[Evidence, int]:
    """Read what was seen so far.

    While the challenger is a shadow both arms are the same units; afterwards they are those that it
    answers and those they are compared with. Pairs count from the beginning on.

    Args:
        engine: an open log.
        setting: of the experiment.
        state: of it, then.
        until: UTC seconds; None is now.

    Returns:
        The evidence, and the units that the challenger has answered since the step began.

    Raises:
        LogUnavailableError: the log cannot be read now.
    """
    policy, slow_ms = setting.policy, setting.slow_ms
    in_shadow = state.stage is Stage.SHADOW
    roles = SHADOWED if in_shadow else CHALLENGED
    scope = Scope(experiment=setting.experiment, stage=state.stage, until=until)
    challenger, champion = (
        unit_counts(engine, scope, of, slow_ms=slow_ms) for of in (roles, CONTROL)
    )
    evidence = Evidence(
        units=Counts(challenger=challenger.units, champion=champion.units),
        share=0.5 if in_shadow else policy.share,
        harms={
            name: Counts(challenger=getattr(challenger, name), champion=getattr(champion, name))
            for name in GUARDRAILS
        },
        skew=None if policy.skew_margin is None else _skew(engine, scope, roles[0]),
        pairs=_pairs(engine, scope) if policy.judges_labels else None,
        arms=None if policy.judges_labels or in_shadow else _arms(engine, policy, scope),
    )
    since = dataclasses.replace(scope, since=state.since)
    return evidence, unit_counts(engine, since, roles, slow_ms=slow_ms).units


def usual(
    engine: Engine, setting: Setting, begun: float | None, promoted: float
) -> dict[str, Share]:
    """Read what was usual before a promotion; it costs as much as the experiment was long.

    Args:
        engine: an open log.
        setting: of the experiment.
        begun: when the challenger first answered somebody, UTC seconds; None where it is not known.
        promoted: when it became champion.

    Raises:
        LogUnavailableError: the log cannot be read now.
    """
    old, new = (
        _shares(engine, setting, Scope(artefact=own.artefact_sha256, since=begun, until=promoted))
        for own in (setting.champion, setting.challenger)
    )
    return {**old, SKEW: new[SKEW]}


def aftermath(
    engine: Engine,
    setting: Setting,
    before: Mapping[str, Share],
    promoted: float,
    *,
    until: float | None = None,
) -> Aftermath:
    """Read what was seen of a new champion since its promotion, whoever logged it.

    Args:
        engine: an open log.
        setting: of the experiment.
        before: of `usual`.
        promoted: when it became champion, UTC seconds.
        until: None is now.

    Raises:
        LogUnavailableError: the log cannot be read now.
    """
    scope = Scope(artefact=setting.challenger.artefact_sha256, since=promoted, until=until)
    return Aftermath(
        usual=before,
        seen=_shares(engine, setting, scope),
        failures=failures_in_a_row(engine, scope),
    )


def _shares(engine: Engine, setting: Setting, scope: Scope) -> dict[str, Share]:
    found = first_answers(engine, scope, slow_ms=setting.slow_ms)
    return {name: Share(harmed=getattr(found, name), units=found.units) for name in WATCHED}


def _skew(engine: Engine, scope: Scope, role: Role) -> Pairs | None:
    found = unit_skew(engine, scope, role)
    if not found.units:
        return None
    return Pairs(
        count=found.units,
        challenger_alone=found.challenger_only,
        champion_alone=found.champion_only,
    )


def _pairs(engine: Engine, scope: Scope) -> Pairs | None:
    found = unit_pairs(engine, dataclasses.replace(scope, stage=None))
    if not found.count:
        return None
    return Pairs(
        count=found.count,
        challenger_alone=found.shadow_only,
        champion_alone=found.champion_only,
    )


def _arms(engine: Engine, policy: Policy, scope: Scope) -> tuple[Moments, Moments]:
    sums = [unit_sums(engine, scope, of, outcome=policy.outcome) for of in (CHALLENGED, CONTROL)]
    first, second = (Moments.of(one.units, one.total, one.total_of_squares) for one in sums)
    return first, second
