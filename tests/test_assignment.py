import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distill.production.routing.assignment import Arm, assign, fnv1a, is_held_out, position

LASTS = st.sampled_from([0.5, 0.25, 0.1])


@pytest.mark.parametrize(
    ("text", "value"), [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)]
)
def test_the_hash_is_the_published_one(text, value):
    assert fnv1a(text) == value  # of the FNV authors' own test vectors


def test_a_position_is_the_one_that_growthbook_gives():
    assert position("seed", "a") == 0.0505


def test_positions_are_even_and_independent_between_experiments():
    first = [position("one", f"user {i}") for i in range(20_000)]
    second = [position("two", f"user {i}") for i in range(20_000)]
    assert stats.kstest(first, "uniform").pvalue > 0.001
    assert abs(stats.spearmanr(first, second).statistic) < 0.03


@given(st.integers(0, 9999), LASTS, st.lists(st.floats(0.01, 1), min_size=2, max_size=6))
def test_a_compared_unit_stays_in_its_arm_as_weights_grow(bucket, last, fractions):
    arms = [assign(bucket / 10_000, last * fraction, last) for fraction in sorted(fractions)]
    known = [arm for arm in arms if arm is not Arm.REST]
    assert len(set(known)) <= 1
    assert arms == [Arm.REST] * (len(arms) - len(known)) + known


@given(LASTS, st.floats(0.1, 1))
def test_the_arms_are_in_one_proportion_at_every_weight(last, fraction):
    arms = [assign(bucket / 10_000, last * fraction, last) for bucket in range(10_000)]
    challenger, control = arms.count(Arm.CHALLENGER), arms.count(Arm.CONTROL)
    assert challenger == pytest.approx(10_000 * last * fraction, abs=1.01)
    assert challenger / (challenger + control) == pytest.approx(last, abs=0.001)


def test_everybody_is_compared_at_the_last_weight():
    arms = {assign(bucket / 10_000, 0.1, 0.1) for bucket in range(10_000)}
    assert arms == {Arm.CHALLENGER, Arm.CONTROL}


def test_who_is_held_out_stays_held_out_as_the_share_grows():
    few = {unit for unit in map(str, range(5000)) if is_held_out(unit, 0.02)}
    more = {unit for unit in map(str, range(5000)) if is_held_out(unit, 0.1)}
    assert few < more
    assert len(more) == pytest.approx(500, abs=90)
