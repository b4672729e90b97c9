"""What an experiment's rows amount to is what Python counts from the same records."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import sqlalchemy as sa
from prediction_logs import prediction, write

from distill.production.prediction_log.connection import writing
from distill.production.prediction_log.pairs import UnitPairs, unit_pairs
from distill.production.prediction_log.reader import stream
from distill.production.prediction_log.records import Feedback, new_id
from distill.production.prediction_log.rows import row_of
from distill.production.prediction_log.schema import FEEDBACK, insert_new
from distill.production.prediction_log.scope import Scope
from distill.production.prediction_log.units import UnitCounts, UnitSums, unit_counts, unit_sums

UNTIL = 1_000.0
ROLES = ("champion", "challenger", "fallback")


def say(engine, said):
    with writing(engine) as connection:
        insert = insert_new(FEEDBACK, engine.dialect)
        connection.exec_driver_sql(insert, [row_of(feedback) for feedback in said])


@pytest.fixture
def arms(engine, rng):
    """Three arms, two stages, another experiment; truth and clicks, some of them too late."""
    records, said = [], []
    for i in range(600):
        outcome = str(rng.choice(["ok", "ok", "ok", "error", "timeout", "rejected"]))
        record = prediction(
            experiment="other" if i % 10 == 0 else "e",
            stage=str(rng.choice(["1", "5"])),
            role=str(rng.choice(ROLES)),
            unit=None if i % 17 == 0 else f"u{rng.integers(0, 60)}",
            outcome=outcome,
            label=int(rng.integers(0, 3)) if outcome == "ok" else None,
            latency_ms=float(rng.exponential(5)),
            time=float(rng.uniform(0, 1_100)),
        )
        records.append(record)
        if rng.random() < 0.7:
            truth = int(rng.integers(0, 3))
            at = float(rng.uniform(0, 1_300))
            said.append(Feedback(prediction=record.id, label=truth, time=at))
        if rng.random() < 0.5:
            value = float(rng.normal())
            at = float(rng.uniform(0, 1_300))
            said.append(Feedback(prediction=record.id, name="revenue", value=value, time=at))
    write(engine, *records)
    say(engine, said)
    return records, said


def within(arms, **facts):
    """The records of a scope, each with its truth and its revenue, by hand."""
    records, said = arms
    known = {(f.prediction, f.name): f for f in said if f.time < UNTIL}
    for record in records:
        if record.time < UNTIL and all(getattr(record, k) == v for k, v in facts.items()):
            truth, revenue = (known.get((record.id, name)) for name in ("label", "revenue"))
            yield record, truth and truth.label, revenue and revenue.value


def by_unit(arms, roles, **facts):
    """Rows of each unit, by hand; one that is not named stands for its request."""
    units = defaultdict(list)
    for record, _, revenue in within(arms, experiment="e", **facts):
        if record.role in roles:
            units[record.unit or record.request].append((record, revenue))
    return list(units.values())


@pytest.mark.parametrize("roles", [("champion",), ("challenger", "fallback")])
@pytest.mark.parametrize("facts", [{}, {"stage": "5"}])
def test_units_count_once_for_whatever_they_met(engine, arms, roles, facts):
    units = by_unit(arms, roles, **facts)
    expected = UnitCounts(
        units=len(units),
        errors=sum(any(r.outcome == "error" for r, _ in rows) for rows in units),
        timeouts=sum(any(r.outcome == "timeout" for r, _ in rows) for rows in units),
        slow=sum(any(r.latency_ms > 9 for r, _ in rows) for rows in units),
    )
    assert 0 < expected.slow < expected.units
    scope = Scope(experiment="e", until=UNTIL, **facts)
    assert unit_counts(engine, scope, roles, slow_ms=9) == expected


def test_a_unit_that_nobody_said_anything_of_brings_nothing(engine, arms):
    units = by_unit(arms, ("champion",))
    own = np.array([sum(revenue or 0 for _, revenue in rows) for rows in units])
    found = unit_sums(engine, Scope(experiment="e", until=UNTIL), ("champion",), outcome="revenue")
    assert found.units == len(own)
    assert found.total == pytest.approx(own.sum())
    assert found.total_of_squares == pytest.approx((own**2).sum())


def test_an_experiment_without_rows_gives_nothing(engine):
    scope = Scope(experiment="none")
    assert unit_counts(engine, scope, ROLES, slow_ms=1) == UnitCounts()
    assert unit_sums(engine, scope, ROLES, outcome="revenue") == UnitSums()
    assert unit_pairs(engine, scope) == UnitPairs(count=0, champion_only=0, shadow_only=0)


@pytest.fixture
def shadowed(engine, rng):
    """Requests that champion and shadow both answered; some shadows failed or never came."""
    answers, alone, said = [], [], []
    for i in range(300):
        own = {"experiment": "e" if i % 8 else "other", "request": new_id(), "unit": f"u{i % 90}"}
        own |= {"time": float(rng.uniform(0, 1_050)), "stage": "shadow"}
        champion = prediction(**own, label=int(rng.integers(0, 3)))
        failed = rng.random() < 0.2
        label, outcome = (None, "timeout") if failed else (int(rng.integers(0, 3)), "ok")
        shadow = prediction(**own, role="shadow", label=label, outcome=outcome)
        truth = None
        if rng.random() < 0.8:
            at = float(rng.uniform(0, 1_200))
            truth = Feedback(prediction=champion.id, label=int(rng.integers(0, 3)), time=at)
            said.append(truth)
        if rng.random() < 0.9:
            answers.append((champion, shadow, truth))
        else:
            alone.append(champion)
        if rng.random() < 0.3:
            said.append(Feedback(prediction=champion.id, name="click", value=1.0))
    write(engine, *alone, *(record for pair in answers for record in pair[:2]))
    say(engine, said)
    return answers


def pairs_by_hand(shadowed):
    for champion, shadow, truth in shadowed:
        if champion.experiment == "e" and champion.time < UNTIL:
            known = truth if truth and truth.time < UNTIL else None
            yield champion, shadow, known


def test_the_first_row_of_each_unit_whose_truth_came_in_is_its_pair(engine, shadowed):
    first = {}
    for champion, shadow, truth in pairs_by_hand(shadowed):
        if truth is not None:
            known = first.get(champion.unit)
            if known is None or (truth.time, champion.request) < known[0]:
                right = champion.label == truth.label, shadow.label == truth.label
                first[champion.unit] = (truth.time, champion.request), right
    rights = Counter(right for _, right in first.values())
    expected = UnitPairs(
        count=len(first), champion_only=rights[True, False], shadow_only=rights[False, True]
    )
    assert expected.champion_only
    assert unit_pairs(engine, Scope(experiment="e", until=UNTIL)) == expected


@pytest.mark.parametrize("log_url", ["sqlite"], indirect=True)
def test_small_pages_cost_little_more_than_the_whole_at_once(engine):
    """Else every page would look through all of the rest: counted in sqlite's own steps."""
    own = [{"experiment": "e", "request": new_id(), "unit": f"u{i}"} for i in range(2_000)]
    champions = [prediction(**facts, label=0) for facts in own]
    write(engine, *champions, *(prediction(**facts, label=1, role="shadow") for facts in own))
    say(engine, [Feedback(prediction=record.id, label=0) for record in champions])
    steps = []
    sa.event.listen(
        engine, "checkout", lambda raw, *_: raw.set_progress_handler(lambda: steps.append(1), 10)
    )

    def reading(page):
        steps.clear()
        return list(stream(engine, Scope(experiment="e"), page=page)), len(steps)

    (whole, at_once), (paged, in_pages) = reading(10_000), reading(50)
    assert paged == whole
    assert len(whole) >= 2_000
    assert 0 < in_pages < 2 * at_once
