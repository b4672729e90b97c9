"""What asks for a training, what asks for a look, and what holds them back."""

import pytest

from distill.errors import UsageError
from distill.production.monitoring.triggers import Known, Rules, triggers

FINE = {"age_days": 30.0, "reference": 0.9}


def asked(rules=None, **known):
    return {one.name: one for one in triggers(rules or Rules(), Known(**FINE | known)) if one.fires}


@pytest.mark.parametrize(
    ("bounds", "fires"),
    [((0.80, 0.879), True), ((0.80, 0.881), False), ((0.89, 0.95), False), (None, False)],
)
@pytest.mark.parametrize(
    ("kind", "name"), [("audited", "audited accuracy"), ("estimated", "disagreement")]
)
def test_accuracy_fires_where_all_that_is_believed_lies_below_what_is_accepted(
    bounds, fires, kind, name
):
    found = asked(**{kind: bounds})
    assert (name in found) == fires
    assert all(one.asks == "retrain" for one in found.values())


def test_drift_and_skew_ask_for_a_look_and_never_for_a_training():
    found = asked(drifted=("age", "city"), skew=0.2)
    assert {name: one.asks for name, one in found.items()} == {
        "drift": "investigate",
        "skew": "investigate",
    }
    assert "age, city" in found["drift"].why


@pytest.mark.parametrize(
    ("rule", "known", "name"),
    [
        ({"max_age_days": 29.0}, {}, "age"),
        ({"min_new_labels": 50}, {"num_new_labels": 50}, "new labels"),
    ],
)
def test_what_no_rule_names_never_fires(rule, known, name):
    assert asked(**known) == {}
    assert set(asked(Rules(**rule), **known)) == {name}


def test_a_new_model_and_a_spent_budget_hold_trainings_back_but_no_looks():
    harmed = {"audited": (0.5, 0.6), "drifted": ("age",)}
    new = asked(age_days=2.0, **harmed)
    assert "for 5.0 days, since the model is new" in new["audited accuracy"].held
    assert "`rules.cooldown_days`" in new["audited accuracy"].held
    assert new["drift"].held is None
    budget = Rules(max_retrainings=3)
    spent = asked(budget, num_retrainings=3, **harmed)["audited accuracy"].held
    assert "3 trainings in 90 days already (`rules.max_retrainings`)" in spent
    assert asked(budget, num_retrainings=2, **harmed)["audited accuracy"].held is None


@pytest.mark.parametrize("name", ["max_drop", "cooldown_days", "budget_days"])
def test_rules_below_nothing_are_refused(name):
    with pytest.raises(UsageError, match=name):
        Rules(**{name: -1.0})
