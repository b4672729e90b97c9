"""Policies live through days whose truth is known: who notices what, and what it takes."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from distill.errors import UsageError
from distill.production.monitoring.simulation import POLICIES, Plan, Stream, fit, simulate

DAYS, ROWS, CHANGE = 40, 80, 20


def stream(kind, *, teacher=True):
    """Three classes in five dimensions; from day `CHANGE` on another world."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(3, 5)) * 2
    days = np.repeat(np.arange(DAYS), ROWS)
    classes = rng.integers(0, 3, len(days))
    inputs = centres[classes] + rng.normal(size=(len(days), 5))
    said, late = classes.copy(), days >= CHANGE
    if kind == "moved":
        inputs[late] = -inputs[late]
    if kind == "concept":
        classes = np.where(late, (classes + 1) % 3, classes)
    return Stream(days=days, inputs=inputs, labels=classes, teacher=said if teacher else None)


@pytest.fixture(scope="module", params=["still", "moved", "concept"])
def lives(request):
    return request.param, {one.policy: one for one in simulate(stream(request.param), Plan())}


def test_all_policies_are_told_of_the_same_days(lives):
    _, found = lives
    assert tuple(found) == POLICIES
    assert {len(one.by_day) for one in found.values()} == {DAYS - 7}
    for one in found.values():
        assert one.accuracy == pytest.approx(np.mean(one.by_day))  # as many rows on each day
        assert one.regret >= 0


def test_who_notices_what(lives):
    kind, found = lives
    noticed = {name for name, one in found.items() if one.trainings and name != "calendar"}
    expected = {
        "still": set(),
        "moved": {"drift", "audited", "disagreement", "hybrid"},
        "concept": {"audited", "hybrid"},  # inputs and the teacher are as they were
    }[kind]
    assert noticed == expected
    for name in expected:
        first = found[name].trainings[0]
        assert CHANGE <= first <= CHANGE + 7
        assert found[name].regret < found["never"].regret / 2
    if kind != "still":
        assert found["audited"].delay_days == pytest.approx(3.5, abs=3.5)


def test_labels_are_counted(lives):
    _, found = lives
    plan = Plan()
    assert found["never"].labels == 0
    assert found["calendar"].labels == plan.labels * len(found["calendar"].trainings)
    audits = plan.audit_share * ROWS * (DAYS - plan.first_days)
    bought = plan.labels * len(found["audited"].trainings)
    assert found["audited"].labels - bought == pytest.approx(audits, rel=0.35)


def test_the_calendar_trains_when_it_says():
    (found,) = simulate(stream("still"), Plan(every_days=10), policies=["calendar"])
    assert np.diff(found.trainings).tolist() == [10] * (len(found.trainings) - 1)


def test_without_a_teacher_nobody_asks_one():
    found = {one.policy for one in simulate(stream("still", teacher=False), Plan())}
    assert found == set(POLICIES) - {"disagreement"}


def test_the_stand_in_is_ridge_regression():
    own = stream("still")
    known, asked = own.inputs[:200], own.inputs[200:400]
    spread = known.std(axis=0) + 1e-6
    wide = np.hstack([(known - known.mean(axis=0)) / spread, np.ones((200, 1))])
    model = Ridge(alpha=0.03 * 200, fit_intercept=False).fit(wide, np.eye(3)[own.labels[:200]])
    others = np.hstack([(asked - known.mean(axis=0)) / spread, np.ones((200, 1))])
    expected = model.predict(others).argmax(axis=1)
    np.testing.assert_array_equal(fit(known, own.labels[:200], 3)(asked), expected)


def test_a_stream_that_is_too_short_is_refused():
    own = stream("still")
    few = own.days < 5
    short = Stream(days=own.days[few], inputs=own.inputs[few], labels=own.labels[few])
    with pytest.raises(UsageError, match="got 5 days"):
        simulate(short, Plan())


def test_days_on_which_nobody_asks_are_lived_through():
    own = stream("moved")
    asked = (own.days < 12) | (own.days >= CHANGE + 2)
    gap = Stream(days=own.days[asked], inputs=own.inputs[asked], labels=own.labels[asked])
    found = {one.policy: one for one in simulate(gap, Plan())}
    assert np.isfinite([one.regret for one in found.values()]).all()
    assert CHANGE + 2 <= found["drift"].trainings[0] <= CHANGE + 9


def test_first_days_without_rows_for_the_first_model_are_refused():
    own = stream("still")
    asked = (own.days < 3) | (own.days >= 20)
    gap = Stream(days=own.days[asked], inputs=own.inputs[asked], labels=own.labels[asked])
    with pytest.raises(UsageError, match="first model is trained on but got 40 days and 0 rows"):
        simulate(gap, Plan(first_days=14, window_days=7))


def test_a_training_for_which_there_are_too_few_rows_is_none_and_costs_nothing():
    own = stream("still")
    per_day = len(own.days) // own.num_days
    rows = np.arange(len(own.days))
    asked = (own.days < 14) | (rows % per_day < 5)  # from then on 35 rows a week
    few = Stream(days=own.days[asked], inputs=own.inputs[asked], labels=own.labels[asked])
    (found,) = simulate(few, Plan(first_days=14, every_days=7), policies=["calendar"])
    assert (found.trainings, found.labels) == ((), 0)


wrong_plans = [{"first_days": 0}, {"labels": 0}, {"labels": 49}, {"audit_share": 0.0}]


@pytest.mark.parametrize("wrong", wrong_plans)
def test_plans_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Plan(**wrong)
