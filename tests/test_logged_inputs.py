"""What `serve` wrote of an input is read back as the model took it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from served import COLUMNS

from distill.errors import UserError
from distill.production.logged_inputs import read_row, row_bytes, stacked
from distill.tables.columns import NO_DATE, Column, Kind


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.float32, np.int64]),
        hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=4),
    )
)
def test_arrays_are_read_as_they_were_written(batch):
    rows = [row_bytes({"image": batch}, i, has_rows=True) for i in range(len(batch))]
    found = stacked(rows)
    assert found.dtype == batch.dtype
    np.testing.assert_array_equal(found, batch)


def test_columns_are_read_with_their_gaps():
    feeds = {
        "age": np.array([[40.5], [np.nan]]),
        "member": np.array([[1.0], [np.nan]]),
        "city": np.array([["Zürich"], [""]], object),
        "since": np.array([[86_400_000], [NO_DATE]]),
    }
    found = stacked([row_bytes(feeds, i, has_rows=True) for i in range(2)], COLUMNS)
    for name, values in feeds.items():
        np.testing.assert_array_equal(found[name], values[:, 0])
    assert found["city"].dtype.kind == "U"


def test_windows_keep_their_length():
    feeds = {"value": np.array([[1.0, np.nan, 3.0]]), "hour": np.array([[1.0, 2.0, 3.0]])}
    columns = [Column(name=name, kind=Kind.NUMBER, length=3) for name in feeds]
    found = stacked([row_bytes(feeds, 0, has_rows=True)], columns)
    np.testing.assert_array_equal(found["value"], feeds["value"])


def test_a_table_of_one_column_is_logged_as_an_array_and_read_as_a_record():
    column = Column(name="age", kind=Kind.NUMBER)
    row = row_bytes({"age": np.array([[40.5]])}, 0, has_rows=True)
    assert stacked([row], [column])["age"].tolist() == [40.5]


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'{"a": 1}', b"\x93NUMPY\x01\x00", b"\xff"])
def test_what_is_no_logged_input_is_one_message(data):
    with pytest.raises(UserError, match="Expected a logged input"):
        read_row(data)


def test_rows_of_two_models_are_not_stacked():
    rows = [row_bytes({"x": np.zeros((1, n))}, 0, has_rows=True) for n in (2, 3)]
    with pytest.raises(UserError, match=r"row 1 float64 \[3\]"):
        stacked(rows)
    with pytest.raises(UserError, match="holds columns"):
        stacked([rows[0], b'{"a": [1]}'])


@pytest.mark.parametrize(
    ("row", "says"), [(b'{"age": [1]}', "`member` in logged row 0"), (b'{"age": ["x"]}', "`age`")]
)
def test_a_row_of_other_columns_is_one_message(row, says):
    with pytest.raises(UserError, match=says):
        stacked([row], COLUMNS)
