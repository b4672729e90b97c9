"""What becomes of a challenger after its promotion, held against a model written otherwise."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.budget import Outcome
from distill.production.experiment.decision import Decision
from distill.production.experiment.policy import Policy
from distill.production.experiment.rollout import (
    Stage,
    State,
    advance,
    begin,
    rolled_back,
    sent_away,
    watch,
)
from distill.production.experiment.watch import Aftermath, Share, decide_aftermath

POLICY = Policy(
    steps=(0.1, 0.5), max_step_seconds=50.0, cooldown_seconds=20.0, rollback_window_seconds=30.0
)
RULES = ("errors", "timeouts", "slow", "skew")


def decided(outcome: Outcome) -> Decision:
    return Decision(outcome=outcome, findings=(), estimate=None, why=f"it is {outcome}")


def promoted(policy: Policy = POLICY, now: float = 0.0) -> State:
    state = begin(policy, now)
    while state.stage is not Stage.PROMOTED:
        state = advance(policy, state, decided(Outcome.PASS), challenger_units=1000, now=now)
    return state


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["look", "look", "look", "ban", "roll back"]),
        st.sampled_from(list(Outcome)),
        st.integers(0, 15),  # seconds since the event before
    ),
    max_size=25,
)


@given(EVENTS)
def test_every_way_of_an_experiment_is_that_of_a_table(events):
    """The oracle walks a list of places with counters of its own, and knows no `State`."""
    places = ["shadow", "canary 10%", "canary 50%", "promoted"]
    place, entered, end, now = 0, 0, None, 0  # `end`: where it ended, and when a cooldown does
    state = begin(POLICY, 0.0)
    for event, outcome, pause in events:
        now += pause
        if end is None and place == 3 and now - entered < 30:
            if event == "look" and outcome is Outcome.FAIL:
                end = ("rolled back", now + 20)
        elif end is None and place < 3 and event == "look":
            if outcome is Outcome.FAIL or (outcome is not Outcome.PASS and now - entered > 50):
                end = ("aborted", now + 20)
            elif outcome is Outcome.PASS:
                place, entered = place + 1, now
        if end is None and event == "ban":
            end = ("rolled back" if place == 3 else "aborted", now + 20)
        if end is None and event == "roll back" and place == 3:
            end = ("rolled back", None)
        if event == "ban":
            state = sent_away(POLICY, state, "an operator sent it away", float(now))
        elif event == "roll back":
            state = rolled_back(state, "somebody", float(now))
        elif state.stage is Stage.PROMOTED:
            state = watch(POLICY, state, decided(outcome), now=float(now))
        else:
            state = advance(POLICY, state, decided(outcome), challenger_units=1000, now=float(now))
        assert state.name == (places[place] if end is None else end[0])
        assert state.weight == ([0.0, 0.1, 0.5, 1.0][place] if end is None else 0.0)
        if end is not None:
            assert state.until == end[1]
        elif place == 3:
            assert state.until == entered + 30


def test_without_a_window_a_promotion_is_not_watched():
    policy = dataclasses.replace(POLICY, rollback_window_seconds=0.0)
    state = promoted(policy, now=7.0)
    assert not state.is_watched(7.0)
    assert watch(policy, state, decided(Outcome.FAIL), now=7.0) == state


def test_a_clock_that_went_back_ends_no_window():
    state = promoted(now=1000.0)
    back = watch(POLICY, state, decided(Outcome.FAIL), now=-1e9)
    assert (back.stage, back.why) == (Stage.ROLLED_BACK, "it is fail")


def of_all(share: Share) -> dict[str, Share]:
    return dict.fromkeys(RULES, share)


CALM = Aftermath(
    usual=of_all(Share(harmed=20, units=5000)), seen=of_all(Share(harmed=4, units=1000))
)


def outcomes(aftermath: Aftermath, policy: Policy = POLICY) -> dict[str, Outcome]:
    return {one.rule: one.outcome for one in decide_aftermath(policy, aftermath).findings}


def test_a_new_champion_that_is_as_the_old_one_was_passes_every_rule():
    assert set(outcomes(CALM).values()) == {Outcome.PASS}
    assert set(outcomes(CALM)) == {"failures", *RULES}


@pytest.mark.parametrize("rule", RULES)
def test_harm_beyond_what_was_usual_and_the_margin_fails_and_says_by_how_much(rule):
    harmed = {**CALM.seen, rule: Share(harmed=200, units=1000)}
    decision = decide_aftermath(POLICY, dataclasses.replace(CALM, seen=harmed))
    assert decision.outcome is Outcome.FAIL
    assert "200 of 1,000" in decision.why
    assert "20 of 5,000 before" in decision.why
    usual = {**CALM.usual, rule: Share(harmed=1000, units=5000)}
    as_ever = dataclasses.replace(CALM, seen=harmed, usual=usual)
    assert outcomes(as_ever)[rule] is not Outcome.FAIL


def test_failures_in_a_row_fail_at_the_limit_and_not_before():
    most = POLICY.max_consecutive_failures
    assert outcomes(dataclasses.replace(CALM, failures=most - 1))["failures"] is Outcome.PASS
    decision = decide_aftermath(POLICY, dataclasses.replace(CALM, failures=most))
    assert decision.outcome is Outcome.FAIL
    assert f"the last {most} requests failed" in decision.why


def test_where_nothing_was_seen_before_shares_tell_nothing():
    unknown = Aftermath(seen=of_all(Share(harmed=50, units=50)))
    assert {outcomes(unknown)[rule] for rule in RULES} <= {Outcome.PASS, Outcome.INCONCLUSIVE}
    assert "too little" in decide_aftermath(POLICY, Aftermath()).findings[1].note


def test_skew_that_nobody_asks_for_is_not_watched():
    policy = dataclasses.replace(POLICY, skew_margin=None)
    assert "skew" not in outcomes(CALM, policy)


def alarmed(before: float, after: float, seed: int) -> bool:
    """Watch 4,000 units one by one, after 2,000 that tell what is usual."""
    rng = np.random.default_rng(seed)
    usual = Share(harmed=int((rng.random(2000) < before).sum()), units=2000)
    harmed = (rng.random(4000) < after).cumsum()
    for at in range(0, 4000, 40):
        share = Share(harmed=int(harmed[at]), units=at + 1)
        seen = Aftermath(usual={"errors": usual}, seen={"errors": share})
        if outcomes(seen)["errors"] is Outcome.FAIL:
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(0.01, 0.01), (0.01, 0.03), (0.2, 0.22)])
def test_however_often_one_looks_what_is_within_the_margin_is_hardly_ever_taken_back(before, after):
    assert sum(alarmed(before, after, seed) for seed in range(40)) <= 3


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.06), (0.01, 0.08), (0.2, 0.32)])
def test_what_is_beyond_it_is_taken_back(before, after):
    assert sum(alarmed(before, after, seed) for seed in range(20)) >= 19
