"""How a search ends: which candidate is called the nearest where none holds the budget."""

from dataclasses import asdict

import pytest

from distill.budget import Check, Outcome
from distill.deployment.search.outcome import end
from distill.deployment.search.outlook import Outlook, Trained
from distill.deployment.search.preflight import Preflight, excess
from distill.deployment.search.record import Attempt, Entry, Rung, accuracy_is_missing
from distill.statistics.metrics import Estimate


def check(artefact, name, limit, measured, outcome=Outcome.FAIL, note=None):
    found = Check(
        artefact=artefact,
        target="cpu",
        name=name,
        limit=limit,
        measured=measured,
        interval=None,
        outcome=outcome,
        note=note,
    )
    return asdict(found)


def entry(name):
    half = Estimate(estimate=0.5, interval=(0.4, 0.6))
    outlook = Outlook(
        accuracy=0.5, interval=(0.4, 0.6), needed=0.5, chance=0.5, chance_cheapest=0.5
    )
    return Entry(
        name=name,
        student={},
        preflight=Preflight(
            candidate=name,
            outcome=Outcome.PASS,
            cost_ms=1.0,
            p95_latency_ms=None,
            size_bytes=1,
            precision="int8",
            macs=1,
            checks=[],
        ),
        rungs=[
            Rung(
                trained=Trained(epochs=1, num_wrong=1, num_samples=2),
                accuracy=half,
                outlook=outlook,
                seconds=1,
            )
        ],
        attempt=Attempt(
            on_validation=Trained(epochs=40, num_wrong=16, num_samples=160),
            run_dir=name,
            verdict="fail",
            artefact=None,
            accuracy=half,
            p95_latency_ms=None,
            seconds=1,
        ),
    )


def test_two_limits_missed_by_little_are_nearer_than_one_missed_by_far():
    verdicts = {
        "far": {"verdict": "fail", "checks": [check("a", "drop_vs_teacher", 0.03, 0.10)]},
        "near": {
            "verdict": "fail",
            "checks": [
                check("a", "drop_vs_teacher", 0.03, 0.041),
                check("a", "size_bytes", 100, 200),
                check("b", "drop_vs_teacher", 0.03, 0.041),
                check("b", "parity_top1_agreement", 0.99, 0.988),
            ],
        },
    }
    ending = end([entry("far"), entry("near")], verdicts, None)
    assert ending.outcome is Outcome.FAIL
    assert ending.nearest["candidate"] == "near"
    assert [miss["artefact"] for miss in ending.nearest["misses"]] == ["b", "b"]


def test_what_is_open_is_nearer_than_what_is_missed():
    verdicts = {
        "missed": {"verdict": "fail", "checks": [check("a", "accuracy", 0.9, 0.899)]},
        "open": {
            "verdict": "inconclusive",
            "checks": [check("a", "accuracy", 0.9, 0.91, Outcome.INCONCLUSIVE)],
        },
    }
    ending = end([entry("missed"), entry("open")], verdicts, None)
    assert ending.outcome is Outcome.INCONCLUSIVE
    assert ending.nearest["candidate"] == "open"


CPU = "output_std_on_cortex-a53"


@pytest.mark.parametrize("limit", [0.1, 0.0, float("inf"), None])
def test_what_cannot_run_at_all_is_not_the_nearest(limit):
    broken = check("a", CPU, limit, None, note="the program uses an instruction that it lacks")
    verdicts = {
        "broken": {"verdict": "fail", "checks": [broken]},
        "slow": {"verdict": "fail", "checks": [check("a", "p95_latency_ms", 1.0, 7.0)]},
    }
    ending = end([entry("broken"), entry("slow")], verdicts, None)
    assert ending.nearest["candidate"] == "slow"
    alone = end([entry("broken")], {"broken": verdicts["broken"]}, None)
    (miss,) = alone.nearest["misses"]
    assert miss["by"] is None
    assert miss["text"].startswith("output std on cortex-a53")
    assert miss["text"].endswith(": the program uses an instruction that it lacks")


def test_answers_that_are_no_numbers_are_told_where_there_is_no_limit():
    """A verdict has been written and read: a limit of infinity is null."""
    found = check("a", CPU, None, 0.5, note="answers that are not numbers")
    ending = end([entry("a")], {"a": {"verdict": "fail", "checks": [found]}}, None)
    (miss,) = ending.nearest["misses"]
    assert miss["text"] == "output std on cortex-a53 0.5: answers that are not numbers"


@pytest.mark.parametrize(
    ("name", "limit", "measured", "times"),
    [
        ("size_bytes", 100, 250, 2.5),
        ("min_samples_per_second", 300, 100, 3.0),
        ("min_samples_per_second", 300, 0.0, float("inf")),
        ("golden_output_std", 0.0, 0.5, float("inf")),
        (CPU, 0.1, float("nan"), float("inf")),
        (CPU, float("inf"), 0.5, float("inf")),
    ],
)
def test_what_fails_is_over_its_limit(name, limit, measured, times):
    assert excess(Check(**check("a", name, limit, measured))) == pytest.approx(times)


def test_what_is_open_is_not_over_its_limit():
    assert excess(Check(**check("a", CPU, 0.1, None, Outcome.INCONCLUSIVE))) == 0


@pytest.mark.parametrize(
    "name",
    [
        "accuracy",
        "drop_vs_teacher",
        "drop_vs_float32",
        "drop_on_old_test",
        "gain_vs_baseline",
        "gain_vs_incumbent",
        "parity_top1_agreement",
    ],
)
def test_a_search_goes_on_where_training_decides_what_is_open(name):
    fits = check("a", "p95_latency_ms", 1.0, 0.5, Outcome.PASS)
    for outcome in (Outcome.INCONCLUSIVE, Outcome.FAIL):
        assert accuracy_is_missing([fits, check("a", name, 0.05, 0.06, outcome)])
    open_ = check("a", "p95_latency_ms", 1.0, 0.9, Outcome.INCONCLUSIVE)
    assert not accuracy_is_missing([open_, check("a", name, 0.05, 0.01, Outcome.PASS)])
