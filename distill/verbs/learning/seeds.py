"""The control and the student over several seeds: where each lies, what sets them apart."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from distill.errors import UserError
from distill.files import to_json
from distill.pages import percent
from distill.statistics.seed_comparison import compare_over_seeds
from distill.verbs.learning.fitting import MARKS
from distill.verbs.run.workspace import Workspace
from distill.wording import SHARES, gain_phrase, gain_range, metric_name

EPOCHS = ("best", "last")
FIGURES = ("nll", "nll_scaled", "ece", "ece_scaled", "temperature")  # of classes, in this order


def seeds(workspace: Workspace) -> range:
    """List the seeds of the control and the student; the first is the one that is exported."""
    num_seeds = workspace.cfg.seeds
    if not isinstance(num_seeds, int) or num_seeds < 1:
        raise UserError(
            f"Expected `seeds` to be a number of trainings, 1 or more, got {num_seeds}."
        )
    return range(workspace.cfg.seed, workspace.cfg.seed + num_seeds)


def seed_folder(workspace: Workspace, role: str, seed: int) -> str:
    """Name the folder under `train/` of a role's training with a seed."""
    return role if seed == workspace.cfg.seed else f"{role}/seed_{seed}"


def compare_roles(workspace: Workspace, results: dict[str, Any]) -> dict[str, Any]:
    """Summarise control and student over the seeds and compare them, at best and last epoch.

    Returns:
        Per epoch: mean and standard deviation of every figure for each role, and the paired
        comparison `student_minus_control`.
    """
    summary: dict[str, Any] = {}
    for epoch in EPOCHS:
        roles = {role: _summary(results[role]["seeds"], epoch) for role in ("control", "student")}
        marks = {role: _marks(workspace, role, epoch) for role in ("control", "student")}
        comparison = compare_over_seeds(
            workspace.scoring,
            marks["student"],
            marks["control"],
            blocks=workspace.data.test.blocks,
            confidence=workspace.budget.confidence,
        )
        summary[f"{epoch}_epoch"] = roles | {"student_minus_control": comparison}
    return to_json(summary | {"metric": workspace.scoring.metric})


def _summary(trained: list[dict[str, Any]], epoch: str) -> dict[str, Any]:
    """Summarise every figure that a training has a number of."""
    found = [result[f"test_at_{epoch}_epoch"] for result in trained]
    summary: dict[str, Any] = {}
    for name in found[0]:
        values = [own[name] for own in found]
        values = [value["estimate"] if isinstance(value, dict) else value for value in values]
        if not all(isinstance(value, float) for value in values):
            continue  # words
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        summary[name] = {"mean": float(np.mean(values)), "std": spread, "values": values}
    return summary


def _marks(workspace: Workspace, role: str, epoch: str) -> list[NDArray[Any]]:
    rows = []
    for seed in seeds(workspace):
        path = workspace.run_dir / "train" / seed_folder(workspace, role, seed) / MARKS
        with np.load(path, allow_pickle=False) as arrays:
            rows.append(arrays[epoch])
    return rows


def show_trained(workspace: Workspace, results: dict[str, Any]) -> None:
    """Show on stderr what was trained, and what sets the student apart from the control."""
    num_seeds = len(seeds(workspace))
    summaries = [
        (role, epoch, _summary(trained, epoch))
        for role in ("teacher", "control", "student")
        for trained in [_trainings(results.get(role))]
        for epoch in EPOCHS
        if trained and trained[0][f"test_at_{epoch}_epoch"]
    ]
    metric = workspace.scoring.metric
    names = [metric, *(n for n in FIGURES if any(n in summary for *_, summary in summaries))]
    names += [
        name
        for name in workspace.scoring.figures
        if name not in (*names, "macro_f1") and any(name in summary for *_, summary in summaries)
    ]
    table = Table(title=f"test set, {num_seeds} seed{'s' if num_seeds > 1 else ''}")
    for column in ("", "epoch", *map(metric_name, names)):
        first = column == metric_name(metric)
        table.add_column(column, justify="right" if column else "left", no_wrap=first)
    for role, epoch, summary in summaries:
        table.add_row(role, epoch, *(_cell(name, summary.get(name)) for name in names))
    workspace.console.print(table)
    if "over_seeds" in results:
        said = [
            sentence(results["over_seeds"][f"{epoch}_epoch"]["student_minus_control"], metric)
            for epoch in EPOCHS
        ]
        epochs = {"best and last epoch": said[0]}
        if said[0] != said[1]:
            epochs = {f"{e} epoch": text for e, text in zip(EPOCHS, said, strict=True)}
        for epoch, text in epochs.items():
            workspace.console.print(f"student against control, {epoch}: {text}")


def _trainings(result: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [] if not result else result.get("seeds", [result])


def _cell(name: str, found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    if name not in SHARES:
        return f"{found['mean']:.4g}"
    spread = "" if found["std"] is None else f" ± {100 * found['std']:.2f}"
    return percent(found["mean"]) + spread


def sentence(found: dict[str, Any], metric: str) -> str:
    """Say a comparison over seeds in words."""
    samples = gain_range(metric, found["sample_interval"])
    said = f"{gain_phrase(metric, found['estimate'])} ({samples} over test samples"
    if found["seed_interval"] is None:
        return said + "; one seed says nothing of others: set seeds=3)"
    seeds_said, p_value = gain_range(metric, found["seed_interval"]), found["seed_p_value"]
    return said + f"; {seeds_said} over seeds, t-test p = {p_value:.2g})"
