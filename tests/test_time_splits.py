"""Claims about splits by time, for any windows of any series."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import UserError
from distill.training.data.time_splits import rolling_origins, split_windows

STEPS = st.lists(st.integers(-50, 50), min_size=1, max_size=60).map(np.array)


@given(first=STEPS, horizon=st.integers(1, 12), gap=st.integers(0, 8), share=st.floats(0.05, 0.95))
def test_all_labels_of_the_earlier_lie_before_all_of_the_later(first, horizon, gap, share):
    last = first + horizon - 1
    try:
        earlier, later = split_windows(first, last, share, gap=gap)
    except UserError:
        return
    assert last[earlier].max() + gap < first[later].min()
    border = first[later].min()
    # None is left out that could be in a part.
    assert set(later) == set(np.flatnonzero(first >= border))
    assert set(earlier) == set(np.flatnonzero(last + gap < border))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_later_part_is_as_large_as_asked_for_and_only_the_border_is_lost(share):
    first = np.repeat(np.arange(1000), 2)  # two series
    earlier, later = split_windows(first, first + 6, share, gap=3)
    assert len(later) == 2000 * share
    assert 2000 - len(earlier) - len(later) == 2 * (6 + 3)


@given(first=STEPS, horizon=st.integers(1, 6), num_origins=st.integers(1, 9))
def test_origins_ask_each_window_once_and_learn_from_the_past_alone(first, horizon, num_origins):
    last = first + horizon - 1
    try:
        found = list(rolling_origins(first, last, num_origins=num_origins, fraction=0.4))
        _, tested = split_windows(first, last, 0.4)
    except UserError:
        return
    asked = np.concatenate([origin.test for origin in found])
    assert sorted(asked) == sorted(tested)
    for origin in found:
        assert last[origin.train].max() < origin.step <= first[origin.test].min()
    sizes = [len(origin.train) for origin in found]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("fraction", [0, 1, -0.2, 1.5])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(UserError, match="between 0 and 1"):
        split_windows(np.arange(9), np.arange(9), fraction)


def test_a_part_that_would_be_empty_is_refused_with_its_counts():
    with pytest.raises(UserError, match="of 9 0 end before it and 2 begin after"):
        split_windows(np.arange(9), np.arange(9) + 20, 0.2)
    with pytest.raises(UserError, match="Expected from 1 to 2 origins"):
        list(rolling_origins(np.arange(9), np.arange(9), num_origins=3, fraction=0.2))
