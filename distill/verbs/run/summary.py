"""What a verb tells people in the end, on stderr: a table, and every check that does not pass."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill.budget import Check, Choice
from distill.files import to_json
from distill.pages import figure, size
from distill.wording import check_figure, metric_interval, metric_name, metric_text

Values = Mapping[str, Any]

COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}  # of outcomes


def show_benchmark(
    console: Console, report: Values, checks: Sequence[Check], choice: Choice
) -> None:
    """Show what was measured on a target."""
    table = Table(title=f"{report['target']}: {choice.outcome}", title_style="bold")
    columns = ("artefact", "p50 (ms)", "p95 (ms)", "p99 (ms)", "cold start (ms)", "memory", "size")
    for column in columns:
        table.add_column(column, justify="left" if column == "artefact" else "right")
    for row in report["artefacts"]:
        names = [f"p{level}_latency_ms" for level in (50, 95, 99)]
        names += ["cold_start_ms", "peak_rss_bytes"]
        values = [row[name]["estimate"] if row[name] else None for name in names]
        table.add_row(
            escape(row["artefact"]),
            *[figure(value) for value in values[:4]],
            size(values[4]),
            size(row["size_bytes"]),
            style="bold green" if row["artefact"] == choice.artefact else None,
        )
    console.print(table)
    for problem in report["problems"]:
        console.print(f"[bold]disturbed[/bold]: {problem}")
    if report["incomplete"]:
        console.print(f"[bold]incomplete[/bold]: {escape(report['incomplete'])}")
    show_checks(console, to_json(checks))


def show_verdict(console: Console, name: str, verdict: Values) -> None:
    """Show the models of a pipeline, and what its budget says of them."""
    table = Table(title=f"{name}: {verdict['verdict']}", title_style="bold")
    metric = verdict["metric"]
    for column in ("model", metric_name(metric), "interval", "p95 (ms)", "size"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for role, model in verdict["models"].items():
        chosen = model.get("artefact") and model["artefact"] == verdict["chosen"]["artefact"]
        table.add_row(
            f"{role} ({model['name']})" if "name" in model else role.replace("_", " "),
            metric_text(metric, model[metric]),
            metric_interval(metric, model[f"{metric}_interval"]),
            figure(model.get("p95_latency_ms")),
            size(model.get("size_bytes")),
            style="bold green" if chosen else None,
        )
    console.print(table)
    show_checks(console, verdict["checks"])
    if verdict.get("did_it_beat_naive"):  # a run of an earlier version may not say
        console.print(verdict["did_it_beat_naive"])
    console.print(verdict["did_distillation_help"])
    console.print(f"report: {verdict['report']}", soft_wrap=True)


def show_checks(console: Console, checks: Sequence[Values]) -> None:
    """Show the checks that do not pass, with what they say."""
    for check in checks:
        if check["outcome"] != "pass":
            measured, limit = (check_figure(check["name"], check[n]) for n in ("measured", "limit"))
            console.print(
                f"[bold]{check['outcome']}[/bold] {escape(check['artefact'])} {check['name']}: "
                f"{measured}, limit {limit}"
                + (f" ({escape(check['note'])})" if check["note"] else "")
            )
