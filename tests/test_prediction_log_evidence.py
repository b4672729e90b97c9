"""What an experiment's rows amount to is what Python counts from the same records."""

import dataclasses
from collections import Counter, defaultdict

import numpy as np
import pytest
import sqlalchemy as sa
from prediction_logs import prediction, write

from distill.production.prediction_log.connection import writing
from distill.production.prediction_log.evidence import (
    ArmCounts,
    Moments,
    UnitTotals,
    arm_counts,
    unit_moments,
    unit_totals,
)
from distill.production.prediction_log.pairs import (
    Discordant,
    PairCounts,
    discordant,
    pair_counts,
)
from distill.production.prediction_log.reader import stream
from distill.production.prediction_log.records import Feedback, new_id
from distill.production.prediction_log.rows import row_of
from distill.production.prediction_log.schema import FEEDBACK, insert_new
from distill.production.prediction_log.scope import Scope

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


def test_arms_are_counted(engine, arms):
    limits = (2.0, 10.0)
    groups = defaultdict(list)
    for record, truth, _ in within(arms, experiment="e"):
        groups[record.stage, record.role].append((record, truth))
    expected = []
    for (stage, role), rows in sorted(groups.items()):
        outcomes = Counter(record.outcome for record, _ in rows)
        labelled = [(record, truth) for record, truth in rows if truth is not None]
        expected.append(
            ArmCounts(
                stage=stage,
                role=role,
                requests=len(rows),
                units=len({record.unit for record, _ in rows} - {None}),
                errors=outcomes["error"],
                timeouts=outcomes["timeout"],
                rejected=outcomes["rejected"],
                labelled=len(labelled),
                correct=sum(record.label == truth for record, truth in labelled),
                over=tuple(
                    sum(r.latency_ms > limit or r.outcome == "timeout" for r, _ in rows)
                    for limit in limits
                ),
            )
        )
    scope = Scope(experiment="e", until=UNTIL)
    assert len(expected) == 6
    assert arm_counts(engine, scope, limits_ms=limits) == expected
    assert arm_counts(engine, dataclasses.replace(scope, stage="5"), limits_ms=limits) == [
        counts for counts in expected if counts.stage == "5"
    ]
    plain = [dataclasses.replace(counts, over=()) for counts in expected]
    assert arm_counts(engine, scope) == plain


def totals_by_hand(arms, **facts):
    groups = defaultdict(list)
    for record, truth, revenue in within(arms, experiment="e", **facts):
        if record.unit is not None:
            groups[record.unit, record.role].append((record, truth, revenue))
    for (unit, role), rows in sorted(groups.items()):
        outcomes = Counter(record.outcome for record, *_ in rows)
        revenues = np.array([revenue for *_, revenue in rows if revenue is not None])
        yield UnitTotals(
            unit=unit,
            role=role,
            requests=len(rows),
            errors=outcomes["error"],
            timeouts=outcomes["timeout"],
            labelled=sum(truth is not None for _, truth, _ in rows),
            correct=sum(truth is not None and r.label == truth for r, truth, _ in rows),
            outcomes=len(revenues),
            sum=pytest.approx(revenues.sum(), abs=1e-9),
            sum_squares=pytest.approx((revenues**2).sum(), abs=1e-9),
        )


@pytest.mark.parametrize("page", [5, 7, 64, 2_000])
def test_units_are_added_up_whatever_the_page(engine, arms, page):
    expected = list(totals_by_hand(arms))
    scope = Scope(experiment="e", until=UNTIL)
    assert len(expected) > 64
    assert list(unit_totals(engine, scope, outcome="revenue", page=page)) == expected


def test_units_of_one_stage_are_added_up_alone(engine, arms):
    expected = list(totals_by_hand(arms, stage="1"))
    scope = Scope(experiment="e", until=UNTIL, stage="1")
    assert list(unit_totals(engine, scope, outcome="revenue")) == expected


def test_without_an_outcome_nothing_is_summed(engine, arms):
    for totals in unit_totals(engine, Scope(experiment="e")):
        assert (totals.outcomes, totals.sum, totals.sum_squares) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("numerator", "denominator"),
    [("correct", "labelled"), ("sum", "requests"), ("errors", "requests"), ("sum", "outcomes")],
)
def test_moments_are_those_of_the_units(engine, arms, numerator, denominator):
    scope = Scope(experiment="e", until=UNTIL)
    units = list(unit_totals(engine, scope, outcome="revenue"))
    expected = []
    for role in sorted(ROLES):
        x, n = (
            np.array([getattr(totals, name) for totals in units if totals.role == role], float)
            for name in (numerator, denominator)
        )
        sums = [x.sum(), n.sum(), (x * x).sum(), (n * n).sum(), (x * n).sum()]
        expected.append((role, len(x), *(pytest.approx(value, abs=1e-9) for value in sums)))
    ratio = {"numerator": numerator, "denominator": denominator}
    found = unit_moments(engine, scope, **ratio, outcome="revenue")
    assert [dataclasses.astuple(moments) for moments in found] == expected
    assert all(isinstance(moments, Moments) for moments in found)


def test_an_experiment_without_rows_gives_nothing(engine):
    scope = Scope(experiment="none")
    assert arm_counts(engine, scope) == []
    assert list(unit_totals(engine, scope)) == []
    assert unit_moments(engine, scope, numerator="correct") == []
    assert list(discordant(engine, scope)) == []
    assert pair_counts(engine, scope) == PairCounts(
        both_right=0, champion_only=0, shadow_only=0, both_wrong=0, unlabelled=0
    )


@pytest.fixture
def shadowed(engine, rng):
    """Requests that champion and shadow both answered; some shadows failed or never came."""
    answers, alone, said = [], [], []
    for i in range(300):
        own = {"experiment": "e" if i % 8 else "other", "request": new_id(), "unit": f"u{i % 9}"}
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


def test_pairs_are_counted(engine, shadowed):
    expected = Counter()
    for champion, shadow, truth in pairs_by_hand(shadowed):
        if truth is None:
            expected["unlabelled"] += 1
            continue
        right = champion.label == truth.label, shadow.label == truth.label
        names = {
            (True, True): "both_right",
            (True, False): "champion_only",
            (False, True): "shadow_only",
            (False, False): "both_wrong",
        }
        expected[names[right]] += 1
    assert len(expected) == 5
    assert pair_counts(engine, Scope(experiment="e", until=UNTIL)) == PairCounts(**expected)


@pytest.mark.parametrize("page", [1, 3, 2_000])
def test_discordant_pairs_are_read_in_the_order_of_requests(engine, shadowed, page):
    expected = [
        Discordant(
            request=champion.request,
            unit=champion.unit,
            time=truth.time,
            champion_right=champion.label == truth.label,
        )
        for champion, shadow, truth in pairs_by_hand(shadowed)
        if truth and (champion.label == truth.label) != (shadow.label == truth.label)
    ]
    assert len(expected) > 20
    scope = Scope(experiment="e", until=UNTIL)
    found = list(discordant(engine, scope, page=page))
    assert found == sorted(expected, key=lambda pair: pair.request)
    counts = pair_counts(engine, scope)
    assert sum(pair.champion_right for pair in found) == counts.champion_only
    assert sum(not pair.champion_right for pair in found) == counts.shadow_only


@pytest.mark.parametrize("log_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("read", [unit_totals, discordant, stream])
def test_small_pages_cost_little_more_than_the_whole_at_once(engine, read):
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
        return list(read(engine, Scope(experiment="e"), page=page)), len(steps)

    (whole, at_once), (paged, in_pages) = reading(10_000), reading(50)
    assert paged == whole
    assert len(whole) >= 2_000
    assert 0 < in_pages < 2 * at_once
