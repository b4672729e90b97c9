"""What a student stands beside, as rows of a report's table: best baseline, incumbent, people."""

from collections.abc import Sequence

from distill.deployment.evaluate import INCUMBENT
from distill.deployment.report.cells import (
    Cell,
    Values,
    cell,
    figure_cell,
    quality_cell,
    share_cell,
)
from distill.pages import size
from distill.wording import ERRORS, gain_cells, metric_name, metric_text

MAX_FIGURES = 4  # in a table that also has latency and size


def reference_rows(baseline: Values, figures: Sequence[str]) -> list[list[Cell]]:
    """Make the rows of `baseline.json`, in the columns of a pipeline's models.

    Args:
        baseline: `baseline.json`.
        figures: names of those that have a column.
    """
    best = baseline["best"]
    names = {f"baseline: {best.replace('_', ' ')}": best}
    if baseline["incumbent"] is not None:
        names["incumbent"] = INCUMBENT
        if best == INCUMBENT:
            names = {"incumbent, the best baseline": INCUMBENT}
    rows = [_baseline_row(name, baseline["baselines"][key], figures) for name, key in names.items()]
    return rows + _people(baseline["humans"], len(figures))


def shown_figures(evaluation: Values) -> list[str]:
    """Name the figures that models have, at most `MAX_FIGURES`, the metric first."""
    known = {name for score in evaluation["models"].values() for name in score}
    return [name for name in evaluation["figures"] if name in known][:MAX_FIGURES]


def gains_table(evaluation: Values) -> list[Values]:
    """Set every artefact of the student against every reference, from `evaluate.json`."""
    margins, metric = evaluation["margins"], evaluation["metric"]
    note = "In points, paired on the same test samples, with Bonett-Price intervals."
    if metric in ERRORS:
        note = (
            f"By how many percent {metric_name(metric)} is lower, paired on the same test samples, "
            "with studentised bootstrap intervals; below 0 it is higher."
        )
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
            "title": f"Gains in {metric_name(metric)} over what was there before",
            "columns": ["against", *(role.replace("_", " ") for role in margins)],
            "rows": rows,
            "note": note,
        }
    ]


def backtest_table(backtest: Values | None) -> list[Values]:
    """Show how all stand at every forecast origin, from `backtest_stage`."""
    if backtest is None:
        return []
    metric, origins = backtest["metric"], backtest["origins"]

    def value(own: float | None) -> Cell:
        return cell("" if own is None else metric_text(metric, own))

    rows = [
        [
            cell(one["from"].replace("T", " "), f"{one['num_windows']:,} windows"),
            cell(
                metric_text(metric, one["best_naive"]["value"]),
                one["best_naive"]["name"].replace("_", " "),
            ),
            *(value(one[role]) for role in ("teacher", "control", "student")),
        ]
        for one in origins
    ]
    return [
        {
            "title": f"Backtest: {metric_name(metric)} at {len(origins)} forecast origins",
            "columns": ["asked from", "best naive forecast", "teacher", "control", "student"],
            "rows": rows,
            "note": (
                "All was fitted and trained anew with what was known by then. The student has less "
                f"than the best naive forecast at {backtest['num_beaten']} of {len(origins)}."
            ),
        }
    ]


def _gain_cell(gain: Values) -> Cell:
    return cell(*gain_cells(gain))


def _baseline_row(name: str, score: Values, figures: Sequence[str]) -> list[Cell]:
    return [
        cell(name),
        *[quality_cell(figure, score.get(figure)) for figure in figures],
        cell(""),
        figure_cell(score["p95_latency_ms"]),
        cell(size(score["size_bytes"])),
    ]


def _people(humans: Values | None, num_figures: int) -> list[list[Cell]]:
    if humans is None:
        return []
    score = humans["score"]
    small = {
        "one of them": f"{score['num_annotations']:,} answers",
        "majority": f"{score['num_samples']:,} samples",
    }
    figures = {"one of them": score["single"], "majority": score["majority"]}
    return [
        [cell(f"humans: {kind}", small[kind]), share_cell(value), *[cell("")] * (num_figures + 2)]
        for kind, value in figures.items()
    ]
