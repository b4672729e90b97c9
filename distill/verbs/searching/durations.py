"""How long a full training and all that follows may take, told before it is begun.

By what an attempt before has taken; what none has done yet, by the limits that are configured.
Whatever has neither, such as making one int8 file, counts as nothing until it has been done.
"""

from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate

from distill.deployment.quantize.auto import Auto
from distill.files import read_json
from distill.verbs.export import never_repaired
from distill.verbs.exporting.quantization import REPAIRED, STAGE
from distill.verbs.exporting.repair import ROLE
from distill.verbs.run.workspace import Workspace

_TRAININGS = "train"
_REPAIR = f"{_TRAININGS}/{ROLE}"
_REST = "all else"  # exporting, scoring, measuring


def seconds_of_an_attempt(
    workspace: Workspace, seconds_per_epoch: float, before: Sequence[Path]
) -> float:
    """Estimate what an attempt takes: student, control, quantising, a repair, measuring its files.

    Args:
        workspace: of the search.
        seconds_per_epoch: of the candidate's short training.
        before: run folders of earlier attempts, of other candidates.
    """
    cfg = workspace.cfg
    took = [_took(folder) for folder in before]

    def known(stage: str, configured: float) -> float:
        return max((own[stage] for own in took if stage in own), default=configured)

    training = 2 * cfg.seeds * cfg.trainer.max_epochs * seconds_per_epoch
    recipe = instantiate(cfg.quantize) if cfg.quantize else None
    by_limit = recipe.most_seconds(cfg.effort.max_seconds) if isinstance(recipe, Auto) else 0.0
    quantizing = known(STAGE, by_limit)
    repairing = 0.0
    if recipe and _may_be_inaccurate(workspace) and never_repaired(workspace) is None:
        epochs = cfg.repair.trainer.max_epochs or 0
        epochs = epochs if epochs > 0 else cfg.trainer.max_epochs  # it has no number: as many
        repairing = known(_REPAIR, epochs * seconds_per_epoch) + known(REPAIRED, quantizing)
    return training + quantizing + repairing + known(_REST, cfg.effort.max_seconds)


def _may_be_inaccurate(workspace: Workspace) -> bool:
    return workspace.budget.accuracy.max_drop_vs_float32 is not None


def _took(run_dir: Path) -> dict[str, float]:
    """Sum the seconds of a run's stages by what they are for; of its trainings the repair alone."""
    folder, seconds = run_dir / "manifests", {}
    for path in folder.rglob("*.json"):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name.startswith(f"{_TRAININGS}/") and name != _REPAIR:
            continue
        part = name if name in (STAGE, REPAIRED, _REPAIR) else _REST
        seconds[part] = seconds.get(part, 0.0) + read_json(path).get("seconds", 0.0)
    return seconds
