"""The report of a pipeline: what was found in words, tables and pictures. Decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.budget import AccuracyBudget, Check, Choice
from distill.deployment.evaluate import INCUMBENT
from distill.deployment.report import pictures
from distill.deployment.report.cells import (
    Values,
    accuracy_cell,
    cell,
    check_row,
    facts_of,
    figure_cell,
    quality_cell,
    warnings_of,
)
from distill.deployment.report.matrix import matrix_table
from distill.deployment.report.prospect import prospect
from distill.deployment.report.references import QUALITY, gains_table, reference_rows
from distill.deployment.report.write import choice_sentence, write_report
from distill.pages import percent, size


def distillation_sentence(gain: Values, confidence: float) -> str:
    """Answer "did distillation help?" in one sentence, with its interval."""
    low, high = gain["interval"]
    points = f"{100 * gain['estimate']:+.2f} points of accuracy against the control"
    doubt = (
        f"({confidence:.0%} interval {100 * low:+.2f} to {100 * high:+.2f}, "
        f"McNemar p = {gain['p_value']:.2g}, {gain['num_samples']} test samples)"
    )
    if low > 0:
        return f"Distillation helped: {points} {doubt}."
    if high < 0:
        return f"Distillation hurt: {points} {doubt}. Ship the control, or change the loss."
    return f"Distillation made no difference that this test set can show: {points} {doubt}."


@dataclass(frozen=True, kw_only=True)
class PipelineResults:
    """What the stages of a pipeline left, as plain values.

    Attributes:
        name: of the run.
        baseline: `baseline.json`.
        training: per role, its result with the `history` of its epochs.
        over_seeds: student against control over several seeds, in words; None for one seed.
        export: `export.json`.
        evaluation: `evaluate.json`.
        benchmark: `benchmark.json`.
        artefacts: role to file name, for those that were exported.
        compatibility: `compatibility.json`: answers under emulated processors; empty without.
        facts: how it was measured, as (name, value).
        warnings: about the data, a sentence each.
    """

    name: str
    baseline: Values
    training: Mapping[str, Values]
    over_seeds: str | None
    export: Values
    evaluation: Values
    benchmark: Values
    artefacts: Mapping[str, str]
    compatibility: Values
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str] = ()


def write_pipeline_report(
    run_dir: Path, results: PipelineResults, checks: Sequence[Check], choice: Choice, limits: Values
) -> None:
    """Write the report of a pipeline in its three forms.

    Args:
        run_dir: where to.
        results: of the stages.
        checks: of every artefact that may ship.
        choice: among them.
        limits: the budget as plain values, to draw in the picture.
    """
    evaluation, confidence = results.evaluation, results.evaluation["confidence"]
    gain = evaluation["margins"]["student"]["gain_vs_control"]
    page = {
        "title": results.name,
        "verdict": str(choice.outcome),
        "headline": distillation_sentence(gain, confidence),
        "sentences": [
            choice_sentence(choice, results.benchmark["target"]),
            *_prospect(results, limits),
            *_epochs(results),
        ],
        "warnings": [*results.warnings, *warnings_of(results.benchmark)],
        "columns": [
            "model",
            "accuracy",
            "macro-F1",
            "NLL",
            "ECE",
            "agrees with teacher",
            "p95 latency (ms)",
            "size",
        ],
        "rows": _rows(results, choice),
        "table_note": (
            f"On {evaluation['num_samples']} test samples; small print: {confidence:.0%} "
            "intervals. "
            "The control is the same student trained on labels alone, same budget and seed. "
            "Latency is that of single calls. " + _measured_through(results)
        ),
        "pictures": _pictures(results, limits),
        "checks": [check_row(check) for check in checks],
        "classes": [_class_row(row) for row in evaluation["per_class_vs_control"]],
        "tables": [*gains_table(evaluation), *matrix_table(results.compatibility)],
        "facts": [*results.facts, *facts_of(results.benchmark)],
    }
    write_report(run_dir, page, checks, choice)


def _prospect(results: PipelineResults, limits: Values) -> list[str]:
    teacher = results.evaluation["models"].get("teacher")
    accuracy = AccuracyBudget(**limits["accuracy"])
    known = None if teacher is None else teacher["accuracy"]
    return prospect(results.baseline, known, accuracy, before=False)


def _epochs(results: PipelineResults) -> list[str]:
    student = results.training["student"]
    best, last = (student[f"test_at_{epoch}_epoch"]["accuracy"] for epoch in ("best", "last"))
    over_seeds = [] if results.over_seeds is None else [results.over_seeds]
    return [
        *over_seeds,
        f"The student that is exported is that of epoch {student['best_epoch'] + 1}, the best on "
        f"validation: {percent(best['estimate'])} on test by torch; at the last epoch, "
        f"{student['last_epoch'] + 1}, it is {percent(last['estimate'])}. A temperature of "
        f"{student['test_at_best_epoch']['temperature']:.2f}, fitted on validation, is folded into "
        "it.",
    ]


def _measured_through(results: PipelineResults) -> str:
    models = results.evaluation["models"]
    through = "; ".join(f"{_name(role)}: {m['measured_through']}" for role, m in models.items())
    incumbent = results.baseline["incumbent"]
    if incumbent is not None:
        through += f"; incumbent: {incumbent['measured_through']}"
    return f"Measured through: {through}; baseline: {results.baseline['measured_through']}."


def _rows(results: PipelineResults, choice: Choice) -> list[dict[str, Any]]:
    latency = {row["artefact"]: row for row in results.benchmark["artefacts"]}
    rows = [{"chosen": False, "cells": cells} for cells in reference_rows(results.baseline)]
    for role, model in results.evaluation["models"].items():
        artefact = results.artefacts.get(role, "")
        row = latency.get(artefact)
        agreement = model["agreement_with_teacher"]
        cells = [
            cell(_name(role), _parameters(results, role)),
            accuracy_cell(model["accuracy"]),
            *[quality_cell(name, model[name]) for name in QUALITY],
            accuracy_cell(agreement) if agreement else cell(""),
            figure_cell(row["p95_latency_ms"]) if row else cell(""),
            cell(size(row["size_bytes"])) if row else cell(""),
        ]
        rows.append({"chosen": artefact == choice.artefact, "cells": cells})
    return rows


def _name(role: str) -> str:
    return role.replace("_", " ")


def _parameters(results: PipelineResults, role: str) -> str:
    num_parameters = results.training[role.partition("_")[0]].get("num_parameters")
    return f"{num_parameters:,} parameters" if num_parameters else ""


def _pictures(results: PipelineResults, limits: Values) -> list[dict[str, Any]]:
    models, latency = results.evaluation["models"], results.benchmark["artefacts"]
    rows = {row["artefact"]: row["p95_latency_ms"] for row in latency}
    points = [
        pictures.Point(
            name=_name(role),
            latency=rows[results.artefacts[role]],
            accuracy=model["accuracy"],
        )
        for role, model in models.items()
        if results.artefacts.get(role) in rows
    ]
    incumbent = results.baseline["incumbent"]
    if incumbent is not None and incumbent["p95_latency_ms"] is not None:
        latency_ms, accuracy = incumbent["p95_latency_ms"], incumbent["accuracy"]
        points.append(pictures.Point(name=INCUMBENT, latency=latency_ms, accuracy=accuracy))
    best = results.baseline["baselines"][results.baseline["best"]]["accuracy"]
    drawn = [
        {
            "title": "Accuracy against latency",
            "svg": pictures.accuracy_against_latency(
                points, baseline=best, limit_ms=limits["latency"]["p95_ms"]
            ),
            "note": "Bars are intervals. Up and to the left is better; latency is logarithmic.",
            "wide": True,
        }
    ]
    histories = {role: trained["history"] for role, trained in results.training.items()}
    if any(histories.values()):
        drawn.append(
            {
                "title": "Training",
                "svg": pictures.training_curves(histories),
                "note": "Accuracy on validation after each epoch. The dot is the epoch kept.",
                "wide": False,
            }
        )
    drawn.append(
        {
            "title": "Calibration",
            "svg": pictures.calibration({r: m["calibration"] for r, m in models.items()}),
            "note": (
                f"On the diagonal, a confidence of 80 % is right 80 % of the time. Bins of fewer "
                f"than {pictures.MIN_BIN} samples are left out."
            ),
            "wide": False,
        }
    )
    return drawn


def _class_row(row: Values) -> dict[str, Any]:
    difference = row["difference"]
    low, high = (100 * end for end in difference["interval"])
    return {
        "label": row["label"],
        "num_samples": row["num_samples"],
        "estimate": f"{100 * difference['estimate']:+.2f} points",
        "interval": f"{low:+.2f} to {high:+.2f}",
        "p_value": f"{difference['p_value']:.2g}",
        "regressed": row["regressed"],
    }
