"""The control and the student over several seeds: where each lies, what sets them apart."""

from typing import Any

import numpy as np
from rich.table import Table

from distill.errors import UserError
from distill.files import to_json
from distill.metrics import compare_seeds
from distill.pages import percent
from distill.verbs.fitting import CORRECT
from distill.verbs.workspace import Workspace

EPOCHS = ("best", "last")
FIGURES = ("accuracy", "nll", "nll_scaled", "ece", "ece_scaled", "temperature")


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


def compare_over_seeds(workspace: Workspace, results: dict[str, Any]) -> dict[str, Any]:
    """Summarise control and student over the seeds and compare them, at best and last epoch.

    Returns:
        Per epoch: mean and standard deviation of every figure for each role, and the paired
        comparison `student_minus_control`.
    """
    confidence = workspace.budget.confidence
    summary: dict[str, Any] = {}
    for epoch in EPOCHS:
        roles = {role: _summary(results[role]["seeds"], epoch) for role in ("control", "student")}
        right = {role: _correct(workspace, role, epoch) for role in ("control", "student")}
        comparison = compare_seeds(right["student"], right["control"], confidence=confidence)
        summary[f"{epoch}_epoch"] = roles | {"student_minus_control": comparison}
    return to_json(summary)


def _summary(trained: list[dict[str, Any]], epoch: str) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name in FIGURES:
        if name not in trained[0][f"test_at_{epoch}_epoch"]:
            continue  # of a teacher that is asked about the test set alone
        values = [result[f"test_at_{epoch}_epoch"][name] for result in trained]
        values = [value["estimate"] if isinstance(value, dict) else value for value in values]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        summary[name] = {"mean": float(np.mean(values)), "std": spread, "values": values}
    return summary


def _correct(workspace: Workspace, role: str, epoch: str) -> np.ndarray:
    rows = []
    for seed in seeds(workspace):
        path = workspace.run_dir / "train" / seed_folder(workspace, role, seed) / CORRECT
        with np.load(path, allow_pickle=False) as arrays:
            rows.append(arrays[epoch])
    return np.stack(rows)


def show_trained(workspace: Workspace, results: dict[str, Any]) -> None:
    """Show on stderr what was trained, and what sets the student apart from the control."""
    num_seeds = len(seeds(workspace))
    table = Table(title=f"test set, {num_seeds} seed{'s' if num_seeds > 1 else ''}")
    for column in ("", "epoch", "accuracy", "NLL", "NLL scaled", "ECE", "ECE scaled", "T"):
        table.add_column(
            column, justify="right" if column else "left", no_wrap=column == "accuracy"
        )
    for role in ("teacher", "control", "student"):
        trained = results.get(role, {})
        trained = trained.get("seeds", [trained] if trained else [])
        for epoch in EPOCHS:
            if trained and trained[0][f"test_at_{epoch}_epoch"]:
                table.add_row(role, epoch, *_cells(_summary(trained, epoch)))
    workspace.console.print(table)
    if "over_seeds" in results:
        said = [
            sentence(results["over_seeds"][f"{epoch}_epoch"]["student_minus_control"])
            for epoch in EPOCHS
        ]
        epochs = {"best and last epoch": said[0]}
        if said[0] != said[1]:
            epochs = {f"{e} epoch": text for e, text in zip(EPOCHS, said, strict=True)}
        for epoch, text in epochs.items():
            workspace.console.print(f"student minus control, {epoch}: {text}")


def _cells(figures: dict[str, Any]) -> list[str]:
    accuracy = percent(figures["accuracy"]["mean"])
    if figures["accuracy"]["std"] is not None:
        accuracy += f" ± {100 * figures['accuracy']['std']:.2f}"
    others = [figures.get(name) for name in FIGURES[1:]]
    return [accuracy, *("" if found is None else f"{found['mean']:.4g}" for found in others)]


def sentence(found: dict[str, Any]) -> str:
    """Say a comparison over seeds in words."""
    low, high = (100 * value for value in found["sample_interval"])
    text = f"{100 * found['estimate']:+.2f} points ({low:+.2f} to {high:+.2f} over test samples"
    if found["seed_interval"] is None:
        return text + "; one seed says nothing of others: set seeds=3)"
    low, high = (100 * value for value in found["seed_interval"])
    p_value = found["seed_p_value"]
    return text + f"; {low:+.2f} to {high:+.2f} over seeds, t-test p = {p_value:.2g})"
