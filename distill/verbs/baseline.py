"""`baseline`: what a model must beat, scored before any training."""

from typing import Any

from omegaconf import DictConfig

from distill.files import write_arrays
from distill.verbs.workspace import Workspace, open_workspace, plain

PREDICTIONS = "predictions/baseline.npz"


def run(cfg: DictConfig) -> dict[str, Any]:
    """Score the baselines of a data set."""
    with open_workspace(cfg) as workspace:
        return baseline_stage(workspace)


def baseline_stage(workspace: Workspace) -> dict[str, Any]:
    """Score each baseline on the test set, and keep its predictions for paired comparisons."""
    from distill.training.baselines import score_baselines

    data, confidence = workspace.data, workspace.budget.confidence
    names = plain(workspace.cfg.baselines)

    def compute() -> dict[str, Any]:
        scores, predictions = score_baselines(data, names, confidence=confidence)
        write_arrays(workspace.run_dir / PREDICTIONS, predictions)
        best = max(scores, key=lambda name: scores[name]["accuracy"].estimate)
        return {"best": best, "measured_through": "scikit-learn and numpy", "baselines": scores}

    values = {"data": data.fingerprint, "baselines": names, "confidence": confidence}
    return workspace.stage("baseline", compute, values=values, outputs=(PREDICTIONS,))
