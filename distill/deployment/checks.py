"""A budget held against what was measured: every limit becomes a check per artefact and target.

Works on the plain values that the stages leave; knows nothing of how they were measured.
"""

from collections.abc import Mapping
from typing import Any

from distill.budget import Budget, Check, Outcome, at_least, at_most


def target_checks(budget: Budget, report: Mapping[str, Any]) -> list[Check]:
    """Check latency, cold start, memory and size of every artefact in a benchmark's result."""
    limits = {
        "p95_latency_ms": budget.latency.p95_ms,
        "cold_start_ms": budget.latency.cold_start_ms,
        "peak_rss_bytes": budget.peak_rss_bytes,
        "size_bytes": budget.size_bytes,
    }
    checks = []
    for row in report["artefacts"]:
        for name, limit in limits.items():
            if limit is None:
                continue
            value = row[name]
            measured, interval = _figure(value) if isinstance(value, Mapping) else (value, None)
            checks.append(
                Check(
                    artefact=row["artefact"],
                    target=report["target"],
                    name=name,
                    limit=limit,
                    measured=measured,
                    interval=interval,
                    outcome=at_most(measured, limit, interval),
                )
            )
    return checks


def quality_checks(
    budget: Budget,
    *,
    artefact: str,
    target: str,
    score: Mapping[str, Any],
    margins: Mapping[str, Any],
    parity: Mapping[str, Any],
    binds_logits: bool,
) -> list[Check]:
    """Check one artefact's accuracy, its margins and its parity.

    Args:
        budget: the limits.
        artefact: its file name.
        target: named in the checks.
        score: the artefact's entry of `evaluate.json`.
        margins: likewise.
        parity: the artefact's entry of `export.json`.
        binds_logits: whether `max_logit_std` holds for it: for float32 against torch, not for what
            is quantised.
    """
    checks = []

    def add(name: str, limit: float | None, figure: tuple[Any, Any], rule: Any) -> None:
        if limit is not None:
            measured, interval = figure
            checks.append(
                Check(
                    artefact=artefact,
                    target=target,
                    name=name,
                    limit=limit,
                    measured=measured,
                    interval=interval,
                    outcome=rule(measured, limit, interval),
                )
            )

    accuracy = budget.accuracy
    add("accuracy", accuracy.min, _figure(score["accuracy"]), at_least)
    drop = margins["drop_vs_teacher"]
    add(
        "drop_vs_teacher",
        accuracy.max_drop_vs_teacher,
        _figure(drop) if drop else (None, None),
        at_most if drop else _unknown,
    )
    if margins["drop_vs_float32"]:
        drop = _figure(margins["drop_vs_float32"])
        add("drop_vs_float32", accuracy.max_drop_vs_float32, drop, at_most)
    add(
        "gain_vs_baseline",
        accuracy.min_gain_vs_baseline,
        _figure(margins["gain_vs_baseline"]),
        at_least,
    )
    if binds_logits:
        add("parity_logit_std", budget.parity.max_logit_std, (parity["logit_std"], None), at_most)
    add(
        "parity_top1_agreement",
        budget.parity.min_top1_agreement,
        (parity["top1_agreement"], None),
        at_least,
    )
    return checks


def _unknown(measured: Any, limit: float, interval: Any) -> Outcome:
    """What nobody has measured is neither held nor missed."""
    return Outcome.INCONCLUSIVE


def _figure(value: Mapping[str, Any]) -> tuple[float, tuple[float, float]]:
    low, high = value["interval"]
    return value["estimate"], (low, high)
