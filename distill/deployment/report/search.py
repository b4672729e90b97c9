"""The report of a search: outcome, picture, every candidate and its way. Decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.budget import Choice, Outcome
from distill.deployment.report import pareto
from distill.deployment.report.cells import (
    Cell,
    Values,
    cell,
    check_row,
    facts_of,
    figure_cell,
    warnings_of,
)
from distill.deployment.report.pictures import COLOURS
from distill.deployment.report.write import write_report
from distill.deployment.search.outcome import Ending
from distill.deployment.search.outlook import Floor, Outlook
from distill.deployment.search.record import Entry
from distill.pages import percent, percent_interval, size


@dataclass(frozen=True, kw_only=True)
class SearchResults:
    """What a search left.

    Attributes:
        name: of the run.
        entries: all candidates, the cheapest first.
        ending: how it came out.
        compute: what it cost.
        seconds: of all stages.
        references: accuracy on validation by name, each an estimate or None.
        humans: accuracy of their majority on the test set; None without.
        limits: on accuracy, as they show on validation.
        p95_limit_ms: None for none.
        preflight: `preflight.json`.
        epochs: of a full training.
    """

    name: str
    entries: Sequence[Entry]
    ending: Ending
    compute: Mapping[str, Any]
    seconds: float
    references: Mapping[str, Any]
    humans: Values | None
    limits: Sequence[Floor]
    p95_limit_ms: float | None
    preflight: Values
    epochs: int


def write_search_report(run_dir: Path, results: SearchResults) -> None:
    """Write the report of a search in its three forms."""
    ending, entries = results.ending, results.entries
    checks = [check for entry in entries for check in entry.preflight.checks]
    outcomes = {check.artefact: Outcome.INCONCLUSIVE for check in checks}
    for check in checks:
        if check.outcome is Outcome.FAIL:
            outcomes[check.artefact] = Outcome.FAIL
    winner = ending.winner["candidate"] if ending.winner else None
    page = {
        "title": f"{results.name}: search",
        "verdict": str(ending.outcome),
        "headline": ending.why,
        "sentences": [_compute_sentence(results), _verdicts_sentence(results)],
        "warnings": warnings_of(results.preflight),
        "columns": [
            "candidate",
            "p95 untrained (ms)",
            "size",
            "on validation",
            "in full",
            "needed",
            "what became of it",
        ],
        "rows": [
            {"chosen": entry.name == winner, "cells": _cells(number, entry, winner)}
            for number, entry in enumerate(entries, start=1)
        ],
        "table_note": (
            "The cheapest first, by the median latency of its cheapest file that may hold the "
            "budget. Validation: after the last short training, whole by its own schedule. "
            "In full: errors fall as a power of the epochs. Needed: the highest accuracy limit, "
            "and half of the interval that the test set will leave. Small print: intervals."
        ),
        "pictures": _pictures(results, winner),
        "checks": [check_row(c) for c in checks if c.outcome is Outcome.FAIL],
        "classes": [],
        "tables": [],
        "facts": facts_of(results.preflight),
    }
    choice = Choice(outcome=ending.outcome, artefact=winner, per_artefact=outcomes)
    write_report(run_dir, page, checks, choice)


def _compute_sentence(results: SearchResults) -> str:
    share = results.compute["share"] or 0.0
    return (
        f"It took {results.seconds:,.0f} s, and {share:.0%} of the compute of training all "
        f"{len(results.entries)} candidates in full, controls included."
    )


def _verdicts_sentence(results: SearchResults) -> str:
    count = sum(entry.attempt is not None for entry in results.entries)
    looked = f"{count} time{'' if count == 1 else 's'}"
    luck = f", and a wrong pass is up to {looked} as likely as of one pipeline" * (count > 1)
    return f"Validation alone decided who goes on; the test set was looked at {looked}{luck}."


def _cells(number: int, entry: Entry, winner: str | None) -> list[Cell]:
    found, rung = entry.preflight, entry.rungs[-1] if entry.rungs else None
    known = [cell("")] * 3
    if rung is not None:
        outlook = rung.outlook
        known = [
            cell(
                f"{percent(rung.accuracy.estimate, 1)} at {rung.trained.epochs}",
                percent_interval(rung.accuracy.interval, 1),
            ),
            _in_full(entry, outlook),
            cell(percent(outlook.needed, 1), f"chance {outlook.chance:.0%}"),
        ]
    return [
        cell(f"{number}  {entry.name}"),
        figure_cell(dict(found.p95_latency_ms) if found.p95_latency_ms else None),
        cell(size(found.size_bytes), found.precision),
        *known,
        cell("", _fate(entry, winner)),
    ]


def _in_full(entry: Entry, outlook: Outlook) -> Cell:
    if entry.attempt:
        reached, predicted = entry.attempt.on_validation.accuracy, percent(outlook.accuracy, 1)
        return cell(percent(reached, 1), f"reached; {predicted} predicted")
    return cell(percent(outlook.accuracy, 1), f"predicted, {percent_interval(outlook.interval, 1)}")


def _fate(entry: Entry, winner: str | None) -> str:
    attempt = entry.attempt
    if attempt is None:
        return entry.dropped or "stayed in"
    reached = attempt.accuracy
    said = f"{percent(reached.estimate)} on test ({percent_interval(reached.interval, 1)})"
    if entry.name == winner:
        return f"wins: {attempt.artefact}, {said}"
    return f"trained in full, verdict {attempt.verdict}: {said}"


def _pictures(results: SearchResults, winner: str | None) -> list[dict[str, Any]]:
    dots = [
        _dot(number, entry, entry.name == winner)
        for number, entry in enumerate(results.entries, start=1)
        if entry.preflight.p95_latency_ms
    ]
    if not dots:
        return []
    meanings = {
        pareto.WINNER: "winner",
        pareto.RACING: "in to the end",
        pareto.DROPPED: "dropped on the way",
        pareto.REFUSED: "cannot meet the budget, not trained",
    }
    used = {dot.colour for dot in dots}
    lines = {
        name: (value["estimate"], COLOURS.get(name, pareto.HUMANS))
        for name, value in results.references.items()
        if value
    }
    if results.humans:
        lines["humans (test)"] = results.humans["estimate"], pareto.HUMANS
    if results.limits:
        floor = max(results.limits, key=lambda limit: limit.accuracy)
        lines["accuracy floor"] = floor.accuracy, pareto.BUDGET
    return [
        {
            "title": "Accuracy against latency",
            "svg": pareto.pareto(
                dots,
                lines,
                limit_ms=results.p95_limit_ms,
                legend={c: meaning for c, meaning in meanings.items() if c in used},
            ),
            "note": (
                "Numbers are those of the table. A dot is the accuracy after the last short "
                f"training, with its interval; the ring is predicted for all {results.epochs} "
                "epochs, and filled where it was trained for all of them. The line joins those "
                "in to the end that no quicker one beats. A triangle lies below what is shown."
            ),
            "wide": True,
        }
    ]


def _dot(number: int, entry: Entry, is_winner: bool) -> pareto.Dot:
    latency = entry.preflight.p95_latency_ms
    assert latency is not None
    refused = entry.preflight.outcome is Outcome.FAIL
    colour = pareto.DROPPED if entry.dropped else pareto.RACING
    colour = pareto.WINNER if is_winner else pareto.REFUSED if refused else colour
    rung = entry.rungs[-1] if entry.rungs else None
    reached = entry.attempt.on_validation.accuracy if entry.attempt else None
    return pareto.Dot(
        label=f"{number} {entry.name}" if is_winner else str(number),
        p95_ms=latency["estimate"],
        colour=colour,
        measured=rung and rung.accuracy.estimate,
        interval=rung and rung.accuracy.interval,
        in_full=rung and rung.outlook.accuracy if reached is None else reached,
        is_reached=reached is not None,
        is_winner=is_winner,
    )
