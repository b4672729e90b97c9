"""What a student stands beside, as rows of a report's table: best baseline, incumbent, people."""

from distill.deployment.evaluate import INCUMBENT
from distill.deployment.report.cells import (
    Cell,
    Values,
    accuracy_cell,
    cell,
    figure_cell,
    quality_cell,
)
from distill.pages import size

QUALITY = ("macro_f1", "nll", "ece")


def reference_rows(baseline: Values) -> list[list[Cell]]:
    """Make the rows of `baseline.json`, in the columns of a pipeline's models."""
    best = baseline["best"]
    names = {f"baseline: {best.replace('_', ' ')}": best}
    if baseline["incumbent"] is not None:
        names["incumbent"] = INCUMBENT
        if best == INCUMBENT:
            names = {"incumbent, the best baseline": INCUMBENT}
    rows = [_baseline_row(name, baseline["baselines"][key]) for name, key in names.items()]
    return rows + _people(baseline["humans"])


def gains_table(evaluation: Values) -> list[Values]:
    """Set every artefact of the student against every reference, from `evaluate.json`."""
    margins = evaluation["margins"]
    rows = []
    for name in margins["student"]["gain_vs_baselines"]:
        gains = [own["gain_vs_baselines"][name] for own in margins.values()]
        rows.append([cell(name.replace("_", " ")), *map(_gain_cell, gains)])
    if margins["student"]["gain_vs_humans"]:
        gains = [own["gain_vs_humans"] for own in margins.values()]
        answered = f"on the {gains[0]['num_samples']:,} samples that people answered"
        rows.append([cell("majority of humans", answered), *map(_gain_cell, gains)])
    return [
        {
            "title": "Gains in accuracy over what was there before",
            "columns": ["against", *(role.replace("_", " ") for role in margins)],
            "rows": rows,
            "note": "In points, paired on the same test samples, with Bonett-Price intervals.",
        }
    ]


def _gain_cell(gain: Values) -> Cell:
    low, high = (100 * end for end in gain["interval"])
    return cell(f"{100 * gain['estimate']:+.2f}", f"{low:+.2f} to {high:+.2f}")


def _baseline_row(name: str, score: Values) -> list[Cell]:
    return [
        cell(name),
        accuracy_cell(score["accuracy"]),
        *[quality_cell(metric, score.get(metric)) for metric in QUALITY],
        cell(""),
        figure_cell(score["p95_latency_ms"]),
        cell(size(score["size_bytes"])),
    ]


def _people(humans: Values | None) -> list[list[Cell]]:
    if humans is None:
        return []
    score = humans["score"]
    small = {
        "one of them": f"{score['num_annotations']:,} answers",
        "majority": f"{score['num_samples']:,} samples",
    }
    figures = {"one of them": score["single"], "majority": score["majority"]}
    return [
        [cell(f"humans: {kind}", small[kind]), accuracy_cell(value), *[cell("")] * 6]
        for kind, value in figures.items()
    ]
