"""Smaller numbers for the student: every candidate made, asked and timed, then one chosen."""

import dataclasses
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from rich.markup import escape
from rich.table import Table

from distill.deployment.estimates import is_difference
from distill.deployment.quantize.auto import Auto
from distill.deployment.quantize.choice import Candidate, Decision, Limits, accept
from distill.deployment.quantize.recipes import Source
from distill.deployment.quantize.trials import Measure, Trials
from distill.errors import UserError
from distill.files import sha256
from distill.pages import percent, size
from distill.runtime import OnnxModel
from distill.statistics.metrics import Estimate
from distill.verbs.exporting.artefacts import OF_PRECISION, check_weights, export_float32
from distill.verbs.exporting.measuring import NUM_INPUTS, configured, measure, measurement_values
from distill.verbs.run.workspace import Workspace, plain

log = logging.getLogger(__name__)

STAGE, REPAIRED, FLOAT32 = "quantize", "quantize_repaired", "float32.onnx"


def quantize_stage(workspace: Workspace, checkpoint: Path, name: str = STAGE) -> dict[str, Any]:
    """Quantise a student's weights as configured, and say which file is worth shipping.

    Accuracy is held against the student that was trained in float32, whichever weights are
    quantised; agreement and latency against these weights in float32.

    Returns:
        outcome, path and file name of what was chosen, and a row for each candidate.
    """
    check_weights(checkpoint)
    cfg, run_dir = workspace.cfg, workspace.run_dir
    recipe = instantiate(cfg.quantize)
    is_search = isinstance(recipe, Auto)
    original = run_dir / STAGE / FLOAT32
    values = {
        "data": workspace.data.fingerprint,
        "network": plain(cfg.student),
        "quantize": plain(cfg.quantize),
        "parity": dataclasses.asdict(workspace.budget.parity),
        "max_drop": workspace.budget.accuracy.max_drop_vs_float32,
        "confidence": workspace.budget.confidence,
        "metric": workspace.scoring.metric,
        "seed": cfg.seed,
        "measured": measurement_values(workspace) if is_search else None,
        "head": plain(cfg.head),
        "embedding": cfg.embedding,
    }
    names = [Path(FLOAT32).stem, *(recipe.names if is_search else [recipe.precision])]

    def compute() -> dict[str, Any]:
        folder = run_dir / name
        for stale in folder.glob("*.onnx"):
            stale.unlink()
        float32 = folder / FLOAT32
        parity = export_float32(workspace, checkpoint, float32)
        with tempfile.TemporaryDirectory() as scratch, workspace.console.status(name) as status:
            source = Source(float32, _images(workspace, recipe), Path(scratch))
            answers = None if name == STAGE else OnnxModel(original).predict(_validation(workspace))
            trials = _trials(workspace, source, answers, lambda said: status.update(escape(said)))
            decision = recipe(trials) if is_search else _only(recipe, trials)
        candidates = list(trials.found.values())
        _show(workspace, name, candidates, decision)
        chosen = trials.found[decision.recipe] if decision.recipe else None
        return {
            "outcome": decision.outcome,
            "why": decision.why,
            "chosen": f"{name}/{chosen.recipe}.onnx" if chosen else None,
            "artefact": OF_PRECISION[chosen.precision] if chosen else None,
            "holds": chosen.holds if chosen else None,
            "float32": {"path": f"{name}/{FLOAT32}", "parity": parity},
            "checkpoint": str(_relative(checkpoint, run_dir)),
            "checkpoint_sha256": sha256(checkpoint),
            "limits": trials.limits,
            "candidates": candidates,
        }

    inputs = (checkpoint,) if name == STAGE else (checkpoint, original)
    outputs = tuple(f"{name}/{n}.onnx" for n in names)
    result = workspace.stage(name, compute, values=values, inputs=inputs, outputs=outputs)
    log.info("%s: %s. %s", name, result["outcome"], result["why"])
    return result


def _trials(
    workspace: Workspace, source: Source, answers: Any, say: Callable[[str], None]
) -> Trials:
    budget = workspace.budget
    return Trials(
        source=source,
        folder=source.path.parent,
        inputs=_validation(workspace),
        truth=workspace.data.validation.truth,
        scoring=workspace.scoring,
        answers=answers,
        limits=Limits(
            max_drop=budget.accuracy.max_drop_vs_float32,
            min_agreement=budget.parity.min_top1_agreement,
        ),
        confidence=budget.confidence,
        measure=_measure(workspace),
        say=say,
    )


def _only(recipe: Any, trials: Trials) -> Decision:
    return accept(trials.make(recipe.precision, recipe))


def _measure(workspace: Workspace) -> Measure:
    """Time files on the configured target, beside the first.

    Each of many candidates has its chance to look fast by chance: the error is shared out among
    them (Bonferroni). A difference within the noise floor is none: its interval is made to hold 1.
    """
    inputs, effort = _validation(workspace)[:NUM_INPUTS], configured(workspace, "effort")

    def ratios(paths: Sequence[Path]) -> dict[str, Estimate]:
        report = measure(
            workspace,
            configured(workspace, "target"),
            paths,
            inputs,
            effort=dataclasses.replace(effort, cold_starts=0),
            limits_ms={},
            golden=False,
            confidence=1 - (1 - workspace.budget.confidence) / max(1, len(paths) - 1),
        )
        for problem in report.problems:
            log.warning("while candidates were timed, %s", problem)
        rows = {row.artefact: row.ratio_to_first for row in report.artefacts}
        missing = [name for name, ratio in rows.items() if ratio is None]
        if missing:
            why = report.incomplete or f"{report.target} takes no latencies"
            raise UserError(
                f"Expected the latency of {', '.join(missing)} on target {report.target} but there "
                f"is none: {why}. Take a target that measures, or one recipe instead of "
                "`quantize=auto`."
            )
        found = {name: ratio for name, ratio in rows.items() if ratio is not None}
        return {name: _beyond_noise(ratio, report.noise_floor) for name, ratio in found.items()}

    return ratios


def _beyond_noise(ratio: Estimate, floor: Estimate | None) -> Estimate:
    if floor is not None and is_difference(ratio, floor):
        return ratio
    low, high = ratio.interval
    return dataclasses.replace(ratio, interval=(min(low, 1.0), max(high, 1.0)))


def _images(workspace: Workspace, recipe: Any) -> Any:
    """Draw the training images that set the ranges."""
    train = workspace.data.train
    drawn = np.random.default_rng(workspace.cfg.seed).permutation(len(train))
    return train.served[drawn[: recipe.num_calibration_samples]]


def _validation(workspace: Workspace) -> Any:
    return workspace.data.validation.served


def _relative(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def _show(
    workspace: Workspace, name: str, candidates: Sequence[Candidate], decision: Decision
) -> None:
    """Show the candidates on stderr."""
    table = Table(title=f"{name}: {decision.outcome}", title_style="bold")
    for column in ("recipe", "drop", "agreement", "time / float32", "size", ""):
        words = column in ("recipe", "")
        table.add_column(column, justify="left" if words else "right", no_wrap=column == "recipe")
    for c in candidates:
        ratio = c.latency_ratio
        low, high = ratio.interval if ratio else (0, 0)
        table.add_row(
            c.recipe,
            percent(c.accuracy_drop.estimate) if c.accuracy_drop else "",
            percent(c.agreement.estimate) if c.agreement else "",
            f"{ratio.estimate:.3f} ({low:.3f} to {high:.3f})" if ratio else "",
            size(c.size_bytes) if c.size_bytes else "",
            escape(c.reason or ("" if c.holds else "does not hold")),
            style="bold green" if c.recipe == decision.recipe else None,
        )
    workspace.console.print(table)
