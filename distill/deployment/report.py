"""report.html, report.md and junit.xml, from the plain results that the stages left.

Says what was found in words, tables and pictures; decides nothing. Rendering is `pages`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from distill.budget import Check, Choice, Outcome
from distill.deployment import pictures
from distill.files import to_json, write_bytes, write_text
from distill.pages import figure, percent, percent_interval, render, size

Values = dict[str, Any]

PERCENTAGES = (
    "accuracy",
    "drop_vs_teacher",
    "drop_vs_float32",
    "gain_vs_baseline",
    "parity_top1_agreement",
)


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
        facts: how it was measured, as (name, value).
    """

    name: str
    baseline: Values
    training: Mapping[str, Values]
    over_seeds: str | None
    export: Values
    evaluation: Values
    benchmark: Values
    artefacts: Mapping[str, str]
    facts: Sequence[tuple[str, str]]


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
        "sentences": [_choice_sentence(choice, results.benchmark["target"]), *_epochs(results)],
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
        "checks": [_check_row(check) for check in checks],
        "classes": [_class_row(row) for row in evaluation["per_class_vs_control"]],
        "facts": results.facts,
    }
    _write(run_dir, page, checks, choice)


def write_benchmark_report(
    run_dir: Path, benchmark: Values, checks: Sequence[Check], choice: Choice
) -> None:
    """Write the report of a benchmark of any ONNX files."""
    floor = benchmark["noise_floor"]
    rows = [
        {
            "chosen": row["artefact"] == choice.artefact,
            "cells": [
                _cell(row["artefact"]),
                *[_milliseconds(row[f"p{level}_latency_ms"]) for level in (50, 95, 99)],
                _cell(*_span(row["ratio_to_first"])),
                _cell(*_span(row["cold_start_ms"])),
                _cell(size(row["peak_rss_bytes"]["estimate"])),
                _cell(size(row["size_bytes"])),
            ],
        }
        for row in benchmark["artefacts"]
    ]
    page = {
        "title": f"benchmark on {benchmark['target']}",
        "verdict": str(choice.outcome),
        "headline": _choice_sentence(choice, benchmark["target"]),
        "sentences": [
            f"Noise floor: the first artefact against itself has a ratio of "
            f"{floor['estimate']:.3f} ({_interval(floor['interval'])}). Smaller differences "
            "between artefacts than this are noise."
        ],
        "columns": [
            "artefact",
            "p50 (ms)",
            "p95 (ms)",
            "p99 (ms)",
            "ratio to first",
            "cold start (ms)",
            "peak memory",
            "size",
        ],
        "rows": rows,
        "table_note": "Small print: intervals. Cold start and memory: median of fresh processes.",
        "pictures": [],
        "checks": [_check_row(check) for check in checks],
        "classes": [],
        "facts": [(name, str(value)) for name, value in benchmark["conditions"].items()],
    }
    _write(run_dir, page, checks, choice)


def _write(run_dir: Path, page: Values, checks: Sequence[Check], choice: Choice) -> None:
    write_text(run_dir / "report.html", render("report.html", page))
    write_text(run_dir / "report.md", render("report.md", page))
    write_bytes(run_dir / "junit.xml", junit(page["title"], checks, choice))


def junit(name: str, checks: Sequence[Check], choice: Choice) -> bytes:
    """Write checks as test cases, one suite per artefact.

    A check that does not pass is a failure, unless another artefact passes and is chosen: then the
    run is good, and the check is shown as skipped with its reason.
    """
    root = ElementTree.Element("testsuites", name=name)
    for artefact, outcome in choice.per_artefact.items():
        own = [check for check in checks if check.artefact == artefact]
        bad = [check for check in own if check.outcome is not Outcome.PASS]
        tag = "failure" if choice.artefact is None else "skipped"
        suite = ElementTree.SubElement(root, "testsuite", name=artefact)
        suite.set("tests", str(max(1, len(own))))
        suite.set("failures" if tag == "failure" else "skipped", str(len(bad)))
        if not own:
            ElementTree.SubElement(suite, "testcase", classname=artefact, name="no limits")
        for check in own:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{artefact}.{check.target}", name=check.name
            )
            if check in bad:
                text = f"{check.outcome}: measured {figure(check.measured)}, limit {check.limit:g}"
                if tag == "skipped":
                    text += f"; {artefact} is {outcome}, {choice.artefact} passes and is chosen"
                ElementTree.SubElement(case, tag, message=text, type=str(check.outcome))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _choice_sentence(choice: Choice, target: str) -> str:
    if choice.artefact is not None:
        return f"{choice.artefact} holds the budget on {target} and is the fastest that does."
    states = ", ".join(f"{name}: {outcome}" for name, outcome in choice.per_artefact.items())
    if choice.outcome is Outcome.INCONCLUSIVE:
        return (
            f"Nothing is promoted: no artefact is shown to hold the budget on {target} ({states})."
        )
    return f"No artefact holds the budget on {target} ({states}); the checks below say what misses."


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
    return f"Measured through: {through}; baseline: {results.baseline['measured_through']}."


def _rows(results: PipelineResults, choice: Choice) -> list[dict[str, Any]]:
    latency = {row["artefact"]: row for row in results.benchmark["artefacts"]}
    best = results.baseline["best"]
    scores = results.baseline["baselines"][best]
    quality = ("macro_f1", "nll", "ece")
    cells = [_cell(f"baseline: {best.replace('_', ' ')}"), _accuracy(scores["accuracy"])]
    cells += [_quality(name, scores.get(name)) for name in quality] + [_cell("")] * 3
    rows = [{"chosen": False, "cells": cells}]
    for role, model in results.evaluation["models"].items():
        artefact = results.artefacts.get(role, "")
        row = latency.get(artefact)
        agreement = model["agreement_with_teacher"]
        cells = [
            _cell(_name(role), _parameters(results, role)),
            _accuracy(model["accuracy"]),
            *[_quality(name, model[name]) for name in quality],
            _accuracy(agreement) if agreement else _cell(""),
            _milliseconds(row["p95_latency_ms"]) if row else _cell(""),
            _cell(size(row["size_bytes"])) if row else _cell(""),
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


def _cell(text: str, small: str = "") -> dict[str, str]:
    return {"text": text, "small": small}


def _accuracy(value: Values) -> dict[str, str]:
    return _cell(percent(value["estimate"]), percent_interval(value["interval"]))


def _quality(name: str, value: Values | None) -> dict[str, str]:
    if value is None:
        return _cell("")
    if name == "macro_f1":
        return _accuracy(value)
    low, high = value["interval"]
    return _cell(f"{value['estimate']:.3f}", f"{low:.3f} to {high:.3f}")


def _milliseconds(value: Values) -> dict[str, str]:
    return _cell(*_span(value))


def _span(value: Values) -> tuple[str, str]:
    return figure(value["estimate"]), _interval(value["interval"])


def _interval(interval: Sequence[float]) -> str:
    return f"{figure(interval[0])} to {figure(interval[1])}"


def _check_row(check: Check) -> dict[str, str]:
    row = to_json(check)
    if check.name.endswith("_bytes"):
        show = size
    elif check.name in PERCENTAGES:
        show = percent
    else:
        show = figure
    ends = [] if check.interval is None else [show(end) for end in check.interval]
    return row | {
        "limit": show(check.limit),
        "measured": "unknown" if check.measured is None else show(check.measured),
        "interval": " to ".join(ends),
    }


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
