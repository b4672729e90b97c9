import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.budget import Outcome
from distill.errors import UsageError
from distill.production.experiment.decision import Counts, Decision, Evidence, Pairs, decide
from distill.production.experiment.policy import Policy
from distill.production.experiment.rollout import Stage, State, advance, begin
from distill.statistics.sequential import Moments

POLICY = Policy()
SOUND = Evidence(
    units=Counts(challenger=5000, champion=5000),
    skew=Pairs(count=5000, challenger_alone=0, champion_alone=0),
    pairs=Pairs(count=4000, challenger_alone=60, champion_alone=60),
)


def decided(outcome: Outcome) -> Decision:
    return Decision(outcome=outcome, findings=(), estimate=None, why=f"it is {outcome}")


def findings(evidence: Evidence, policy: Policy = POLICY) -> dict[str, Outcome]:
    return {finding.rule: finding.outcome for finding in decide(policy, evidence).findings}


def test_a_challenger_as_good_as_the_champion_passes_every_rule():
    decision = decide(POLICY, SOUND)
    assert decision.outcome is Outcome.PASS
    assert {finding.outcome for finding in decision.findings} == {Outcome.PASS}
    assert "no worse" in decision.why


def test_a_better_challenger_is_told_from_one_that_is_no_worse():
    pairs = Pairs(count=4000, challenger_alone=200, champion_alone=60)
    assert "it is better" in decide(POLICY, dataclasses.replace(SOUND, pairs=pairs)).why


def test_a_worse_challenger_fails_on_what_decides():
    pairs = Pairs(count=4000, challenger_alone=60, champion_alone=260)
    decision = decide(POLICY, dataclasses.replace(SOUND, pairs=pairs))
    assert decision.outcome is Outcome.FAIL
    assert "worse" in decision.why
    assert decision.estimate is not None
    assert decision.estimate.estimate == pytest.approx(-0.05)


@pytest.mark.parametrize(
    "evidence", [Evidence(), dataclasses.replace(SOUND, pairs=None)], ids=["nothing", "no labels"]
)
def test_without_labels_nothing_is_known(evidence):
    decision = decide(POLICY, evidence)
    assert decision.outcome is Outcome.INCONCLUSIVE
    assert "/feedback" in decision.why


def test_an_assignment_that_chance_does_not_explain_ends_it_whatever_else_is_good():
    broken = dataclasses.replace(SOUND, units=Counts(challenger=5400, champion=4600))
    assert findings(broken)["sample_ratio"] is Outcome.FAIL
    assert findings(SOUND)["sample_ratio"] is Outcome.PASS
    tenth = dataclasses.replace(SOUND, units=Counts(challenger=1000, champion=9000), share=0.1)
    assert findings(tenth)["sample_ratio"] is Outcome.PASS


@pytest.mark.parametrize("rule", ["errors", "timeouts", "slow"])
def test_a_guardrail_that_is_touched_fails_and_one_that_improves_does_not(rule):
    harm = dataclasses.replace(SOUND, harms={rule: Counts(challenger=60, champion=10)})
    relief = dataclasses.replace(SOUND, harms={rule: Counts(challenger=10, champion=60)})
    assert findings(harm)[rule] is Outcome.FAIL
    assert findings(relief)[rule] is Outcome.PASS


def skewed(challenger_alone: int, champion_alone: int, count: int = 5000) -> Evidence:
    skew = Pairs(count=count, challenger_alone=challenger_alone, champion_alone=champion_alone)
    return dataclasses.replace(SOUND, skew=skew)


def test_inputs_unlike_those_of_its_training_send_a_challenger_away_and_say_so():
    decision = decide(POLICY, skewed(600, 20))
    assert decision.outcome is Outcome.FAIL
    assert "600 of 5,000 units sent values new to the challenger's training alone" in decision.why
    assert findings(skewed(20, 600))["skew"] is Outcome.PASS
    assert findings(skewed(600, 600))["skew"] is Outcome.PASS


def test_new_values_within_the_margin_are_no_harm_and_few_units_tell_nothing():
    assert findings(skewed(100, 0))["skew"] is Outcome.PASS  # 2 %, and the margin is 5 %
    assert findings(skewed(250, 0))["skew"] is Outcome.INCONCLUSIVE
    assert findings(skewed(0, 0, count=50))["skew"] is Outcome.INCONCLUSIVE
    assert findings(dataclasses.replace(SOUND, skew=None))["skew"] is Outcome.INCONCLUSIVE


def test_whoever_does_not_ask_for_skew_is_told_nothing_of_it():
    assert "skew" not in findings(skewed(600, 0), Policy(skew_margin=None))


@pytest.mark.slow
def test_peeking_at_skew_on_the_margin_raises_hardly_an_alarm():
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(100):
        alone = (rng.random((60, 50)) < POLICY.skew_margin).sum(axis=1).cumsum()
        looks = (skewed(int(won), 0, count=50 * at) for at, won in enumerate(alone, start=1))
        alarms += any(findings(look)["skew"] is Outcome.FAIL for look in looks)
    assert alarms <= 5  # alpha is 1; a chance of a thousandth beyond that


def test_harm_that_has_not_shown_is_not_harm_that_is_ruled_out():
    few = dataclasses.replace(SOUND, units=Counts(challenger=150, champion=150))
    assert findings(few)["errors"] is Outcome.INCONCLUSIVE
    why = decide(POLICY, few).why
    assert why.startswith("no harm is shown, but 150 units are too few")
    (more,) = re.findall(r"about ([\d,]+) more", why)
    needed = 150 + int(more.replace(",", ""))
    enough = dataclasses.replace(SOUND, units=Counts(challenger=needed, champion=needed))
    assert findings(enough)["errors"] is Outcome.PASS
    short = dataclasses.replace(SOUND, units=Counts(challenger=needed - 20, champion=needed))
    assert findings(short)["errors"] is Outcome.INCONCLUSIVE


def test_revenue_decides_by_arms_and_of_a_cost_less_is_better():
    rng = np.random.default_rng(0)
    more, less = (rng.normal(mean, 1, 4000) for mean in (2.2, 2.0))
    arms = tuple(Moments.of(4000, float(v.sum()), float((v**2).sum())) for v in (more, less))
    assert len(arms) == 2
    evidence = dataclasses.replace(SOUND, pairs=None, arms=arms)
    revenue = Policy(outcome="revenue", margin=0.05, starts_in_shadow=False)
    cost = dataclasses.replace(revenue, outcome="cost", less_is_better=True)
    assert findings(evidence, revenue)["revenue"] is Outcome.PASS
    assert findings(evidence, cost)["cost"] is Outcome.FAIL


def test_a_challenger_that_is_good_at_every_look_becomes_champion_step_by_step():
    state, weights = begin(POLICY, 0.0), []
    while not state.stage.is_over:
        weights.append(state.weight)
        state = advance(POLICY, state, decided(Outcome.PASS), challenger_units=100, now=1.0)
    assert weights == [0, 0.01, 0.05, 0.10, 0.25, 0.50]
    assert (state.stage, state.weight) == (Stage.PROMOTED, 1.0)


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Outcome)), st.integers(0, 200), st.floats(0, 1e6)),
        max_size=40,
    )
)
def test_whatever_comes_nothing_goes_forward_without_proof(looks):
    state = begin(POLICY, 0.0)
    for outcome, units, now in looks:
        before = state
        state = advance(POLICY, state, decided(outcome), challenger_units=units, now=now)
        if before.stage.is_over:
            assert state == before
        elif outcome is Outcome.FAIL:
            assert (state.stage, state.weight) == (Stage.ABORTED, 0.0)
            assert state.until == now + POLICY.cooldown_seconds
        elif state.weight > before.weight:
            assert outcome is Outcome.PASS
            assert units >= POLICY.min_units
        elif state.stage is not Stage.ABORTED:
            assert state.is_paused
            assert (state.stage, state.weight, state.since) == (
                before.stage,
                before.weight,
                before.since,
            )


def test_a_step_without_a_decision_ends_when_its_time_is_over_and_not_by_a_clock_that_went_back():
    state = begin(POLICY, 1000.0)
    late = 1000.0 + POLICY.max_step_seconds + 1
    for now, stage in ((-1e9, Stage.SHADOW), (late - 2, Stage.SHADOW), (late, Stage.ABORTED)):
        found = advance(POLICY, state, decided(Outcome.INCONCLUSIVE), challenger_units=500, now=now)
        assert found.stage is stage
    assert "no decision within" in found.why


def test_a_shadow_alone_and_an_experiment_for_people_are_decided_and_promote_nobody():
    shadow = Policy(steps=())
    state = advance(shadow, begin(shadow, 0), decided(Outcome.PASS), challenger_units=500, now=1)
    assert (state.stage, state.weight) == (Stage.DECIDED, 0.0)
    compared = Policy(steps=(0.1,), starts_in_shadow=False, promotes=False)
    state = begin(compared, 0)
    assert (state.stage, state.weight, state.name) == (Stage.CANARY, 0.1, "canary 10%")
    state = advance(compared, state, decided(Outcome.PASS), challenger_units=500, now=1)
    assert state.stage is Stage.DECIDED


@pytest.mark.parametrize(
    "rules",
    [
        {"steps": (0.5, 0.1)},
        {"steps": (0.0, 0.1)},
        {"steps": (1.0,)},
        {"steps": (), "starts_in_shadow": False},
        {"alpha": 0.0},
        {"guardrail_alpha": 0.7},
        {"margin": -0.01},
        {"min_units": 0},
        {"outcome": "revenue"},
        {"skew_margin": 0.0},
        {"skew_margin": 1.0},
        {"cooldown_seconds": -1.0},
        {"rollback_window_seconds": -1.0},
    ],
)
def test_rules_that_make_no_sense_are_refused(rules):
    with pytest.raises(UsageError, match="Expected"):
        Policy(**rules)


def simulated(errors: tuple[float, float], accuracies: tuple[float, float], seed: int) -> State:
    """Send 20,000 units through an experiment, looked at after every 200."""
    rng, policy = np.random.default_rng(seed), Policy(steps=(0.05, 0.5), margin=0.02)
    state, units, harms, alone, labelled = begin(policy, 0.0), [0, 0], [0, 0], [0, 0], 0
    entered = 0
    for look in range(100):
        arms = rng.integers(0, 2, 200)
        for arm in (0, 1):
            units[arm] += int((arms == arm).sum())
            harms[arm] += int((rng.random((arms == arm).sum()) < errors[arm]).sum())
        hard = rng.random(200)  # what is hard for one is hard for the other
        right = [hard < accuracy for accuracy in accuracies]
        alone[0] += int((right[0] & ~right[1]).sum())
        alone[1] += int((right[1] & ~right[0]).sum())
        labelled += 200
        evidence = Evidence(
            units=Counts(challenger=units[0], champion=units[1]),
            harms={"errors": Counts(challenger=harms[0], champion=harms[1])},
            skew=Pairs(count=units[0], challenger_alone=0, champion_alone=0),
            pairs=Pairs(count=labelled, challenger_alone=alone[0], champion_alone=alone[1]),
        )
        following = advance(
            policy,
            state,
            decide(policy, evidence),
            challenger_units=units[0] - entered,
            now=float(look),
        )
        if following.since != state.since or following.stage is not state.stage:
            entered = units[0]
        state = following
        if state.stage.is_over:
            break
    return state


@pytest.mark.parametrize(
    ("errors", "accuracies", "stage"),
    [
        ((0.01, 0.01), (0.9, 0.9), Stage.PROMOTED),
        ((0.01, 0.01), (0.93, 0.9), Stage.PROMOTED),
        ((0.06, 0.01), (0.9, 0.9), Stage.ABORTED),
        ((0.01, 0.01), (0.83, 0.9), Stage.ABORTED),
    ],
    ids=["alike", "better", "fails oftener", "is wrong oftener"],
)
def test_experiments_end_where_they_should(errors, accuracies, stage):
    ends = [simulated(errors, accuracies, seed).stage for seed in range(20)]
    assert ends.count(stage) >= 18


@pytest.mark.slow
def test_one_on_the_edge_of_the_margin_is_rarely_promoted():
    ends = [simulated((0.01, 0.01), (0.88, 0.9), seed).stage for seed in range(40)]
    assert ends.count(Stage.PROMOTED) <= 6  # alpha is 2; a chance of a thousandth beyond that


def test_findings_are_plain_numbers():
    for finding in decide(POLICY, SOUND).findings:
        assert finding.measured is None or math.isfinite(finding.measured)
