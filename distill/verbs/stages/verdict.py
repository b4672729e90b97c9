"""The verdict of a pipeline: every limit of the budget held against every file that may ship."""

import dataclasses
import platform
from pathlib import Path
from typing import Any

import numpy as np

from distill.budget import Check, choose
from distill.deployment.checks import (
    compatibility_checks,
    median_ms,
    quality_checks,
    target_checks,
)
from distill.deployment.naive import gains_over
from distill.deployment.report.pipeline import PipelineResults, write_pipeline_report
from distill.deployment.report.sentences import distillation_sentence
from distill.files import read_json, sha256, to_json
from distill.redaction import without_secrets
from distill.run_folder import BASELINE_ANSWERS, TEST_LOGITS, versions
from distill.tables.windows import Windows
from distill.verbs.exporting.artefacts import MAY_SHIP, STUDENT
from distill.verbs.exporting.measuring import RAW, raw_samples
from distill.verbs.learning.fitting import HISTORY
from distill.verbs.learning.seeds import seeds, sentence
from distill.verbs.run.workspace import Workspace, plain
from distill.verbs.stages.recipe import loss_words, node_words, teacher_words
from distill.wording import metric_name, metric_text

NUM_DRAWN = 800  # answers in a picture


def verdict_stage(workspace: Workspace, results: PipelineResults) -> dict[str, Any]:
    """Judge every file that may ship, choose among them, and write the report."""
    budget, run_dir = workspace.budget, workspace.run_dir
    outputs = ("report.html", "report.md", "junit.xml")

    def compute() -> dict[str, Any]:
        checks = _checks(workspace, results)
        shippable = [results.artefacts[role] for role in MAY_SHIP if role in results.artefacts]
        rows = {row["artefact"]: row for row in results.benchmark["artefacts"]}
        choice = choose(checks, {name: median_ms(rows[name]) for name in shippable})
        with_history = {
            role: trained | {"history": _history(run_dir / "train" / role / HISTORY)}
            for role, trained in results.training.items()
        }
        answers = _some_answers(workspace)
        drawn = dataclasses.replace(
            results,
            training=with_history,
            answers=answers,
            forecast=_a_forecast(workspace, results.evaluation),
        )
        write_pipeline_report(run_dir, drawn, checks, choice, to_json(budget))
        metric = results.evaluation["metric"]
        over_naive, beaten = gains_over(results.baseline["best"], results.evaluation)
        gain = results.evaluation["margins"]["student"]["gain_vs_control"]
        return {
            "verdict": choice.outcome,
            "name": results.name,
            "run_dir": str(run_dir),
            "report": str(run_dir / "report.html"),
            "chosen": {
                "artefact": choice.artefact,
                "target": results.benchmark["target"] if choice.artefact else None,
            },
            # What was judged, and on what: the registry takes no other file on this verdict.
            "artefacts": {name: sha256(run_dir / "export" / name) for name in shippable},
            "test_fingerprint": results.evaluation["test_fingerprint"],
            "models": _models(results, rows),
            "metric": metric,
            "distillation_gain": {"metric": metric, **gain},
            "gain_over_naive": over_naive,
            "did_it_beat_naive": beaten,
            "did_distillation_help": distillation_sentence(
                gain, metric, budget.confidence, results.evaluation["models"]
            ),
            "backtest": results.backtest,
            "old_test": results.evaluation["old_test"],
            "checks": checks,
            "warnings": results.warnings,
        }

    names = ("baseline", "teacher", "train")
    names += ("export", "evaluate", "benchmark")
    names += ("compatibility",) if results.compatibility else ()
    inputs = (*(run_dir / f"{name}.json" for name in names), run_dir / RAW)
    values = {"budget": budget, "name": results.name, "backtest": results.backtest}
    return workspace.stage("verdict", compute, values=values, inputs=inputs, outputs=outputs)


def _some_answers(workspace: Workspace) -> tuple[list[float], list[float], str] | None:
    """Take labels and the student's answers to some test samples, of the first number asked for.

    Of quantiles the one nearest the median.
    """
    data = workspace.data
    if not data.is_numeric:
        return None
    with np.load(workspace.run_dir / TEST_LOGITS, allow_pickle=False) as arrays:
        labels, answers = arrays["label"][:, 0], arrays["student"][:, data.task.middle]
    rows = np.linspace(0, len(labels) - 1, min(len(labels), NUM_DRAWN)).astype(np.int64)
    return labels[rows].tolist(), answers[rows].tolist(), data.classes[data.task.middle]


def _a_forecast(workspace: Workspace, evaluation: dict[str, Any]) -> dict[str, Any] | None:
    """Take the test window of a series at which the student's error is the median.

    Of quantiles those nearest the median.
    """
    task = workspace.data.task
    middle = slice(task.middle, None, max(1, len(task.quantiles)))
    encoder, test = workspace.data.encoder, workspace.data.test
    naive = evaluation["naive"]
    if not isinstance(encoder, Windows) or naive is None or test.records is None:
        return None
    with np.load(workspace.run_dir / TEST_LOGITS, allow_pickle=False) as arrays:
        answers = arrays["student"][:, middle]
    with np.load(workspace.run_dir / BASELINE_ANSWERS, allow_pickle=False) as arrays:
        reference = arrays[naive["reference"]][:, middle]
    errors = ((answers - test.labels) ** 2).mean(axis=1)
    row = int(np.argsort(errors)[len(errors) // 2])
    return {
        "past": test.records[encoder.value][row].tolist(),
        "label": test.labels[row].tolist(),
        "student": answers[row].tolist(),
        "naive": reference[row].tolist(),
        "name": naive["reference"].replace("_", " "),
    }


def _history(path: Path) -> list[dict[str, float]]:
    """Read the epochs of a training; an ensemble or a fitted estimator has none."""
    return read_json(path) if path.is_file() else []


def _before(old_test: dict[str, Any] | None, metric: str) -> str:
    """Say how good each model is on what was the test set before; empty where there is none."""
    if old_test is None:
        return ""
    scores = (
        f"{role.replace('_', ' ')} {metric_text(metric, score['estimate'])}"
        for role, score in old_test["scores"].items()
    )
    return f"{old_test['num_samples']} samples, {metric_name(metric)}: {', '.join(scores)}"


def over_seeds(summary: dict[str, Any], workspace: Workspace) -> str | None:
    """Say what sets student and control apart over several seeds; None for one."""
    if len(seeds(workspace)) == 1:
        return None
    found = summary["best_epoch"]["student_minus_control"]
    said = sentence(found, summary["metric"])
    return f"Over {found['num_seeds']} seeds, student against control: {said}."


def _checks(workspace: Workspace, results: PipelineResults) -> list[Check]:
    budget, benchmark, evaluation = workspace.budget, results.benchmark, results.evaluation
    shippable = [role for role in MAY_SHIP if role in results.artefacts]
    names = {results.artefacts[role] for role in shippable}
    checks: list[Check] = []
    for role in shippable:
        artefact = results.artefacts[role]
        checks += quality_checks(
            budget,
            artefact=artefact,
            target=benchmark["target"],
            metric=evaluation["metric"],
            score=evaluation["models"][role],
            margins=evaluation["margins"][role],
            parity=results.export["parity"][artefact],
            binds_logits=artefact == STUDENT,
            before=evaluation["old_test"] and evaluation["old_test"]["drops"].get(role, {}),
            num_samples=evaluation["num_samples"],
        )
    own = [row for row in benchmark["artefacts"] if row["artefact"] in names]
    checks += target_checks(budget, benchmark | {"artefacts": own}, raw_samples(workspace))
    checks += compatibility_checks(
        results.compatibility, sorted(names), budget.parity.max_logit_std
    )
    return sorted(checks, key=lambda check: check.artefact != STUDENT)


def _models(results: PipelineResults, rows: dict[str, Any]) -> dict[str, Any]:
    best, metric = results.baseline["best"], results.evaluation["metric"]
    scores = results.baseline["baselines"][best]
    models = {"baseline": _model(scores, metric) | {"name": best.replace("_", " ")}}
    models["baseline"]["measured_through"] = results.baseline["measured_through"]
    models |= _others(results.baseline, metric)
    for role, score in results.evaluation["models"].items():
        row = rows.get(results.artefacts.get(role, ""))
        models[role] = _model(score, metric) | {
            "artefact": results.artefacts.get(role),
            "measured_through": score["measured_through"],
            "p95_latency_ms": _estimate(row["p95_latency_ms"]) if row else None,
            "size_bytes": row["size_bytes"] if row else None,
        }
    return models


def _others(baseline: dict[str, Any], metric: str) -> dict[str, Any]:
    """List the model now in production and people, where they were scored."""
    incumbent, humans = baseline["incumbent"], baseline["humans"]
    found: dict[str, Any] = {}
    if incumbent is not None:
        found["incumbent"] = _model(incumbent, metric) | {
            "name": Path(incumbent["artefact"]).name,
            "measured_through": incumbent["measured_through"],
            "p95_latency_ms": _estimate(incumbent["p95_latency_ms"]),
            "size_bytes": incumbent["size_bytes"],
        }
    if humans is not None:
        found["humans"] = _model({metric: humans["score"]["majority"]}, metric) | {
            "name": "majority",
            "measured_through": humans["measured_through"],
        }
    return found


def _model(scores: dict[str, Any], metric: str) -> dict[str, Any]:
    own = scores[metric]
    return {metric: own["estimate"], f"{metric}_interval": own["interval"]}


def _estimate(value: dict[str, Any] | None) -> float | None:
    return None if value is None else value["estimate"]


def facts(
    workspace: Workspace, export: dict[str, Any], evaluation: dict[str, Any]
) -> list[tuple[str, str]]:
    """List how a pipeline was run, as (name, value)."""
    cfg, data = workspace.cfg, workspace.data
    made = {"teacher": cfg.teacher, "student": cfg.student, "loss": workspace.of_task("loss")}
    made = without_secrets({name: plain(node) for name, node in made.items()})
    splits = f"{len(data.train)} training, {len(data.validation)} validation, {len(data.test)} test"
    quantized = export["quantized"]
    smaller = [("quantisation", f"{quantized['outcome']}: {quantized['why']}")] if quantized else []
    before = _before(evaluation["old_test"], evaluation["metric"])
    unused = "; ".join(f"{name} ({why})" for name, why in data.left_out.items())
    return [
        *smaller,
        *([("old test set", before)] if before else []),
        *([("columns left out", unused)] if unused else []),
        ("data", f"{data.name}: {splits} samples; {data.num_skipped} corrupt ones left out"),
        ("seed", str(cfg.seed)),
        ("teacher", teacher_words(made["teacher"], is_numeric=data.is_numeric)),
        ("student", node_words(made["student"])),
        ("loss", loss_words(made["loss"])),
        ("machine", f"{platform.machine()}, {platform.system()} {platform.release()}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions().items())),
    ]
