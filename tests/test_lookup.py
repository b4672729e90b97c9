"""A sample's row is where its index stands, whatever the numbers are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distill.training.lookup import Lookup

NUMBERS = st.integers(-(2**40), 2**40)


@given(st.lists(NUMBERS, unique=True, max_size=20), st.lists(NUMBERS, max_size=20))
def test_each_sample_is_found_where_it_stands_and_no_other(indices, others):
    wanted = [*indices[::-1], *others]
    found = Lookup(np.array(indices, np.int64))(np.array(wanted, np.int64))
    assert found.tolist() == [indices.index(one) if one in indices else -1 for one in wanted]
