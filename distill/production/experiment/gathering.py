"""From the prediction log to an experiment's evidence. Knows nothing of rules or of routing."""

import dataclasses

from distill.production.experiment.decision import GUARDRAILS, Counts, Evidence, Pairs
from distill.production.experiment.policy import Policy, Setting
from distill.production.experiment.rollout import Stage, State
from distill.production.prediction_log.connection import Engine
from distill.production.prediction_log.pairs import unit_pairs
from distill.production.prediction_log.records import Role
from distill.production.prediction_log.scope import Scope
from distill.production.prediction_log.units import unit_counts, unit_sums
from distill.sequential import Moments

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
        pairs=_pairs(engine, scope) if policy.judges_labels else None,
        arms=None if policy.judges_labels or in_shadow else _arms(engine, policy, scope),
    )
    since = dataclasses.replace(scope, since=state.since)
    return evidence, unit_counts(engine, since, roles, slow_ms=slow_ms).units


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
