"""What a search tells people on its way, on stderr: tables after preflight and after each rung."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from distill.budget import Outcome
from distill.deployment.search.record import Entry
from distill.pages import figure, percent, size
from distill.verbs.run.workspace import Workspace


def show_preflight(workspace: Workspace, entries: Sequence[Entry]) -> None:
    """Show all candidates, and what those miss that are out."""
    out = sum(e.preflight.outcome is Outcome.FAIL for e in entries)
    title = f"preflight: {len(entries)} candidates, {out} cannot meet the budget"
    table = _table(title, ("candidate", "p95 (ms)", "size", "", "budget"))
    for entry in entries:
        found = entry.preflight
        refused = found.outcome is Outcome.FAIL
        p95 = found.p95_latency_ms
        table.add_row(
            escape(entry.name),
            figure(p95["estimate"]) if p95 else "",
            size(found.size_bytes),
            found.precision,
            f"misses {found.misses}" if refused else "may fit",
            style="dim" if refused else None,
        )
    workspace.console.print(table)


def show_rung(
    workspace: Workspace, epochs: int, entries: Sequence[Entry], seconds_left: float
) -> None:
    """Show what a rung's trainings came to, and who goes on."""
    left = f"{max(0, seconds_left) / 60:.0f} minutes left"
    title = f"after {epochs} epochs: accuracy on validation, and predicted in full; {left}"
    columns = ("candidate", "now", "in full", "needed", "holds", "decision")
    table = _table(title, columns)
    for entry in entries:
        rung = entry.rungs[-1]
        table.add_row(
            escape(entry.name),
            percent(rung.accuracy.estimate, 1),
            percent(rung.outlook.accuracy, 1),
            percent(rung.outlook.needed, 1),
            f"{rung.outlook.chance:.0%}",
            escape((entry.dropped or "goes on").partition(": ")[2] or "goes on"),
            style="dim" if entry.dropped else None,
        )
    workspace.console.print(table)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_style="bold")
    for column in columns:
        words = column in ("candidate", "budget", "decision", "")
        table.add_column(column, justify="left" if words else "right", no_wrap=not words)
    return table
