"""First answers, failures in a row and skew are what Python counts from the same records."""

from collections import defaultdict
from itertools import takewhile

import numpy as np
import pytest
import sqlalchemy as sa
from prediction_logs import prediction, write

from distill.production.prediction_log.firsts import (
    FirstAnswers,
    failures_in_a_row,
    first_answers,
)
from distill.production.prediction_log.scope import Scope
from distill.production.prediction_log.units import UnitSkew, unit_skew

NEW, OLD = "b" * 64, "a" * 64


@pytest.fixture
def records(engine):
    rng, made = np.random.default_rng(3), []
    for i in range(500):
        made.append(
            prediction(
                artefact_sha256=NEW if rng.random() < 0.6 else OLD,
                role=str(rng.choice(["champion", "challenger", "shadow", "fallback"])),
                outcome=str(rng.choice(["ok", "ok", "error", "timeout", "rejected"])),
                unit=None if i % 13 == 0 else f"u{rng.integers(0, 80)}",
                latency_ms=float(rng.exponential(5)),
                odd=[None, "own", "champion", "both"][rng.integers(0, 4)],
                time=float(rng.uniform(0, 100)),
            )
        )
    write(engine, *made)
    return made


@pytest.mark.parametrize(("since", "until"), [(None, None), (20.0, 80.0), (200.0, None)])
def test_each_unit_counts_by_its_first_answer(engine, records, since, until):
    first = {}
    for one in sorted(records, key=lambda own: own.time):
        given = one.role in ("champion", "challenger") and one.outcome != "rejected"
        if given and one.artefact_sha256 == NEW and (since or 0) <= one.time < (until or 1e9):
            first.setdefault(one.unit or one.request, one)
    own = list(first.values())
    scope = Scope(artefact=NEW, since=since, until=until)
    assert first_answers(engine, scope, slow_ms=8.0) == FirstAnswers(
        units=len(own),
        errors=sum(one.outcome == "error" for one in own),
        timeouts=sum(one.outcome == "timeout" for one in own),
        slow=sum(one.latency_ms > 8 for one in own),
        skew=sum(one.odd in ("own", "both") for one in own),
    )


def test_skew_that_one_training_alone_has_not_seen_is_counted_by_unit(engine, records):
    met = defaultdict(set)
    for one in records:
        if one.role == "shadow":
            met[one.unit or one.request].add(one.odd)
    assert unit_skew(engine, Scope(), "shadow") == UnitSkew(
        units=len(met),
        challenger_only=sum("own" in odd and "champion" not in odd for odd in met.values()),
        champion_only=sum("champion" in odd and "own" not in odd for odd in met.values()),
    )


@pytest.mark.parametrize(
    "outcomes",
    ["", "o", "e", "oee", "eto", "oet", "orere", "eeeeeee"],
    ids=lambda one: one or "none",
)
def test_failures_in_a_row_end_at_the_last_answer(engine, outcomes):
    names = {"o": "ok", "e": "error", "t": "timeout", "r": "rejected"}
    for at, letter in enumerate(outcomes):
        write(engine, prediction(outcome=names[letter], latency_ms=float(at), time=float(at)))
    heard = outcomes.replace("r", "")[::-1]
    assert failures_in_a_row(engine, Scope()) == len(list(takewhile(lambda one: one != "o", heard)))


def test_rows_of_one_request_fail_once(engine):
    for at in (1.0, 2.0):
        same = {"outcome": "error", "latency_ms": at, "unit": "u"}
        write(engine, *(prediction(**same, time=at + row / 100) for row in range(30)))
    assert failures_in_a_row(engine, Scope()) == 2


def test_a_log_of_the_version_before_is_brought_up_to_date(opened):
    engine = opened()
    old = prediction(role="shadow", unit="u")
    write(engine, old)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE distill_predictions DROP COLUMN odd"))
        connection.execute(sa.text("UPDATE distill_meta SET value='1' WHERE name='schema_version'"))
    again = opened()
    write(again, prediction(role="shadow", unit="v", odd="own"))
    assert unit_skew(again, Scope(), "shadow") == UnitSkew(units=2, challenger_only=1)
    assert unit_skew(opened(), Scope(), "shadow").units == 2
