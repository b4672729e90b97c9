"""What is asked of a target and what it answers: settings, plan, raw results, figures.

Every target runs the same plan through `device.runner`, so that all answer in one form. Knows
nothing of how to get to a target, nor of budgets beyond the limits that say when to stop.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distill.deployment import validity
from distill.deployment.bundle import MODELS
from distill.deployment.device.latency import WARM_UP_SECONDS, Scenario
from distill.deployment.device.runner import CONTROL_SUFFIX
from distill.deployment.device.step import decode
from distill.deployment.estimates import median_of_few, median_ratio, percentiles, throughput
from distill.errors import UsageError
from distill.statistics.metrics import Estimate

Progress = Callable[[str], None]
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long a target is measured.

    Attributes:
        cold_starts: of every artefact; the range of 6 covers the median with 97 % confidence.
        processes: measuring processes before the first decision; more follow, while a limit is
            undecided, until `max_seconds`.
        warm_up_seconds: of every contender in each process, at least; it goes on while calls get
            faster, for 10 s at most.
        rounds: at most, in each process; a contender makes about 10 calls in each.
        max_seconds: of measuring, cold starts not counted.

    Raises:
        UsageError: a number is too small to measure anything.
    """

    cold_starts: int = 6
    processes: int = 5
    warm_up_seconds: float = WARM_UP_SECONDS
    rounds: int = 60
    max_seconds: float = 30.0

    def __post_init__(self) -> None:
        least = {"processes": 1, "rounds": 1}  # of the others, 0
        for name, value in asdict(self).items():
            limit = least.get(name, 0)
            if value < limit:
                raise UsageError(f"Expected `effort.{name}` of at least {limit} but got {value}.")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs the model on the target.

    Attributes:
        name: in reports.
        model: `module:class` of a class called like `distill.runtime.OnnxModel`.
        options: further arguments of that class.
    """

    name: str = "onnxruntime"
    model: str = "distill.runtime:OnnxModel"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is asked of a target, whichever it is.

    Attributes:
        confidence: of intervals and of the gate.
        seed: of shuffling and arrivals.
        scenario: how calls arrive.
        runtime: what runs the models.
        limits_ms: percentile to limit, such as {95: 5.0}: measuring goes on until these are
            decided for the `gated` artefacts.
        gated: file names; None for all.
        effort: how long.
        golden: whether every artefact first has to answer as it did here.
        progress: told in words what is being done.
    """

    confidence: float
    seed: int = 0
    scenario: Scenario = field(default_factory=Scenario)
    runtime: Runtime = field(default_factory=Runtime)
    limits_ms: dict[float, float] = field(default_factory=dict)
    gated: Sequence[str] | None = None
    effort: Effort = field(default_factory=Effort)
    golden: bool = True
    progress: Progress = lambda said: None

    def __post_init__(self) -> None:
        rate = self.scenario.rate_per_second
        if self.scenario.batch_size < 1 or (rate is not None and rate <= 0):
            raise UsageError(
                "Expected `scenario.batch_size` of at least 1 and a `scenario.rate_per_second` "
                f"above 0, or null, but got {self.scenario.batch_size} and {rate}."
            )


@dataclass(frozen=True, kw_only=True)
class ArtefactLatency:
    """One artefact on one target; None is unknown, such as where a device died before."""

    artefact: str
    size_bytes: int
    num_samples: int
    p50_latency_ms: Estimate | None
    p95_latency_ms: Estimate | None
    p99_latency_ms: Estimate | None
    samples_per_second: Estimate | None
    ratio_to_first: Estimate | None
    cold_start_ms: Estimate | None
    peak_rss_bytes: Estimate | None
    golden: Result | None


@dataclass(frozen=True, kw_only=True)
class TargetReport:
    """What was measured on a target, with the run's own noise floor.

    Attributes:
        target: name.
        artefacts: one per contender.
        noise_floor: ratio of the first contender to itself (A/A); a difference within its interval
            is noise.
        conditions: of the run: machine, scenario, processes, rounds.
        problems: what disturbed it, in words; a limit missed then is not held against an artefact.
        incomplete: why the rest is missing; None where nothing is.
        samples: raw nanoseconds, [rounds, calls] per contender and control, and under
            `PROCESS` the number of the process of each round.
    """

    target: str
    artefacts: list[ArtefactLatency]
    noise_floor: Estimate | None
    conditions: Result
    problems: list[str]
    incomplete: str | None
    samples: dict[str, NDArray[np.int64]]


class Target(Protocol):
    """Where artefacts are measured.

    It may have `hardware`, which names what measures, and `files` that it reads: with others, what
    was measured is measured again.
    """

    name: str

    def measure(
        self, artefacts: Sequence[Path], inputs: NDArray[Any], measurement: Measurement
    ) -> TargetReport:
        """Measure all artefacts in one interleaved run, and each one's cold start on its own.

        Args:
            artefacts: ONNX files with distinct names; the first has its A/A control.
            inputs: to rotate through, [K, ...].
            measurement: what is asked.

        Raises:
            UserError: nothing can be measured there.
        """
        ...


PROCESS = "#process"


def make_plan(
    artefacts: Sequence[Path],
    measurement: Measurement,
    *,
    num_threads: int,
    pin: bool,
    spin: bool,
) -> Result:
    """Write down what the runner has to do, as plain values."""
    names = [path.name for path in artefacts]
    scenario = measurement.scenario
    return {
        **asdict(measurement.effort),
        "contenders": [
            {"name": name, "file": f"{MODELS}/{name}", "batch_size": scenario.batch_size}
            for name in names
        ],
        "gated": list(measurement.gated if measurement.gated is not None else names),
        "limits": [{"level": k, "ns": 1e6 * v} for k, v in measurement.limits_ms.items()],
        "confidence": measurement.confidence,
        "seed": measurement.seed,
        "scenario": scenario._asdict(),
        "runtime": measurement.runtime.model,
        "runtime_options": measurement.runtime.options,
        "num_threads": num_threads,
        "pin": pin,
        "spin": spin,
        "golden": measurement.golden,
    }


def summarise(
    target: str,
    artefacts: Sequence[Path],
    plan: Result,
    results: Sequence[Result],
    measurement: Measurement,
    *,
    incomplete: str | None,
) -> TargetReport:
    """Turn the runner's results into figures with intervals."""
    steps = {kind: [r for r in results if r["step"] == kind] for kind in ("golden", "cold")}
    measured = [r for r in results if r["step"] == "measure"]
    machine: Result = next((r for r in results if r["step"] == "machine"), {})
    names = [path.name for path in artefacts]
    taken = {
        name: [decode(step["samples"][name]) for step in measured]
        for name in (*names, names[0] + CONTROL_SUFFIX)
    }
    reference = taken[names[0]]
    rows = [
        _row(path, taken[path.name], reference, steps, plan, measurement.confidence)
        for path in artefacts
    ]
    floor = None
    found: list[str] = []
    if measured:
        control = taken[names[0] + CONTROL_SUFFIX]
        floor = median_ratio(control, reference, measurement.confidence)
        found = validity.problems(
            measured,
            reference,
            num_threads=plan["num_threads"],
            num_cpus=len(measured[0]["cpus"] or machine["cpus"]),
        )
    return TargetReport(
        target=target,
        artefacts=rows,
        noise_floor=floor,
        conditions=_conditions(machine, measured, plan, measurement),
        problems=found,
        incomplete=incomplete,
        samples=_joined(taken) if measured else {},
    )


def split_processes(samples: Mapping[str, NDArray[np.int64]], name: str) -> list[NDArray[np.int64]]:
    """Undo the joining of a contender's samples: one [rounds, calls] per measuring process."""
    if name not in samples:
        return []
    owner, taken = samples[PROCESS], samples[name]
    return [taken[owner == number] for number in range(int(owner.max()) + 1)]


def _row(
    path: Path,
    own: list[NDArray[np.int64]],
    reference: list[NDArray[np.int64]],
    steps: dict[str, list[Result]],
    plan: Result,
    confidence: float,
) -> ArtefactLatency:
    cold = [step for step in steps["cold"] if step["name"] == path.name]
    golden = [step for step in steps["golden"] if step["name"] == path.name]
    p50 = p95 = p99 = ratio = rate = None
    if own:
        levels = percentiles(own, [50, 95, 99], confidence)
        p50, p95, p99 = (_milliseconds(figure) for figure in levels)
        ratio = median_ratio(own, reference, confidence)
        rate = throughput(own, plan["scenario"]["batch_size"], confidence)
    return ArtefactLatency(
        artefact=path.name,
        size_bytes=path.stat().st_size,
        num_samples=sum(taken.size for taken in own),
        p50_latency_ms=p50,
        p95_latency_ms=p95,
        p99_latency_ms=p99,
        samples_per_second=None if plan["scenario"]["rate_per_second"] else rate,
        ratio_to_first=ratio,
        cold_start_ms=median_of_few([s["cold_start_ms"] for s in cold], confidence)
        if cold
        else None,
        peak_rss_bytes=median_of_few([s["peak_rss_bytes"] for s in cold], confidence)
        if cold
        else None,
        golden=golden[0] if golden else None,
    )


def _conditions(
    machine: Result, measured: Sequence[Result], plan: Result, measurement: Measurement
) -> Result:
    wall = sum(step["wall_s"] for step in measured)
    return {
        "machine": machine,
        "runtime": measurement.runtime.name,
        "scenario": plan["scenario"],
        "num_threads": plan["num_threads"],
        "pinned_to": measured[0]["cpus"] if measured else None,
        "spin": plan["spin"],
        "utilisation": {
            entry["name"]: _highest([step["utilisation"][entry["name"]] for step in measured])
            for entry in plan["contenders"]
        },
        "processes": len(measured),
        "first_decision_after": plan["processes"],
        "rounds": sum(next(iter(step["samples"].values()))["shape"][0] for step in measured),
        "calls_per_round": next(
            (next(iter(step["samples"].values()))["shape"][1] for step in measured), None
        ),
        "elapsed_s": measured[-1]["elapsed_s"] if measured else None,
        "cpu_share": sum(step["cpu_s"] for step in measured) / wall if wall else None,
        "load": max((step["before"]["load"] for step in measured), default=None),
    }


def _highest(shares: Sequence[float | None]) -> float | None:
    return max((share for share in shares if share is not None), default=None)


def _joined(taken: dict[str, list[NDArray[np.int64]]]) -> dict[str, NDArray[np.int64]]:
    first = next(iter(taken.values()))
    owner = np.repeat(np.arange(len(first)), [len(part) for part in first])
    return {name: np.concatenate(parts) for name, parts in taken.items()} | {PROCESS: owner}


def _milliseconds(figure: Estimate) -> Estimate:
    low, high = figure.interval
    return Estimate(estimate=figure.estimate / 1e6, interval=(low / 1e6, high / 1e6))
