"""A pipeline whose student cannot meet its budget ends before anything is trained."""

import logging
from typing import Any

from distill.budget import Choice, Outcome
from distill.deployment.report.benchmark import write_benchmark_report
from distill.deployment.search.preflight import Preflight, has_limits
from distill.files import read_json, sha256_json, to_json, write_json
from distill.verbs.exporting.measuring import raw_samples
from distill.verbs.exporting.preflight import RAW, STAGE, preflight_stage
from distill.verbs.learning.networks import weights_path
from distill.verbs.run.own_code import sha256_of
from distill.verbs.run.ranks import agree
from distill.verbs.run.workspace import Workspace, plain

log = logging.getLogger(__name__)


def refusal(workspace: Workspace) -> dict[str, Any] | None:
    """Put a pipeline's student through preflight; return its verdict if it cannot be met."""
    if not workspace.cfg.preflight or not has_limits(workspace.budget):
        return None
    (found,) = preflight_stage(workspace, {"student": workspace})
    if _is_trained(workspace):
        return None  # what is trained is judged, whatever its budget is now
    if found.outcome is not Outcome.FAIL:
        log.info("preflight: the student may hold its latency, size and memory limits")
        return None
    return _refused(workspace, found) if workspace.leads else {"verdict": Outcome.FAIL}


def _is_trained(workspace: Workspace) -> bool:
    """Tell whether the student that went through preflight is trained already."""
    result = workspace.run_dir / "train" / "student.json"
    there = result.is_file() and weights_path(workspace.run_dir, "student").is_file()
    network = plain(workspace.cfg.student)
    own = sha256_of(network)
    # Of before hash or code was kept: a verdict that is there is better judged than refused.
    known = (own, sha256_json(network))
    return agree(there and read_json(result).get("network_sha256", own) in known)


def _refused(workspace: Workspace, found: Preflight) -> dict[str, Any]:
    """Write the verdict of a student that cannot meet its budget, and say what to do."""
    run_dir = workspace.run_dir
    why = (
        f"Expected a student that can meet `budget`, whatever it learns, but untrained it misses: "
        f"{found.misses}. Nothing was trained. Take a smaller `student=`, let `search` find one, "
        "raise the limit, or train it all the same with `preflight=false`."
    )
    verdict = {
        "verdict": Outcome.FAIL,
        "run_dir": str(run_dir),
        "report": str(run_dir / "report.html"),
        "why": why,
        "chosen": {"artefact": None, "target": None},
        "models": {},
        "distillation_gain": None,
        "did_distillation_help": "Nothing was trained.",
        "checks": found.checks,
    }
    measured = read_json(run_dir / f"{STAGE}.json")
    outcomes: dict[str, Outcome] = {row["artefact"]: Outcome.FAIL for row in measured["artefacts"]}
    choice = Choice(outcome=Outcome.FAIL, artefact=None, per_artefact=outcomes)
    limits, samples = workspace.budget.latency.percentiles, raw_samples(workspace, RAW)
    write_benchmark_report(
        run_dir,
        measured,
        {},
        found.checks,
        choice,
        samples=samples,
        limits_ms=limits,
        refused=why,
    )
    write_json(run_dir / "verdict.json", verdict)
    workspace.console.print(f"[bold red]fail[/bold red]: {why}", soft_wrap=True)
    return to_json(verdict)
