"""What people are told before training: all that a student stands beside, and what it can reach."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from distill.deployment.report.prospect import prospect
from distill.pages import figure, percent, percent_interval, size
from distill.verbs.learning.members import is_fitted, teacher_members
from distill.verbs.run.workspace import Workspace
from distill.wording import ERRORS, SHARES, gain_cells, metric_name, metric_text

Values = Mapping[str, Any]
COLUMNS = ("against the best", "p95 (ms)", "size", "fit (s)", "cost")


def known_teacher(workspace: Workspace) -> Values | None:
    """Tell the metric of a teacher that need not be trained here; None of any other."""
    if _is_yet_to_train(workspace):
        return None
    from distill.verbs.learning.teacher import teacher_stage

    scores = teacher_stage(workspace)["test_at_best_epoch"]
    return scores and scores[workspace.scoring.metric]


def _is_yet_to_train(workspace: Workspace) -> bool:
    """Tell whether any of the teacher is trained or fitted in the run."""
    return any(
        ("network" in member and member.checkpoint is None) or is_fitted(workspace, member)
        for member in teacher_members(workspace.cfg.teacher).values()
    )


def show_standing(workspace: Workspace, baseline: Values, teacher: Values | None) -> list[str]:
    """Show the table and the prospect of `baseline.json`; return the latter."""
    table = Table(
        title="what a student stands beside", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.collapse_padding = True
    metric = baseline["metric"]
    unit = " (%)" if metric in SHARES else ""
    against, *others = COLUMNS
    against += " (%)" if metric in ERRORS else ""
    for column in ("", f"{metric_name(metric)}{unit}", against, *others):
        table.add_column(column, justify="right" if column else "left")
    for name, score in baseline["baselines"].items():
        best = name == baseline["best"]
        latency = score["p95_latency_ms"]
        table.add_row(
            escape(name.replace("_", " ")),
            *_metric(metric, score[metric], None if best else score["gain_vs_best"]),
            _small(latency and latency["estimate"]),
            size(score["size_bytes"]),
            _small(score["fit_seconds"]),
            "",
            style="bold" if best else None,
        )
    for name, cells in _people(baseline["humans"]):
        table.add_row(name, *cells)
    if teacher is not None:
        table.add_row("teacher", *_metric(metric, teacher, None))
    before = _is_yet_to_train(workspace)
    said = prospect(baseline, teacher, workspace.budget.accuracy, before=before)
    workspace.console.print(table)
    for line in (*_agreement(baseline["humans"]), *said):
        workspace.console.print(escape(line), soft_wrap=True, highlight=False)
    return said


def _metric(metric: str, value: Values, gap: Values | None) -> list[str]:
    def short(figure: float | None) -> str:
        if figure is None:
            return "?"
        return f"{100 * figure:.1f}" if metric in SHARES else metric_text(metric, figure)

    own, low, high = map(short, (value["estimate"], *value["interval"]))
    shown = f"{own}\n({low} to {high})"
    if gap is None:
        return [shown, ""]
    gain, interval = gain_cells(gap, 1)
    return [shown, f"{gain}\n({interval})"]


def _small(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.001 else figure(value)


def _people(humans: Values | None) -> list[tuple[str, list[str]]]:
    if humans is None:
        return []
    rows = []
    for kind, name in (("single", "humans: one of them"), ("majority", "humans: majority")):
        cost = humans["cost_per_sample"]
        cells = _metric("accuracy", humans["score"][kind], humans["gain_vs_best"][kind])
        rows.append((name, [*cells, "", "", "", figure(cost and cost[kind])]))
    return rows


def _agreement(humans: Values | None) -> list[str]:
    """Say how many answered, how far they agree, and who answered how well."""
    if humans is None:
        return []
    score = humans["score"]
    said = (
        f"humans: {score['num_annotations']:,} answers on {score['num_samples']:,} test samples, "
        f"{score['num_ties']:,} votes tied (broken at random)"
    )
    for name, kappa in (("Cohen", score["cohen_kappa"]), ("Fleiss", score["fleiss_kappa"])):
        if kappa is not None:
            low, high = (figure(end) or "?" for end in kappa["interval"])
            said += f"; {name}'s kappa {kappa['estimate']:.3f} ({low} to {high})"
    if score["median_seconds"] is not None:
        said += f"; an answer takes {figure(score['median_seconds'])} s (median)"
    people = [
        f"  {who['name']}: {percent(who['accuracy']['estimate'])} "
        f"({percent_interval(who['accuracy']['interval'])}) of {who['num_samples']:,}"
        for who in score["per_annotator"][:10]
    ]
    more = len(score["per_annotator"]) - len(people)
    return [said + ".", *people, *([f"  and {more:,} others"] if more else [])]
