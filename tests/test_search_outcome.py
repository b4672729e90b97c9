"""How a search ends: which candidate is called the nearest where none holds the budget."""

from dataclasses import asdict

from distill.budget import Check, Outcome
from distill.deployment.search.outcome import end
from distill.deployment.search.outlook import Outlook, Trained
from distill.deployment.search.preflight import Preflight
from distill.deployment.search.record import Attempt, Entry, Rung
from distill.statistics.metrics import Estimate


def check(artefact, name, limit, measured, outcome=Outcome.FAIL):
    found = Check(
        artefact=artefact,
        target="cpu",
        name=name,
        limit=limit,
        measured=measured,
        interval=None,
        outcome=outcome,
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
