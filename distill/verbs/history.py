"""What `promote` tells people, on stderr: rules and their outcomes, and who was champion when."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distill.pages import percent, percent_interval
from distill.production.registry.history import Period, periods
from distill.production.registry.ledger import Entry, Ledger
from distill.production.registry.registry import Decision

COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}


def show_decision(console: Console, model: str, decision: Decision) -> None:
    """Show each rule of a promotion, and what came of it."""
    if decision.findings:
        table = Table(title=f"{model} version {decision.version}", title_style="bold")
        for column in ("rule", "outcome", "drop", "interval", "limit", "what was found"):
            table.add_column(column)
        for finding in decision.findings:
            colour = COLOURS[finding.outcome]
            table.add_row(
                finding.rule.replace("_", " "),
                f"[{colour}]{finding.outcome}[/{colour}]",
                percent(finding.measured),
                percent_interval(finding.interval),
                percent(finding.limit),
                escape(finding.note),
            )
        console.print(table)
    console.print(decision.why, style="bold")


def show_history(console: Console, model: str, ledger: Ledger, asked: list[Period] | None) -> None:
    """Show every entry of a ledger, who is in production now, and who was when it is asked."""
    ends = {period.entry: period.until for period in periods(ledger.entries)}
    table = Table(title=f"{model}: {ledger.path}", title_style="bold")
    for column in ("", "when (UTC)", "what", "version", "champion until", "who", "why"):
        table.add_column(column)
    for entry in ledger.entries:
        table.add_row(
            str(entry.number),
            _time(entry.time),
            _what(entry),
            _versions(entry),
            (_time(ends[entry.number]) or "now") if entry.number in ends else "",
            escape(entry.who),
            _why(entry),
            style="bold" if ends.get(entry.number, "") is None else None,
        )
    console.print(table)
    named = ", ".join(f"{alias} {version}" for alias, version in ledger.state.aliases.items())
    console.print(f"now: {named or 'no champion'}; versions: {len(ledger.state.registered)}")
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


def _what(entry: Entry) -> str:
    what = f"to {entry.alias}" if entry.action == "promote" else entry.action
    return f"{what} [bold red]BY FORCE[/bold red]" if entry.forced else what


def _versions(entry: Entry) -> str:
    moved = entry.alias == "champion" and entry.previous_champion is not None
    return f"{entry.previous_champion} → {entry.version}" if moved else str(entry.version)


def _why(entry: Entry) -> str:
    """Say the reason, then the evidence: all of it in figures where there are any."""
    parts = [f'"{escape(entry.reason)}"'] if entry.reason else []
    parts += [_evidence(finding) for finding in entry.evidence]
    if entry.action == "register":
        parts.append(f"{entry.artefact} {entry.artefact_sha256[:12]}")
    return "\n".join(parts)


def _evidence(finding: Any) -> str:
    colour, name = COLOURS[finding["outcome"]], finding["rule"].replace("_", " ")
    text = f"{name} [{colour}]{finding['outcome']}[/{colour}]"
    if finding["measured"] is not None:
        return (
            f"{text}: {percent(finding['measured'])} ({percent_interval(finding['interval'])}), "
            f"limit {percent(finding['limit'])}"
        )
    return text if finding["outcome"] == "pass" else f"{text}: {escape(finding['note'])}"


def _time(text: str | None) -> str:
    return "" if text is None else text[:19].replace("T", " ")
