"""Claims about what disturbs a measurement: what is named, and what nobody is blamed for."""

import numpy as np
import pytest

from distill.deployment import validity


def counters(**changes):
    calm = {
        "busy_s": 0.0, "steal_s": 0.0, "throttled": 0.0, "load": 0.5,
        "celsius": None, "throttle_flags": None,
    }  # fmt: skip
    return calm | changes


def found(after, before=None, reference=None, num_cpus=1):
    step = {"before": before or counters(), "after": counters(**after), "wall_s": 10.0}
    step["cpu_s"] = 10.0
    reference = [np.full((30, 10), 1000)] if reference is None else reference
    return validity.problems([step], reference, num_threads=1, num_cpus=num_cpus)


def test_a_calm_run_has_no_problems():
    assert found({"busy_s": 10.1}) == []


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"steal_s": 1.0}, "10.0% of a CPU"),
        ({"throttled": 3.0}, "3 periods"),
        ({"throttle_flags": 0x50005}, "under-voltage"),
        ({"throttle_flags": 0x50000}, "under-voltage"),
        ({"celsius": 85.0}, "85 degrees"),
        ({"busy_s": 12.0}, "other programs took 20.0% of a CPU"),
    ],
)
def test_what_disturbs_is_named(after, words):
    assert words in found(after)[0]


def test_a_board_that_was_throttled_before_the_run_is_not_blamed_for_it():
    assert found({"throttle_flags": 0x50000}, before=counters(throttle_flags=0x50000)) == []


def test_programs_on_cpus_that_are_free_disturb_nobody():
    assert found({"busy_s": 19.0}, num_cpus=2) == []


def test_drift_is_a_steady_change_and_not_noise(rng):
    rising = [np.linspace(1000, 1200, 60)[:, None] + rng.normal(0, 5, (60, 10))]
    assert "rose" in found({}, reference=rising)[0]
    assert found({}, reference=[rng.normal(1000, 100, (60, 10))]) == []
