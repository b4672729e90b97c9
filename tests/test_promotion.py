"""What a promotion says of a verdict that did not pass."""

from pathlib import Path
from types import SimpleNamespace

from distill.budget import Outcome
from distill.production.registry.promotion import (
    Finding,
    challenger_findings,
    in_the_way,
    verdict_finding,
)


def package(verdict, **checks):
    """A candidate whose checks came out so, each measured at 0.02 of 0.2."""
    facts = {"artefact": "model.onnx", "measured": 0.02, "limit": 0.2}
    own = [facts | {"name": name, "outcome": outcome} for name, outcome in checks.items()]
    own[0]["note"] = "about 900 samples would tell"
    document = {"verdict": verdict, "chosen": {"artefact": None}, "checks": own}
    return SimpleNamespace(verdict=document, root=Path("cache/3"))


def test_a_verdict_that_fails_names_what_failed_with_figures_and_the_report():
    candidate = package("fail", gain_vs_baseline="fail", accuracy="pass", p99_ms="inconclusive")
    note = verdict_finding(candidate).note
    assert (
        "the verdict is fail: fail model.onnx gain_vs_baseline 2.00 %, limit 20.00 % (about 900 "
        in note
    )
    assert "inconclusive model.onnx p99_ms 0.02, limit 0.2" in note
    assert note.endswith("; see cache/3/report.html")
    assert "accuracy" not in note
    (own,) = challenger_findings(candidate)
    assert "gain_vs_baseline" in own.note
    assert "p99_ms" not in own.note  # an open question keeps no challenger back


def test_more_samples_are_asked_for_where_the_quality_is_open_alone():
    open_one = Finding(rule="verdict", outcome=Outcome.INCONCLUSIVE, note="")
    slow = in_the_way(package("inconclusive", p95_latency_ms="inconclusive"), [open_one])
    assert slow.startswith("Measure again, longer")
    assert "samples" not in slow
    unsure = in_the_way(package("inconclusive", accuracy="inconclusive"), [open_one])
    assert unsure == "Test on more samples, or try it beside the champion: `to=challenger`"
    drop = Finding(rule="drop_vs_champion", outcome=Outcome.INCONCLUSIVE, note="")
    assert "let `audit=` decide" in in_the_way(package("pass", accuracy="pass"), [drop])
