"""What a service says of itself: of one process a snapshot, of all of them one answer.

Knows the service; knows nothing of HTTP, nor of how snapshots travel.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from distill.production.serving.service import Service
from distill.production.serving.telemetry import SECONDS

Snapshot = dict[str, Any]  # JSON
NUM_QUANTILES = 200  # of a process's latencies, for the others
LEVELS = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}


def snapshot(service: Service) -> Snapshot:
    """Sum up this process for the others, as JSON."""
    own = _summed_up(service)
    latencies = own["latencies_ms"]
    if len(latencies) > NUM_QUANTILES:
        middles = (np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES
        own["latencies_ms"] = np.quantile(latencies, middles).tolist()
    metrics = service.telemetry.registry.collect()
    samples = [[m.name, m.type, m.documentation, [list(s[:3]) for s in m.samples]] for m in metrics]
    return own | {"metrics": samples}


def _summed_up(service: Service) -> Snapshot:
    telemetry, catalogue = service.telemetry, service.catalogue
    current = catalogue.current
    return {
        "process": service.peers.name,
        "pid": os.getpid(),
        "time": time.time(),
        "since": telemetry.since,
        "model": current.model,
        "version": current.version,
        "artefact_sha256": current.artefact_sha256,
        "problem": catalogue.problem,
        "log_problem": service.recorder.log.problem(),
        "waiting": current.batcher.waiting,
        "num_answered": telemetry.num_answered,
        "errors": dict(telemetry.errors),
        "roles": dict(telemetry.roles),
        "adapted": dict(telemetry.pictures),
        "skew": [[*key, count] for key, count in telemetry.skew.items()],
        "feedback": [[*key, count] for key, count in telemetry.feedback.items()],
        "seconds": [list(second) for second in telemetry.seconds],
        "latencies_ms": list(telemetry.latencies_ms),
        "num_latencies": len(telemetry.latencies_ms),
    }


def latest(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """Leave out processes in whose place there is another."""
    found: dict[str, Snapshot] = {}
    for one in sorted(snapshots, key=lambda own: own["since"]):
        found[one["process"]] = one
    return list(found.values())


def totals(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Add up what processes answered and refused."""
    return {
        "num_answered": sum(one["num_answered"] for one in snapshots),
        "errors": dict(_added(one["errors"] for one in snapshots)),
    }


def status(service: Service) -> dict[str, Any]:
    """Say how the service fares: the last minute, and the counts since the start."""
    all_of_them = [_summed_up(service), *service.peers.others]
    alive, total = latest(all_of_them), totals(all_of_them)
    roles = _added(one["roles"] for one in all_of_them)
    skew, feedback = (_by_two(one[name] for one in all_of_them) for name in ("skew", "feedback"))
    current = service.catalogue.current
    return {
        **total,
        "uptime_s": time.time() - min(one["since"] for one in all_of_them),
        "num_refused": sum(total["errors"].values()),
        **_by_second(all_of_them),
        "latency": _quantiles(all_of_them),
        "roles": dict(roles),
        "fallbacks": roles["fallback"],
        "adapted": dict(_added(one["adapted"] for one in all_of_them)),
        "skew": [
            {"kind": kind, "column": column, "count": count}
            for (kind, column), count in skew.most_common()
        ],
        "feedback": {
            role: {what: feedback[role, what] for what in ("right", "wrong", "other")}
            for role in sorted({role for role, _ in feedback})
        },
        "num_restarts": len(all_of_them) - len(alive),
        "model": current.model,
        "version": current.version,
        "artefact_sha256": current.artefact_sha256,
        "warm_versions": [e.version for e in service.catalogue.warm if e.version is not None],
        "waiting": sum(one["waiting"] for one in alive),
        "problem": next(filter(None, map(_problem, alive)), None),
        "experiment": service.router.status(),
        "processes": [
            {key: one[key] for key in ("process", "pid", "version", "num_answered")}
            | {"problem": _problem(one)}
            for one in sorted(alive, key=lambda own: own["process"])
        ],
    }


def exposition(service: Service) -> bytes:
    """Write all counters in Prometheus's text format; those of several processes by `process`."""
    own = service.telemetry.registry
    if not service.peers.name:
        return generate_latest(own)
    families: dict[str, Metric] = {}
    mine = snapshot(service)
    for one in latest([mine, *service.peers.others]):
        for name, kind, documentation, samples in one["metrics"]:
            family = families.setdefault(name, Metric(name, documentation, kind))
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, "process": one["process"]}, value)
    registry = CollectorRegistry()
    registry.register(_Given(list(families.values())))
    return generate_latest(registry)


class _Given:
    """A collector of what is there already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _added(counts: Iterable[dict[str, int]]) -> Counter[str]:
    return sum((Counter(one) for one in counts), Counter())


def _by_two(counted: Iterable[list[list[Any]]]) -> Counter[tuple[str, str]]:
    """Add up what several have counted by two names."""
    found: Counter[tuple[str, str]] = Counter()
    for own in counted:
        for first, second, count in own:
            found[first, second] += count
    return found


def _problem(one: Snapshot) -> str | None:
    return one["problem"] or one["log_problem"]


def _by_second(snapshots: Sequence[Snapshot]) -> dict[str, list[int]]:
    answered: Counter[int] = Counter()
    refused: Counter[int] = Counter()
    for one in snapshots:
        for second, ok, bad in one["seconds"]:
            answered[int(second)] += int(ok)
            refused[int(second)] += int(bad)
    now = int(time.time())
    seconds = range(now - SECONDS, now)  # whole ones
    return {
        "answered_by_second": [answered[second] for second in seconds],
        "refused_by_second": [refused[second] for second in seconds],
    }


def _quantiles(snapshots: Sequence[Snapshot]) -> dict[str, float]:
    """Quantiles over all, where a process counts by how many it answered, not by what it sent."""
    values = np.concatenate([np.asarray(one["latencies_ms"], float) for one in snapshots])
    if not len(values):
        return {}
    weights = np.concatenate([
        np.full(len(one["latencies_ms"]), one["num_latencies"] / max(len(one["latencies_ms"]), 1))
        for one in snapshots
    ])  # fmt: skip
    found = np.quantile(values, list(LEVELS.values()), weights=weights, method="inverted_cdf")
    return dict(zip(LEVELS, found.tolist(), strict=True))
