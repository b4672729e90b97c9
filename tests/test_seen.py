"""Which rows are unlike those of training, held against a look at every value."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import COLUMNS, make_service

from distill.contract import Contract, TableInput
from distill.production.serving.protocol import Tensor
from distill.production.serving.refusals import RefusedError
from distill.production.serving.seen import Seen
from distill.tables.columns import Column, Kind

KNOWN = {"city": ["Bern", "Oslo"], "size": ["", "1"]}
TABLE = (
    Column(name="city", kind=Kind.CATEGORY),
    Column(name="size", kind=Kind.CATEGORY, length=2),
    Column(name="member", kind=Kind.BOOLEAN),
    Column(name="age", kind=Kind.NUMBER),
)
VALUES = st.tuples(
    st.sampled_from(["Bern", "Oslo", "Rome", ""]),
    st.tuples(*[st.sampled_from(["", "1", "2"])] * 2),
    st.sampled_from([0.0, 1.0, math.nan, 2.0]),
    st.floats(),
)


def contract(categories, columns=TABLE):
    return Contract(
        input=None,
        normalization=None,
        table=TableInput(columns=columns, categories=categories),
        output="logits",
        classes=("no", "yes"),
        provenance={},
        golden_sha256="",
    )


@given(st.lists(VALUES, min_size=1, max_size=8))
def test_a_row_is_odd_with_a_value_that_training_has_not_seen(rows):
    feeds = {
        "city": np.array([[row[0]] for row in rows], object),
        "size": np.array([row[1] for row in rows], object),
        "member": np.array([[row[2]] for row in rows]),
        "age": np.array([[row[3]] for row in rows]),
    }
    odd = {
        number
        for number, (city, sizes, member, _) in enumerate(rows)
        if city not in ("Bern", "Oslo") or "2" in sizes or member == 2
    }
    assert Seen.of(contract(KNOWN)).odd_rows(feeds, len(rows)) == odd


def test_to_a_model_without_a_table_nothing_is_new():
    assert Seen.of(None).odd_rows({"x": np.array([["?"]], object)}, 1) == frozenset()


def test_what_is_of_another_kind_than_the_contract_says_is_left_to_the_model():
    feeds = {"city": np.array([[1.5]]), "member": np.array([["yes"]], object)}
    assert Seen.of(contract(KNOWN)).odd_rows(feeds, 1) == frozenset()


def test_the_service_tells_odd_rows_apart(people_table):
    service = make_service(people_table)
    values = {
        "age": Tensor(datatype="FP64", values=np.full((3, 1), 20.0)),
        "member": Tensor(datatype="FP64", values=np.array([[1.0], [np.nan], [0.0]])),
        "city": Tensor(datatype="BYTES", values=np.array([["Bern"], ["Rome"], ["Oslo"]], object)),
        "since": Tensor(datatype="INT64", values=np.zeros((3, 1), np.int64)),
    }
    assert [column.name for column in COLUMNS] == list(values)
    signature = service.catalogue.current.signature
    assert signature.check(values).odd_rows == {1}
    values["city"].values[2] = "x" * 1025  # who reads the log gives every row that room
    with pytest.raises(RefusedError, match=r"at most 1,024 characters in the input `city` .*1,025"):
        signature.check(values)
    longer = {"city": frozenset({"y" * 2_000})}
    signature = dataclasses.replace(signature, seen=Seen(categories=longer))
    assert signature.check(values).num_rows == 3
    values["city"].values[2] = "x" * 2_001
    with pytest.raises(RefusedError, match=r"at most 2,000 characters in the input `city` .*2,001"):
        signature.check(values)
    service.catalogue.close()
