"""How a search ends: its outcome in a sentence, `search.json`, the study and the report."""

from pathlib import Path
from typing import Any

from distill.deployment.report.search import SearchResults, write_search_report
from distill.deployment.search.outcome import Ending, end
from distill.deployment.search.record import compute, write_study
from distill.files import read_json, to_json, write_json
from distill.run_folder import BASELINE_SCORES
from distill.verbs.run.summary import COLOURS
from distill.verbs.searching.attempts import seconds_spent
from distill.verbs.searching.race import Race


def finish(race: Race) -> dict[str, Any]:
    """Write down what a search has found, and return it."""
    workspace, run_dir = race.workspace, race.workspace.run_dir
    verdicts = {
        entry.name: read_json(run_dir / entry.attempt.run_dir / "verdict.json")
        for entry in race.entries
        if entry.attempt
    }
    ending: Ending = end(race.entries, verdicts, race.stopped)
    spent = compute(race.entries, epochs=race.epochs, num_samples=len(workspace.data.train))
    result = to_json(
        {
            "verdict": ending.outcome,
            "run_dir": str(run_dir),
            "report": str(run_dir / "report.html"),
            "why": ending.why,
            "winner": ending.winner,
            "nearest": ending.nearest,
            "checks": verdicts[ending.winner["candidate"]]["checks"] if ending.winner else [],
            "num_verdicts": len(verdicts),
            "stopped": race.stopped,
            "compute": spent,
            "seconds": seconds_spent(run_dir),
            "on_validation": {
                "num_samples": len(workspace.data.validation),
                "references": race.references,
                "floors": race.limits,
            },
            "candidates": race.entries,
        }
    )
    if workspace.leads:
        write_json(run_dir / "search.json", result)
        write_study(run_dir / "study.db", workspace.cfg.name, race.entries)
        write_search_report(
            run_dir,
            SearchResults(
                name=workspace.cfg.name,
                entries=race.entries,
                ending=ending,
                compute=spent,
                seconds=result["seconds"],
                references=race.references,
                humans=_humans(run_dir),
                limits=race.limits,
                p95_limit_ms=workspace.budget.latency.p95_ms,
                preflight=read_json(run_dir / "preflight.json"),
                epochs=race.epochs,
            ),
        )
    style = COLOURS[ending.outcome]
    workspace.console.print(
        f"[bold {style}]{ending.outcome}[/bold {style}]: {ending.why}", soft_wrap=True
    )
    workspace.console.print(f"report: {result['report']}", soft_wrap=True)
    return result


def _humans(run_dir: Path) -> Any:
    """Give the accuracy of people's majority, where there are some and they have been scored."""
    path = run_dir / BASELINE_SCORES
    humans = read_json(path)["humans"] if path.is_file() else None
    return humans and humans["score"]["majority"]
