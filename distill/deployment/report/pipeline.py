"""The report of a pipeline: what was found in words, tables and pictures. Decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.budget import AccuracyBudget, Check, Choice
from distill.deployment.evaluate import INCUMBENT
from distill.deployment.naive import naive_sentence
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
from distill.deployment.report.write import choice_sentence, write_report
from distill.metrics import estimate_from
from distill.pages import size
from distill.wording import (
    ERRORS,
    gain_phrase,
    gain_range,
    metric_name,
    metric_text,
    metric_title,
    test_name,
)


def distillation_sentence(gain: Values, metric: str, confidence: float) -> str:
    """Answer "did distillation help?" in one sentence, with its interval."""
    low, high = estimate_from(gain).interval
    points = gain_phrase(metric, gain["estimate"], of="the control")
    doubt = (
        f"({confidence:.0%} interval {gain_range(metric, gain['interval'])}, "
        f"{test_name(gain)} p = {gain['p_value']:.2g}, {gain['num_samples']} test samples)"
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
        "headline": distillation_sentence(gain, evaluation["metric"], confidence),
        "sentences": [
            choice_sentence(choice, results.benchmark["target"]),
            *_naive(evaluation),
            *_coverage(evaluation),
            *_prospect(results, limits),
            *_epochs(results),
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
            f"intervals. {_agreement_note(evaluation['metric'])}"
            "The control is the same student trained on labels alone, same budget and seed. "
            "Latency is that of single calls. " + _measured_through(results)
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


def _agreement_note(metric: str) -> str:
    if metric not in ERRORS:
        return ""
    return "Agreement is the share of the teacher's variance that is explained. "


def _naive(evaluation: Values) -> list[str]:
    found = evaluation["naive"]
    return [] if found is None else [naive_sentence(found, evaluation["metric"])]


def _coverage(evaluation: Values) -> list[str]:
    """Say how often the student's outermost quantiles cover, beside how often they ought to."""
    found, levels = evaluation["models"]["student"].get("coverage"), evaluation["quantiles"]
    if found is None:
        return []
    low, high = found["interval"]
    return [
        "From its lowest to its highest quantile the student covers "
        f"{100 * found['estimate']:.1f} % of the test labels ({100 * low:.1f} to {100 * high:.1f} "
        f"%), nominal "
        f"{100 * (levels[-1] - levels[0]):g} %."
    ]


def _prospect(results: PipelineResults, limits: Values) -> list[str]:
    teacher = results.evaluation["models"].get("teacher")
    accuracy = AccuracyBudget(**limits["accuracy"])
    known = None if teacher is None else teacher[results.evaluation["metric"]]
    return prospect(results.baseline, known, accuracy, before=False)


def _epochs(results: PipelineResults) -> list[str]:
    student = results.training["student"]
    metric = results.evaluation["metric"]
    best, last = (
        metric_text(metric, student[f"test_at_{epoch}_epoch"][metric]["estimate"])
        for epoch in ("best", "last")
    )
    if metric in ERRORS:
        best, last = (f"{metric_name(metric)} {text}" for text in (best, last))
    temperature = student["test_at_best_epoch"].get("temperature")
    folded = (
        ""
        if temperature is None
        else (f" A temperature of {temperature:.2f}, fitted on validation, is folded into it.")
    )
    over_seeds = [] if results.over_seeds is None else [results.over_seeds]
    said = f"The student that is exported is that of epoch {student['best_epoch'] + 1}, "
    if student["best_epoch"] == student["last_epoch"]:
        said += f"the last: {best} on test by torch."
    else:
        said += (
            f"better on validation than the last: {best} on test by torch; at the last epoch, "
            f"{student['last_epoch'] + 1}, it is {last}."
        )
    return [*over_seeds, said + folded]


def _measured_through(results: PipelineResults) -> str:
    models = results.evaluation["models"]
    through = "; ".join(f"{_name(role)}: {m['measured_through']}" for role, m in models.items())
    incumbent = results.baseline["incumbent"]
    if incumbent is not None:
        through += f"; incumbent: {incumbent['measured_through']}"
    return f"Measured through: {through}; baseline: {results.baseline['measured_through']}."


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
            cell(_name(role), _parameters(results, role)),
            *[quality_cell(name, model.get(name)) for name in figures],
            share_cell(agreement) if agreement else cell(""),
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
            name=_name(role), latency=rows[results.artefacts[role]], metric=model[metric]
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
