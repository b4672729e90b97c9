"""Repair: a student that int8 does not hold is distilled a little longer, rounded as int8 rounds.

Starts from the student's best weights and leaves weights of the same form, to be exported and
quantised as the student's are. When this is called for is decided elsewhere.
"""

from pathlib import Path
from typing import Any

import lightning
import numpy as np

from distill.verbs.learning.distilling import (
    distillation_values,
    distilled,
    taught_rows,
    views_shown,
)
from distill.verbs.learning.fitting import fit_stage
from distill.verbs.learning.members import TEACHER_FACTS
from distill.verbs.learning.networks import load_student, weights_path
from distill.verbs.run.workspace import Workspace, plain

ROLE = "student_qat"
NUM_CALIBRATION_SAMPLES = 512


def repair_stage(workspace: Workspace, quantized: dict[str, Any], checkpoint: Path) -> Path:
    """Distil the student with its weights and activations rounded, once.

    Args:
        workspace: of the run, its student trained.
        quantized: the result of the quantisation; weights of 7 bits are trained for where all of
            its candidates have them.
        checkpoint: the student's weights to start from.

    Returns:
        The path of the repaired weights of the best epoch, chosen on the rounded student's
        validation accuracy; `load_student` reads them.
    """
    cfg, seed = workspace.cfg, workspace.cfg.seed
    reduce_range = _reduces_range(workspace, quantized)
    values = {"network": plain(cfg.student), "seed": seed, "reduce_range": reduce_range}

    def module(parts: dict[str, Any]) -> lightning.LightningModule:
        student = load_student(workspace, checkpoint)
        return distilled(workspace, student.train(), parts)

    def callbacks() -> list[Any]:
        from distill.training.fake_quant import QuantizationAware

        images = workspace.data.train.inputs
        chosen = np.random.default_rng(seed).permutation(len(images))[:NUM_CALIBRATION_SAMPLES]
        return [QuantizationAware(images[np.sort(chosen)], reduce_range=reduce_range)]

    fit_stage(
        workspace,
        ROLE,
        cfg.repair,
        module,
        values | distillation_values(workspace),
        seed=seed,
        inputs=(checkpoint, workspace.run_dir / TEACHER_FACTS),
        num_views=views_shown(workspace),
        taught=lambda: taught_rows(workspace),
        callbacks=callbacks,
    )
    return weights_path(workspace.run_dir, ROLE)


def _reduces_range(workspace: Workspace, quantized: dict[str, Any]) -> bool:
    """Tell whether every int8 recipe that made a file keeps weights in 7 bits."""
    configured = plain(workspace.cfg.quantize)
    recipes = configured.get("recipes", {})
    tried = [
        recipes.get(candidate["recipe"], configured)
        for candidate in quantized["candidates"]
        if candidate["precision"] == "int8" and candidate["reason"] is None
    ]
    return bool(tried) and all(recipe.get("reduce_range", False) for recipe in tried)
