"""The report of a pipeline: what was found in words, tables and pictures. Decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.budget import AccuracyBudget, Check, Choice
from distill.deployment.evaluate import INCUMBENT
from distill.deployment.naive import gains_over
from distill.deployment.report import pictures
from distill.deployment.report.cells import (
    Values,
    cell,
    check_row,
    facts_of,
    figure_cell,
    quality_cell,
    share_cell,
    warnings_of,
)
from distill.deployment.report.matrix import matrix_table
from distill.deployment.report.prospect import prospect
from distill.deployment.report.references import (
    backtest_table,
    gains_table,
    reference_rows,
    shown_figures,
)
from distill.deployment.report.sentences import (
    agreement_note,
    coverage_sentences,
    distillation_sentence,
    epoch_sentence,
    measured_through,
    role_name,
    unit_sentences,
)
from distill.deployment.report.write import choice_sentence, write_report
from distill.pages import size
from distill.wording import ERRORS, metric_name, metric_title


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
        answers: of numbers, labels and the student's answers to some test samples, [K] each, and
            what they are of.
        forecast: of a series, one window of the test set: `past`, `label`, `student`, and `naive`
            with its name.
        backtest: what `backtest_stage` found; None without.
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
    answers: tuple[Sequence[float], Sequence[float], str] | None = None
    forecast: Values | None = None
    backtest: Values | None = None


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
    figures = shown_figures(evaluation)
    page = {
        "title": results.name,
        "verdict": str(choice.outcome),
        "headline": gains_over(results.baseline["best"], evaluation)[1],
        "sentences": [
            distillation_sentence(gain, evaluation["metric"], confidence, evaluation["models"]),
            choice_sentence(choice, results.benchmark["target"]),
            *coverage_sentences(evaluation),
            *unit_sentences(evaluation),
            *_prospect(results, limits),
            *([] if results.over_seeds is None else [results.over_seeds]),
            epoch_sentence(results.training["student"], evaluation["metric"]),
        ],
        "warnings": [*results.warnings, *warnings_of(results.benchmark)],
        "columns": [
            "model",
            *map(metric_name, figures),
            "agrees with teacher",
            "p95 latency (ms)",
            "size",
        ],
        "rows": _rows(results, choice, figures),
        "table_note": (
            f"On {evaluation['num_samples']} test samples; small print: {confidence:.0%} "
            f"intervals. {agreement_note(evaluation['metric'])}"
            "The control is the same student trained on labels alone, same budget and seed. "
            "Latency is that of single calls. " + measured_through(evaluation, results.baseline)
        ),
        "pictures": _pictures(results, limits),
        "checks": [check_row(check) for check in checks],
        "classes": [_class_row(row) for row in evaluation["per_class_vs_control"]],
        "tables": [
            *gains_table(evaluation),
            *backtest_table(results.backtest),
            *matrix_table(results.compatibility),
        ],
        "facts": [*results.facts, *facts_of(results.benchmark)],
    }
    write_report(run_dir, page, checks, choice)


def _prospect(results: PipelineResults, limits: Values) -> list[str]:
    teacher = results.evaluation["models"].get("teacher")
    accuracy = AccuracyBudget(**limits["accuracy"])
    known = None if teacher is None else teacher[results.evaluation["metric"]]
    return prospect(results.baseline, known, accuracy, before=False)


def _rows(results: PipelineResults, choice: Choice, figures: Sequence[str]) -> list[dict[str, Any]]:
    latency = {row["artefact"]: row for row in results.benchmark["artefacts"]}
    rows = [
        {"chosen": False, "cells": cells} for cells in reference_rows(results.baseline, figures)
    ]
    for role, model in results.evaluation["models"].items():
        artefact = results.artefacts.get(role, "")
        row = latency.get(artefact)
        agreement = model["agreement_with_teacher"]
        cells = [
            cell(role_name(role), _parameters(results, role)),
            *[quality_cell(name, model.get(name)) for name in figures],
            share_cell(agreement) if agreement else cell(""),
            figure_cell(row["p95_latency_ms"]) if row else cell(""),
            cell(size(row["size_bytes"])) if row else cell(""),
        ]
        rows.append({"chosen": artefact == choice.artefact, "cells": cells})
    return rows


def _parameters(results: PipelineResults, role: str) -> str:
    num_parameters = results.training[role.partition("_")[0]].get("num_parameters")
    return f"{num_parameters:,} parameters" if num_parameters else ""


def _pictures(results: PipelineResults, limits: Values) -> list[dict[str, Any]]:
    models, metric = results.evaluation["models"], results.evaluation["metric"]
    best = results.baseline["baselines"][results.baseline["best"]][metric]
    better = "Down" if metric in ERRORS else "Up"
    drawn = [
        {
            "title": f"{metric_title(metric)} against latency",
            "svg": pictures.metric_against_latency(
                _points(results), metric, baseline=best, limit_ms=limits["latency"]["p95_ms"]
            ),
            "note": f"Bars are intervals. {better} and to the left is better; latency is "
            "logarithmic.",
            "wide": True,
        }
    ]
    histories = {role: trained["history"] for role, trained in results.training.items()}
    if any(histories.values()):
        axis = pictures.training_axis(histories)
        kept = {role: results.training[role]["best_epoch"] for role in histories if histories[role]}
        drawn.append(
            {
                "title": "Training",
                "svg": pictures.training_curves(histories, kept, axis),
                "note": f"{axis.text} after each epoch. The dot is the epoch kept.",
                "wide": False,
            }
        )
    if any(model["calibration"] for model in models.values()):
        drawn.append(
            {
                "title": "Calibration",
                "svg": pictures.calibration({r: m["calibration"] for r, m in models.items()}),
                "note": (
                    "On the diagonal, a confidence of 80 % is right 80 % of the time. Bins of "
                    f"fewer than {pictures.MIN_BIN} samples are left out."
                ),
                "wide": False,
            }
        )
    by_output = results.evaluation["by_output"]
    if by_output:
        drawn.append(
            {
                "title": f"{metric_title(metric)} by output",
                "svg": pictures.by_output(by_output, metric),
                "note": "Of a forecast, by step ahead. The dashed line is the best baseline.",
                "wide": False,
            }
        )
    if results.forecast is not None:
        drawn.append(
            {
                "title": "A forecast",
                "svg": pictures.forecast(results.forecast),
                "note": "The test window of which the student's error is the median.",
                "wide": False,
            }
        )
    if results.answers is not None:
        drawn.append(
            {
                "title": "Answers against labels",
                "svg": pictures.answers_against_labels(*results.answers),
                "note": "The student on test samples; on the line, an answer is exact.",
                "wide": False,
            }
        )
    return drawn


def _points(results: PipelineResults) -> list[pictures.Point]:
    metric = results.evaluation["metric"]
    rows = {row["artefact"]: row["p95_latency_ms"] for row in results.benchmark["artefacts"]}
    points = [
        pictures.Point(
            name=role_name(role), latency=rows[results.artefacts[role]], metric=model[metric]
        )
        for role, model in results.evaluation["models"].items()
        if results.artefacts.get(role) in rows
    ]
    incumbent = results.baseline["incumbent"]
    if incumbent is not None and incumbent["p95_latency_ms"] is not None:
        latency_ms, own = incumbent["p95_latency_ms"], incumbent[metric]
        points.append(pictures.Point(name=INCUMBENT, latency=latency_ms, metric=own))
    return points


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
