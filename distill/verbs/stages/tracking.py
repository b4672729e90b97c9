"""A finished pipeline in MLflow, where `logger=mlflow` asks for it."""

import logging
from pathlib import Path
from typing import Any

from distill.files import read_json
from distill.production.registry.connection import UnreachableError
from distill.production.registry.tracking import Record, keep
from distill.run_folder import Stage
from distill.verbs.run.workspace import Workspace, plain, redacted

log = logging.getLogger(__name__)

FILES = ("report.html", "report.md", "verdict.json", "config.yaml", "export")


def track(workspace: Workspace, verdict: dict[str, Any]) -> bool:
    """Keep settings, figures, report and artefacts, once; a server that is away costs a warning.

    Returns:
        Whether nothing is left to be kept.
    """
    node, run_dir = workspace.cfg.logger.get("mlflow"), workspace.run_dir
    if not node or not workspace.leads:
        return True
    uri, experiment = node.tracking_uri, node.experiment_name

    def compute() -> dict[str, Any]:
        record = Record(
            experiment=experiment,
            name="pipeline",
            settings=plain(redacted(workspace.cfg)),
            figures=_figures(verdict, read_json(run_dir / "benchmark.json")),
            tags={"distill.verdict": verdict["verdict"], "distill.run_dir": str(run_dir)},
            files=tuple(run_dir / name for name in FILES),
        )
        return {"run_id": keep(uri, record, Path("mlruns")), "experiment": experiment}

    stage = Stage(
        name="tracking",
        values={"tracking_uri": uri, "experiment": experiment},
        inputs=(run_dir / "verdict.json", run_dir / "report.html"),
    )
    try:  # the leader alone, and of no consequence: nobody waits for what it returns
        if stage.finished(run_dir) is None:
            stage.run(run_dir, compute)
    except UnreachableError as error:
        log.warning("The verdict stands, but is not in MLflow. %s", error)
        return False
    return True


def _figures(verdict: dict[str, Any], benchmark: dict[str, Any]) -> dict[str, float]:
    found = {"distillation_gain": verdict["distillation_gain"]["estimate"]}
    rows = {row["artefact"]: row for row in benchmark["artefacts"]}
    for role, model in verdict["models"].items():
        row = rows.get(model.get("artefact"), {})
        for name in ("p50_latency_ms", "p95_latency_ms"):
            if row.get(name):
                found[f"{role}_{name}"] = row[name]["estimate"]
        for name in (verdict["metric"], "size_bytes"):
            if model.get(name) is not None:
                found[f"{role}_{name}"] = model[name]
    return found
