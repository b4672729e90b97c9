import pytest
import yaml
from commands import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from distill.budget import Check, Outcome, at_least, at_most, choose, conjunction, parse_budget
from distill.errors import UsageError

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
numbers = st.floats(-1e6, 1e6)


def check(artefact, outcome):
    return Check(
        artefact=artefact,
        target="t",
        name="n",
        limit=1.0,
        measured=1.0,
        interval=None,
        outcome=outcome,
    )


@given(st.lists(numbers, min_size=3, max_size=3), numbers)
def test_only_an_interval_wholly_on_one_side_decides(values, limit):
    low, measured, high = sorted(values)
    outcome = at_most(measured, limit, (low, high))
    assert (outcome is PASS) == (high <= limit)
    assert (outcome is FAIL) == (low > limit)
    mirrored = at_least(-measured, -limit, (-high, -low))
    assert mirrored is outcome


def test_an_exact_figure_is_never_inconclusive():
    assert at_most(1.0, 1.0, None) is PASS
    assert at_most(1.1, 1.0, None) is FAIL
    assert at_least(1.0, 1.0, None) is PASS


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [([], PASS), ([PASS, INCONCLUSIVE], INCONCLUSIVE), ([INCONCLUSIVE, FAIL, PASS], FAIL)],
)
def test_conjunction(outcomes, expected):
    assert conjunction(outcomes) is expected


def test_the_cheapest_that_passes_is_chosen_and_float_may_win():
    checks = [check("fp32", PASS), check("int8", PASS)]
    assert choose(checks, {"fp32": 1.0, "int8": 1.3}).artefact == "fp32"
    assert choose(checks, {"fp32": 1.0, "int8": 0.3}).artefact == "int8"


def test_a_cheaper_artefact_that_fails_is_passed_over():
    choice = choose([check("fp32", PASS), check("int8", FAIL)], {"fp32": 1.0, "int8": 0.3})
    assert (choice.outcome, choice.artefact) == (PASS, "fp32")


@pytest.mark.parametrize(
    ("fp32", "int8", "expected"),
    [(FAIL, FAIL, FAIL), (FAIL, INCONCLUSIVE, INCONCLUSIVE), (INCONCLUSIVE, FAIL, INCONCLUSIVE)],
)
def test_nothing_is_chosen_unless_something_passes(fp32, int8, expected):
    choice = choose([check("fp32", fp32), check("int8", int8)], {"fp32": 1.0, "int8": 2.0})
    assert (choice.outcome, choice.artefact) == (expected, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latency": {"p59_ms": 1}}, "`p95_ms`"),
        ({"size": 3}, "Did you mean `size_bytes`"),
        ({"confidence": 2.0}, "confidence"),
        (
            {"accuracy": {"metric": "f1"}},
            "one of accuracy, label_accuracy, rmse, mae, mase, pinball",
        ),
        ({"accuracy": {"maximum": 3.0}}, "Did you mean `max"),
        ({"accuracy": {"max": "3 %"}}, "max"),
        ({"size_bytes": "big"}, "size_bytes"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        parse_budget(values)


@pytest.mark.parametrize(
    "metric", [None, "accuracy", "label_accuracy", "rmse", "mae", "mase", "pinball"]
)
def test_a_budget_names_any_metric_that_some_task_has_or_none(metric):
    found = parse_budget({"accuracy": {"metric": metric, "min": None, "max": 2}}).accuracy
    assert (found.metric, found.min, found.max) == (metric, None, 2.0)


def test_every_budget_that_ships_leaves_the_metric_to_the_task():
    paths = sorted((REPOSITORY / "conf/budget").glob("*.yaml"))
    assert len(paths) >= 3
    for path in paths:
        accuracy = yaml.safe_load(path.read_text()).get("accuracy", {})
        assert accuracy.get("metric") is accuracy.get("min") is accuracy.get("max") is None, path
