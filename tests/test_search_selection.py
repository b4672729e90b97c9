"""Claims about who is dropped from a search, and who is trained in full."""

from itertools import combinations

import numpy as np
import pytest

from distill.deployment.search.outlook import Outlook
from distill.deployment.search.selection import beaten, dropped, next_attempt
from distill.statistics.scoring import Classes


def outlook(chance, cheapest):
    return Outlook(
        accuracy=0.9, interval=(0.8, 0.95), needed=0.9, chance=chance, chance_cheapest=cheapest
    )


def answers(accuracy, n=1000):
    return np.arange(n) < accuracy * n


def lost(correct, blocks=None, confidence=0.95):
    return beaten(correct, Classes(2), blocks=blocks, confidence=confidence)


def test_what_a_cheaper_one_beats_beyond_noise_is_dropped_whatever_its_chance():
    found = {"cheap": outlook(0.9, 0.9), "dear": outlook(0.95, 0.09)}
    why = dropped(found, lost({"cheap": answers(0.95), "dear": answers(0.9)}), keep=1.0)
    assert set(why) == {"dear"}
    assert "cheap is cheaper and 5.0 points more accurate" in why["dear"]
    close = {"cheap": answers(0.951), "dear": answers(0.95)}
    assert dropped(found, lost(close), keep=1.0) == {}


def test_noise_is_what_the_confidence_and_rows_that_depend_on_each_other_leave_open():
    # Right on 60 of 1000 rows more: beyond noise at 95 %, but as 10 groups of 100 it is one group.
    cheap, dear = np.arange(1000) >= 100, np.arange(1000) >= 160
    groups = np.arange(1000) // 100
    assert set(lost({"cheap": cheap, "dear": dear})) == {"dear"}
    assert lost({"cheap": cheap, "dear": dear}, blocks=groups) == {}
    # Right on 20, wrong on 8: z = 12 / sqrt(28) = 2.27, between 1.96 of 95 % and 2.58 of 99 %.
    cheap, dear = np.arange(1000) >= 8, (np.arange(1000) < 8) | (np.arange(1000) >= 28)
    assert set(lost({"cheap": cheap, "dear": dear}, confidence=0.95)) == {"dear"}
    assert lost({"cheap": cheap, "dear": dear}, confidence=0.99) == {}


def test_those_go_on_that_are_likeliest_to_be_the_cheapest_that_holds():
    found = {
        "tiny": outlook(0.01, 0.01),
        "small": outlook(0.7, 0.69),
        "medium": outlook(0.9, 0.27),
        "large": outlook(0.99, 0.03),
    }
    alike = {name: answers(0.9) for name in found}
    why = dropped(found, lost(alike), keep=0.5)
    assert set(why) == {"tiny", "large"}
    assert "unlikely to hold" in why["tiny"]
    assert "medium is cheaper and likely holds" in why["large"]
    assert len(dropped(found, lost(alike), keep=0.01)) == 3


def next_of(chances, tried=(), *, min_chance=0.1, num_left=3, costs=None):
    found = {name: outlook(chance, 0.0) for name, chance in chances.items()}
    costs = costs or {name: 1.0 + number for number, name in enumerate(chances)}
    return next_attempt(found, costs, tried, min_chance=min_chance, num_left=num_left)


def test_the_next_attempt_is_the_cheapest_likely_one_dearer_than_what_was_tried():
    chances = {"a": 0.2, "b": 0.6, "c": 0.9}
    assert next_of(chances, min_chance=0.25) == "b"
    assert next_of(chances, ["b"], min_chance=0.25) == "c"
    assert next_of(chances, ["b", "c"], min_chance=0.25) is None
    assert next_of(chances, min_chance=0.95) == "c"  # the likeliest says what is missing
    assert next_of(chances, ["c"], min_chance=0.95) is None


def test_an_unlikely_one_is_tried_while_attempts_are_plenty_and_passed_over_while_they_are_few():
    chances = {"a": 0.2, "b": 0.3, "c": 0.6, "d": 0.8}
    costs = {"a": 1.0, "b": 1.1, "c": 1.4, "d": 1.9}
    firsts = [next_of(chances, num_left=left, costs=costs) for left in (1, 2, 3, 4)]
    assert firsts == ["c", "c", "b", "a"]
    even = dict.fromkeys(chances, 1.0)
    assert next_of(chances, num_left=1, costs=even) == "d"


@pytest.mark.parametrize("seed", range(20))
def test_attempts_are_spent_as_well_as_the_best_of_all_ways_to_spend_them(seed):
    rng = np.random.default_rng(seed)
    names = "abcdef"
    chances = dict(zip(names, rng.uniform(0.1, 1, len(names)), strict=True))
    costs = dict(zip(names, np.sort(rng.uniform(1, 4, len(names))), strict=True))
    left = int(rng.integers(1, 5))

    def worth(chosen):
        total, none_yet = 0.0, 1.0
        for name in chosen:
            total += none_yet * chances[name] / costs[name]
            none_yet *= 1 - chances[name]
        return total

    ways = [c for n in range(1, left + 1) for c in combinations(names, n)]
    assert next_of(chances, num_left=left, costs=costs) == max(ways, key=worth)[0]
