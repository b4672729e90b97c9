"""Cells of the tables in a report: a text, and in small print what it may be."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.budget import Check
from distill.files import to_json
from distill.pages import figure, percent, percent_interval
from distill.wording import check_figure, metric_interval, metric_text

Values = dict[str, Any]
Cell = dict[str, str]


def cell(text: str, small: str = "") -> Cell:
    """Make a cell."""
    return {"text": text, "small": small}


def share_cell(value: Values) -> Cell:
    """Show a fraction as a percentage."""
    return cell(percent(value["estimate"]), percent_interval(value["interval"]))


def figure_cell(value: Values | None) -> Cell:
    """Show a number; nothing for what was not measured."""
    return cell("") if value is None else cell(*span(value))


def quality_cell(name: str, value: Values | None) -> Cell:
    """Show a figure of the task; nothing for what is unknown."""
    if value is None:
        return cell("")
    return cell(metric_text(name, value["estimate"]), metric_interval(name, value["interval"]))


def span(value: Values) -> tuple[str, str]:
    """Write an estimate and its interval."""
    return figure(value["estimate"]), interval_text(value["interval"])


def interval_text(interval: Sequence[float | None]) -> str:
    """Write an interval."""
    low, high = ("no bound" if end is None else figure(end) for end in interval)
    return f"{low} to {high}"


def check_row(check: Check) -> dict[str, Any]:
    """Show a check, its figures in their units."""
    ends = [
        check_figure(check.name, end) if abs(end) != float("inf") else "no bound"
        for end in check.interval or ()
    ]
    return to_json(check) | {
        "limit": check_figure(check.name, check.limit),
        "measured": check_figure(check.name, check.measured),
        "interval": " to ".join(ends),
    }


def facts_of(benchmark: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say in words how latency was measured."""
    conditions, floor = benchmark["conditions"], benchmark["noise_floor"]
    machine, scenario = conditions["machine"], conditions["scenario"]
    facts = [
        (
            "target",
            f"{benchmark['target']}: {machine.get('processor') or 'unknown processor'}, "
            f"{machine.get('architecture')}, {machine.get('system')}, "
            f"threads: {conditions['num_threads']}, on CPUs {conditions['pinned_to']}",
        ),
        (
            "runtime",
            f"{conditions['runtime']}; onnxruntime {machine.get('onnxruntime')}, "
            f"Python {machine.get('python')}, {machine.get('libc')}",
        ),
    ]
    if conditions["processes"]:
        rate = scenario["rate_per_second"]
        arrivals = f"Poisson arrivals at {rate:g} a second" if rate else "one call after the other"
        facts.append(
            (
                "timing",
                f"{scenario['name']}, batches of {scenario['batch_size']}, {arrivals}; "
                f"{conditions['processes']} processes, {conditions['rounds']} shuffled rounds of "
                f"{conditions['calls_per_round']} calls, CPU use {conditions['cpu_share']:.2f}, "
                f"load {conditions['load']:.1f}",
            )
        )
    if floor:
        facts.append(
            ("noise floor", f"the first artefact against itself: {' ('.join(span(floor))})")
        )
    return facts


def warnings_of(benchmark: Mapping[str, Any]) -> list[str]:
    """Say what makes a measurement less than it should be."""
    said = []
    if benchmark["incomplete"]:
        said.append(
            f"INCOMPLETE: the measurement on {benchmark['target']} ended early: "
            f"{benchmark['incomplete']}. What had come back until then is shown."
        )
    if benchmark["problems"]:
        said.append(
            f"The machine was disturbed: {'; '.join(benchmark['problems'])}. A latency that misses "
            "its limit is not held against an artefact here; measure again on a quiet machine."
        )
    return said
