import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from distill.deployment.device.gate import (
    binomial_at_least,
    binomial_at_most,
    design_effect,
    incomplete_beta,
    judge,
)

positive = st.floats(0.05, 2000)


@given(positive, positive, st.floats(0, 1))
def test_the_incomplete_beta_function_is_scipys(a, b, x):
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), abs=1e-9)


@given(st.integers(1, 400), st.floats(0.01, 0.6), st.data())
def test_binomial_tails_are_scipys(n, share, draw):
    t = draw.draw(st.integers(0, n))
    assert binomial_at_most(t, n, share) == pytest.approx(stats.binom.cdf(t, n, share), abs=1e-9)
    assert binomial_at_least(t, n, share) == pytest.approx(
        stats.binom.sf(t - 1, n, share), abs=1e-9
    )


def independent(rng, processes=5):
    return [1e6 * rng.lognormal(0, 0.3, (60, 10)) for _ in range(processes)]


def test_mlperfs_number_of_queries_is_what_an_untroubled_run_needs(rng):
    # MLPerf's early stopping at 99 %: p90 44, p99 459 queries with none over the limit.
    for level, queries in ((90, 44), (99, 459)):
        share = 1 - level / 100
        assert binomial_at_most(0, queries, share) <= 0.01 < binomial_at_most(0, queries - 1, share)


def test_a_limit_far_away_is_decided_at_the_first_look(rng):
    taken = independent(rng)
    truth = 1e6 * np.exp(1.6448536 * 0.3)
    passed, failed = (judge(taken, f * truth, 95, 0.95, first_look=5) for f in (1.5, 0.7))
    assert (passed.outcome, passed.num_looks) == ("pass", 1)
    assert (failed.outcome, failed.num_looks) == ("fail", 1)
    assert passed.num_calls == 3000


def test_a_limit_at_the_percentile_itself_is_inconclusive():
    wrong = {"pass": 0, "fail": 0, "inconclusive": 0}
    truth = 1e6 * np.exp(1.6448536 * 0.3)
    for trial in range(200):
        taken = independent(np.random.default_rng(trial))
        wrong[judge(taken, truth, 95, 0.95, first_look=5).outcome] += 1
    # Error 2.5 % each way at the first look; 3 standard errors of 200 trials are 3.3 %.
    assert wrong["pass"] <= 200 * (0.025 + 0.033)
    assert wrong["fail"] <= 200 * (0.025 + 0.033)


def test_too_few_calls_say_how_many_it_takes():
    taken = [np.full((5, 10), 1e6)] * 2
    found = judge(taken, 2e6, 99, 0.95, first_look=2)
    assert found.outcome == "inconclusive"
    # (1 - 0.01)^n <= 0.05 / 6, the error of the second look that more calls would mean
    assert found.calls_needed == int(np.ceil(np.log(0.05 / 6) / np.log(0.99)))


def test_independent_calls_have_a_design_effect_near_one(rng):
    effects = [design_effect([rng.random((60, 10)) < 0.05 for _ in range(5)]) for _ in range(50)]
    assert 1.0 <= np.median(effects) < 3.5


def test_calls_that_come_in_clumps_count_less(rng):
    def clumped():
        return np.repeat(rng.random(30) < 0.05, 20).reshape(60, 10)

    effects = [design_effect([clumped() for _ in range(5)]) for _ in range(50)]
    assert 18 < np.median(effects) < 60  # 20 calls are alike


def test_processes_that_differ_count_as_clusters():
    processes = [np.zeros((60, 10), bool)] * 4 + [np.ones((60, 10), bool)]
    assert design_effect(processes) > 500


def test_later_looks_spend_less_of_the_error():
    # With none over the limit a share of 5 % is refused at 2.5 % by 72 calls, at 0.83 % by 94.
    assert binomial_at_most(0, 72, 0.05) <= 0.025 < binomial_at_most(0, 71, 0.05)
    slow, quiet = np.full((1, 1), 3e6), np.full((1, 79), 1e6)
    assert judge([quiet], 2e6, 95, 0.95, first_look=1).outcome == "pass"
    # The same calls, one of them slow and seen at a first look alone, which decides nothing.
    late = judge([slow, quiet], 2e6, 95, 0.95, first_look=1)
    assert (late.outcome, late.num_looks) == ("inconclusive", 2)
    assert binomial_at_most(1, 80, 0.05) > 0.05 / 6
