"""A budget held against what was measured: every limit becomes a check per artefact and target.

Works on the plain values that the stages leave; knows nothing of how they were measured.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.budget import Budget, Check, Outcome, at_least, at_most
from distill.deployment.device.gate import Gate, judge
from distill.deployment.measurement import split_processes
from distill.statistics.metrics import estimate_from

NOT_MEASURED = "not measured"
NO_TEACHER = (
    "the teacher has no answers to the test set: name them (`teacher.test_path`), or leave the "
    "limit out (`budget.accuracy.max_drop_vs_teacher=null`)"
)
TIMES = ("cold_start_ms", "min_samples_per_second")  # other programs change these


def target_checks(
    budget: Budget, report: Mapping[str, Any], samples: Mapping[str, NDArray[np.int64]]
) -> list[Check]:
    """Check latency, throughput, cold start, memory and size of all artefacts of a benchmark.

    A percentile of the latency is decided by the binomial gate on the raw calls. What disturbs a
    machine only slows it down: a limit held then is held, a limit missed is inconclusive.

    Args:
        budget: the limits.
        report: `benchmark.json`.
        samples: `benchmark.npz`.
    """
    checks = []
    for row in report["artefacts"]:
        name = row["artefact"]
        for level, limit_ms in budget.latency.percentiles.items():
            processes = split_processes(samples, name)
            checks.append(_latency_check(budget, report, row, processes, level, limit_ms))
        golden = row["golden"] and row["golden"]["output_std"]
        figures = (
            ("min_samples_per_second", row["samples_per_second"], budget.min_samples_per_second),
            ("cold_start_ms", row["cold_start_ms"], budget.latency.cold_start_ms),
            ("peak_rss_bytes", row["peak_rss_bytes"], budget.peak_rss_bytes),
            ("size_bytes", row["size_bytes"], budget.size_bytes),
            ("golden_output_std", golden, budget.parity.max_logit_std),
        )
        for check, value, limit in figures:
            if limit is not None:
                rule = at_least if check.startswith("min_") else at_most
                checks.append(_plain_check(report, name, check, value, limit, rule))
    return checks


def median_ms(row: Mapping[str, Any]) -> float:
    """Say what an artefact costs: its median latency; one that was not measured costs most."""
    latency = row["p50_latency_ms"]
    return latency["estimate"] if latency else math.inf


def _latency_check(
    budget: Budget,
    report: Mapping[str, Any],
    row: Mapping[str, Any],
    processes: Sequence[NDArray[np.int64]],
    level: float,
    limit_ms: float,
) -> Check:
    value = row[f"p{level:g}_latency_ms"]
    outcome, note = Outcome.INCONCLUSIVE, NOT_MEASURED
    if processes:
        gate = judge(
            processes,
            1e6 * limit_ms,
            level,
            budget.confidence,
            report["conditions"]["first_decision_after"],
        )
        outcome = Outcome(gate.outcome)
        busy = report["conditions"]["utilisation"].get(row["artefact"])
        if busy is not None and busy >= 1 and outcome is not Outcome.FAIL:
            outcome = Outcome.FAIL  # its queue grows without end; how far depends on how long
        note = (
            f"{gate.num_over:,} of {gate.num_calls:,} calls were over the limit: "
            f"{100 * gate.num_over / max(1, gate.num_calls):.1f} %, where {100 - level:g} % may be"
        )
        if busy is not None and busy >= 1:
            note += f"; calls arrive {busy:.2f} times as fast as it can serve them"
        elif gate.calls_needed is not None:
            note += _more_needed(gate, report["conditions"]["elapsed_s"])
        if outcome is Outcome.FAIL and report["problems"]:
            outcome = Outcome.INCONCLUSIVE
            note += "; the machine was disturbed"
    measured, interval = _figure(value) if value else (None, None)
    return Check(
        artefact=row["artefact"],
        target=report["target"],
        name=f"p{level:g}_latency_ms",
        limit=limit_ms,
        measured=measured,
        interval=interval,
        outcome=outcome,
        note=note,
    )


def _more_needed(gate: Gate, elapsed_s: float) -> str:
    """Say how much longer a limit would have to be measured, or that it is too close to tell."""
    assert gate.calls_needed is not None
    if gate.calls_needed <= gate.num_calls:
        return ": too close to the limit to tell; raise `effort.max_seconds`, or the limit"
    seconds = math.ceil(elapsed_s * gate.calls_needed / gate.num_calls)
    return (
        f", but even with none over it {gate.calls_needed:,} would be needed: about {seconds:,} s "
        f"(`effort.max_seconds={seconds}`)"
    )


def _plain_check(
    report: Mapping[str, Any], artefact: str, name: str, value: Any, limit: float, rule: Any
) -> Check:
    measured, interval = _figure(value) if isinstance(value, Mapping) else (value, None)
    known = measured is not None
    outcome = rule(measured, limit, interval) if known else Outcome.INCONCLUSIVE
    note = None if known else NOT_MEASURED
    if name == "min_samples_per_second" and not known:
        note = "not measured: arrivals set the pace; take `scenario=offline`"
    if known and outcome is Outcome.FAIL and report["problems"] and name in TIMES:
        outcome, note = Outcome.INCONCLUSIVE, "the machine was disturbed"
    return Check(
        artefact=artefact,
        target=report["target"],
        name=name,
        limit=limit,
        measured=measured,
        interval=interval,
        outcome=outcome,
        note=note,
    )


def compatibility_checks(
    compatibility: Mapping[str, Any], artefacts: Sequence[str], max_output_std: float | None
) -> list[Check]:
    """Check that artefacts answer on every emulated processor as they do here.

    Args:
        compatibility: `compatibility.json`; empty where no processor was emulated.
        artefacts: that may ship.
        max_output_std: how far answers may be apart, in units of the outputs' spread; None asks
            only that there are answers, and that they are numbers.
    """
    limit = float("inf") if max_output_std is None else max_output_std
    checks = []
    for processor in compatibility.get("processors", []):
        for row in processor["rows"]:
            if row["artefact"] not in artefacts:
                continue
            apart = row["output_std"]
            held = apart is not None and row["finite"] and apart <= limit
            checks.append(
                Check(
                    artefact=row["artefact"],
                    target=processor["target"],
                    name=f"output_std_on_{processor['cpu']}",
                    limit=limit,
                    measured=apart,
                    interval=None,
                    outcome=Outcome.PASS if held else Outcome.FAIL,
                    note=row["text"],
                )
            )
    return checks


def quality_checks(
    budget: Budget,
    *,
    artefact: str,
    target: str,
    metric: str,
    score: Mapping[str, Any],
    margins: Mapping[str, Any],
    parity: Mapping[str, Any],
    binds_logits: bool,
    before: Mapping[str, Any] | None = None,
    num_samples: int | None = None,
) -> list[Check]:
    """Check how good one artefact is, its margins and its parity.

    Args:
        budget: the limits.
        artefact: its file name.
        target: named in the checks.
        metric: of the evaluation.
        score: the artefact's entry of `evaluate.json`.
        margins: likewise.
        parity: the artefact's entry of `export.json`.
        binds_logits: whether `max_logit_std` holds for it: for float32 against torch, not for what
            is quantised.
        before: its drop on the old test set, empty where the model in production was not asked;
            None where there is no such set.
        num_samples: of the test set.
    """
    checks = []

    def add(
        name: str,
        limit: float | None,
        figure: tuple[Any, Any],
        rule: Any,
        note: str | None = None,
    ) -> None:
        if limit is not None:
            measured, interval = figure
            outcome = rule(measured, limit, interval)
            if outcome is Outcome.INCONCLUSIVE and num_samples and interval is not None:
                note = _samples_needed(num_samples, measured, limit, interval)
            checks.append(
                Check(
                    artefact=artefact,
                    target=target,
                    name=name,
                    limit=limit,
                    measured=measured,
                    interval=interval,
                    outcome=outcome,
                    note=note,
                )
            )

    accuracy = budget.accuracy
    add(metric, accuracy.min, _figure(score[metric]), at_least)
    add(metric, accuracy.max, _figure(score[metric]), at_most)
    drop = margins["drop_vs_teacher"]
    add(
        "drop_vs_teacher",
        accuracy.max_drop_vs_teacher,
        _figure(drop) if drop else (None, None),
        at_most if drop else _unknown,
        None if drop else NO_TEACHER,
    )
    if margins["drop_vs_float32"]:
        drop = _figure(margins["drop_vs_float32"])
        add("drop_vs_float32", accuracy.max_drop_vs_float32, drop, at_most)
    gain, limit = _figure(margins["gain_vs_baseline"]), accuracy.min_gain_vs_baseline
    add("gain_vs_baseline", limit, gain, at_least)
    if margins["gain_vs_incumbent"]:
        add("gain_vs_incumbent", limit, _figure(margins["gain_vs_incumbent"]), at_least)
    if before is not None:
        drop = _figure(before) if before else (None, None)
        num_samples = before.get("num_samples")
        limit = accuracy.max_drop_on_old_test
        add("drop_on_old_test", limit, drop, at_most if before else _unknown)
    if binds_logits:
        add("parity_logit_std", budget.parity.max_logit_std, (parity["logit_std"], None), at_most)
    if metric == "accuracy":  # else there is no largest output to agree on
        agreement, limit = parity["top1_agreement"], budget.parity.min_top1_agreement
        add("parity_top1_agreement", limit, (agreement, None), at_least)
    return checks


def _samples_needed(
    num_samples: int, measured: float, limit: float, interval: tuple[float, float]
) -> str | None:
    """Say about how many samples would tell: an interval narrows with their square root."""
    end = interval[1] if measured <= limit else interval[0]
    width, distance = abs(end - measured), abs(limit - measured)
    if not math.isfinite(width):
        return None
    more = max(distance, width / 10)  # nearer to the limit, the estimate of it says nothing
    needed = num_samples * (width / more) ** 2
    step = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    said = "more than" if distance < more else "about"
    needed = math.ceil(needed / step) * step
    return f"{said} {needed:,} test samples would tell; {num_samples:,} do not"


def _unknown(measured: Any, limit: float, interval: Any) -> Outcome:
    """What nobody has measured is neither held nor missed."""
    return Outcome.INCONCLUSIVE


def _figure(value: Mapping[str, Any]) -> tuple[float, tuple[float, float]]:
    figure = estimate_from(value)
    return figure.estimate, figure.interval
