"""Untrained candidates held against a budget: which can still meet its target limits, at what cost.

Latency, size and memory do not depend on weights, so what misses them here is never trained. Works
on plain figures; knows nothing of how they were measured, and nothing of accuracy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.budget import Budget, Check, LatencyBudget, Outcome, ParityBudget, conjunction
from distill.deployment.checks import median_ms, target_checks
from distill.pages import figure, size

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What is known of a candidate before it is trained.

    Attributes:
        candidate: name.
        outcome: `fail` if each of its files misses a limit; `pass` if one is shown to hold all;
            else `inconclusive`, and it stays in the race.
        cost_ms: median latency of the cheapest file that may hold the limits, or of the one that
            misses them by least; None where the target takes no latencies.
        p95_latency_ms: of that file, with its interval.
        size_bytes: of that file.
        precision: of that file.
        macs: multiply-accumulates of one image.
        checks: of all of its files.
    """

    candidate: str
    outcome: Outcome
    cost_ms: float | None
    p95_latency_ms: Values | None
    size_bytes: int
    precision: str
    macs: int
    checks: list[Check]

    @property
    def cost(self) -> tuple[float, float]:
        """What candidates are ordered by: median latency, or size where there is none."""
        return (float("inf") if self.cost_ms is None else self.cost_ms, self.size_bytes)

    @property
    def failed(self) -> list[Check]:
        """The limits that its nearest file misses."""
        failed = [c for c in self.checks if c.outcome is Outcome.FAIL]
        files = {check.artefact for check in failed}
        nearest = min(files, key=lambda name: _worst(failed, name), default=None)
        return [check for check in failed if check.artefact == nearest]

    @property
    def misses(self) -> str:
        """Say which limits its nearest file misses, and by how much."""
        return "; ".join(map(missed, self.failed))


def limits_of(budget: Budget) -> Budget:
    """Take what can be told of a file before its weights are trained."""
    return replace(budget, parity=ParityBudget())


def has_limits(budget: Budget) -> bool:
    """Tell whether a budget limits anything that preflight can measure."""
    others = (budget.size_bytes, budget.peak_rss_bytes, budget.min_samples_per_second)
    return budget.latency != LatencyBudget() or any(limit is not None for limit in others)


def judge(
    budget: Budget, measured: Values, samples: Mapping[str, NDArray[np.int64]]
) -> list[Preflight]:
    """Hold all candidates against a budget, the cheapest first.

    Args:
        budget: its accuracy and parity are not looked at.
        measured: `preflight.json`.
        samples: `preflight.npz`, raw nanoseconds.
    """
    checks = target_checks(limits_of(budget), measured, samples)
    rows = {row["artefact"]: row for row in measured["artefacts"]}
    found = []
    for name, candidate in measured["candidates"].items():
        files = candidate["files"]
        own = [check for check in checks if check.artefact in files.values()]
        found.append(_judged(name, candidate, own, {p: rows[file] for p, file in files.items()}))
    return sorted(found, key=lambda preflight: preflight.cost)


def _judged(
    name: str, candidate: Values, checks: list[Check], rows: Mapping[str, Values]
) -> Preflight:
    outcomes = {
        precision: conjunction([c.outcome for c in checks if c.artefact == row["artefact"]])
        for precision, row in rows.items()
    }
    open_ones = [p for p, outcome in outcomes.items() if outcome is not Outcome.FAIL]
    outcome = Outcome.INCONCLUSIVE if open_ones else Outcome.FAIL
    if Outcome.PASS in outcomes.values():
        outcome = Outcome.PASS
    if open_ones:
        chosen = min(open_ones, key=lambda p: (median_ms(rows[p]), rows[p]["size_bytes"]))
    else:
        chosen = min(rows, key=lambda p: _worst(checks, rows[p]["artefact"]))
    row = rows[chosen]
    return Preflight(
        candidate=name,
        outcome=outcome,
        cost_ms=None if row["p50_latency_ms"] is None else median_ms(row),
        p95_latency_ms=row["p95_latency_ms"],
        size_bytes=row["size_bytes"],
        precision=chosen,
        macs=candidate["macs"],
        checks=checks,
    )


def _worst(checks: Sequence[Check], artefact: str) -> float:
    return max((excess(check) for check in checks if check.artefact == artefact), default=0.0)


def excess(check: Check) -> float:
    """Say how many times its limit a check's figure is, so that 2 is twice too much.

    Infinitely many where the check fails and no figure is over a limit: what cannot run at all is
    nowhere near.
    """
    times = 0.0
    if check.measured is not None and check.limit:
        is_least = check.name.startswith("min_")
        over, under = (check.limit, check.measured) if is_least else (check.measured, check.limit)
        times = over / under if under else float("inf")
    failed = check.outcome is Outcome.FAIL
    return float("inf") if failed and not times >= 1 else times  # NaN is not


def missed(check: Check) -> str:
    """Say what was measured against which limit, or what else was wrong."""
    show = size if check.name.endswith("_bytes") else figure
    unit = " ms" if check.name.endswith("_ms") else ""
    text = check.name.removesuffix("_bytes").removesuffix("_ms").replace("_", " ")
    if check.measured is not None and isfinite(check.measured):
        text += f" {show(check.measured)}{unit}"
    if check.limit is not None and isfinite(check.limit):  # none is null in JSON
        text += f", limit {show(check.limit)}{unit}"
    if check.outcome is not Outcome.FAIL:
        return text
    times = excess(check)
    if isfinite(times):
        return f"{text} ({times:.2g} times it)"
    return f"{text}: {check.note}" if check.note else text


def too_much(rows: Sequence[Values], budget: Budget) -> list[str]:
    """Name the files whose first start took more than the budget allows: one start proves nothing.

    Args:
        rows: of the measured files.
        budget: its limits on cold start and memory.
    """
    limits = {
        "cold_start_ms": budget.latency.cold_start_ms,
        "peak_rss_bytes": budget.peak_rss_bytes,
    }
    return [
        row["artefact"]
        for row in rows
        if any(
            limit is not None and row[name] and row[name]["estimate"] > limit
            for name, limit in limits.items()
        )
    ]
