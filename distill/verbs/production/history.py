"""What `promote` tells people, on stderr: rules and their outcomes, and who was champion when."""

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill.pages import percent, percent_interval
from distill.production.registry.history import Period, periods
from distill.production.registry.ledger import Entry, Ledger
from distill.production.registry.promotion import Decision
from distill.verbs.run.summary import COLOURS


def show_decision(console: Console, model: str, decision: Decision) -> None:
    """Show each rule of a promotion, and what came of it."""
    if decision.findings:
        title = f"{model} version {decision.version}"
        table = Table(title=title, title_style="bold", box=box.SIMPLE_HEAD)
        for column in ("rule", "outcome", "drop", "interval", "limit"):
            table.add_column(column, justify="left" if column in ("rule", "outcome") else "right")
        for finding in decision.findings:
            table.add_row(
                _name(finding.rule),
                _coloured(finding.outcome),
                percent(finding.measured),
                percent_interval(finding.interval),
                percent(finding.limit),
            )
        console.print(table)
        for finding in decision.findings:
            console.print(f"{_name(finding.rule)}: {escape(finding.note)}")
    console.print(decision.why, style="bold")


def show_history(console: Console, model: str, ledger: Ledger, asked: list[Period] | None) -> None:
    """Show every entry of a ledger, who is in production now, and who was when it is asked."""
    ends = {period.entry: period.until for period in periods(ledger.entries)}
    title = f"{model}: {ledger.path}"
    table = Table(title=title, title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("", justify="right")
    table.add_column("UTC", no_wrap=True)
    table.add_column("what and why")
    for entry in ledger.entries:
        until = f"to {_time(ends[entry.number]) or 'now'}" if entry.number in ends else ""
        table.add_row(
            str(entry.number), f"{_time(entry.time)}\n{until}".strip(), "\n".join(_told(entry))
        )
    console.print(table)
    state = ledger.state
    named = ", ".join(f"{alias} {version}" for alias, version in state.aliases.items())
    console.print(f"now: {named or 'no champion'} (of {len(state.registered)} versions)")
    if asked is not None:
        console.print(
            "\n".join(
                f"champion then: version {period.version}, {_time(period.since)} to "
                f"{_time(period.until) or 'now'} (entry {period.entry})"
                for period in asked
            )
            or "champion then: none"
        )
    console.print(f"anchor: {ledger.head}", soft_wrap=True)


def _told(entry: Entry) -> list[str]:
    """Say what was done, by whom, why, and on what evidence."""
    what = f"{entry.alias}" if entry.action == "promote" else entry.action
    version = str(entry.version)
    if entry.alias == "champion" and entry.previous_champion is not None:
        version = f"{entry.previous_champion} → {version}"
    forced = " [bold red]BY FORCE[/bold red]" if entry.forced else ""
    lines = [f"[bold]{what} {version}[/bold]{forced} by {escape(entry.who)}"]
    if entry.reason:
        lines.append(f'"{escape(entry.reason)}"')
    if entry.action != "rollout":  # its reason says what decided; promotions are not to be buried
        lines += map(_evidence, entry.evidence)
    if entry.action == "register":
        lines.append(f"{escape(entry.artefact)} {entry.artefact_sha256[:12]}")
    return lines


def _evidence(finding: Any) -> str:
    text = f"{_name(finding['rule'])}: {_coloured(finding['outcome'])}"
    if finding["measured"] is not None and finding["interval"] is not None:
        return (
            f"{text}, {percent(finding['measured'])} ({percent_interval(finding['interval'])}), "
            f"limit {percent(finding['limit'])}"
        )
    return text if finding["outcome"] == "pass" else f"{text}, {escape(finding['note'])}"


def _name(rule: str) -> str:
    return rule.replace("_", " ")


def _coloured(outcome: str) -> str:
    return f"[{COLOURS[outcome]}]{outcome}[/{COLOURS[outcome]}]"


def _time(text: str | None) -> str:
    return "" if text is None else text[:19].replace("T", " ")
