"""The stage that writes `export/deploy/`, what another serving system reads."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from distill.deployment.deploy.model import Deployment, read_model, write_files
from distill.errors import UsageError
from distill.files import read_json, sha256
from distill.run_folder import run_folder_lock
from distill.verbs.production.registry import champion_path
from distill.verbs.run.workspace import Workspace, named_in_errors

log = logging.getLogger(__name__)

FOLDER = "export/deploy"


def wanted_deployment(cfg: DictConfig) -> Deployment | None:
    """Build what `deploy=` asks for; None for nothing.

    Raises:
        UsageError: it is refused.
    """
    if not cfg.deploy:
        return None
    with named_in_errors("deploy"):
        return instantiate(cfg.deploy)


def deploy_artefact(cfg: DictConfig, deployment: Deployment | None) -> dict[str, Any]:
    """Lay out a file that was exported before: no data are read, nothing is exported.

    Raises:
        UsageError: there is nothing to do, or what else is asked for needs the data.
        UserError: there is no such file, or it does not keep its contract.
    """
    if deployment is None:
        raise UsageError(
            "Expected `deploy=kserve` or `deploy=triton` for `artefact=` but got none. Choose one."
        )
    if cfg.checkpoint or any(value is not None for value in _options(cfg.bundle)):
        raise UsageError(
            "Expected `artefact=`, which exports nothing, without `checkpoint=` and `bundle=` but "
            "got both. Leave one out."
        )
    path = champion_path(cfg) if cfg.artefact == "champion" else Path(cfg.artefact)
    with run_folder_lock(Path(cfg.run_dir)):
        workspace = Workspace(cfg, Path(cfg.run_dir), Console(stderr=True))
        return deploy_stage(workspace, path, deployment)


def _options(bundle: Any) -> Sequence[Any]:
    return list(bundle.values()) if isinstance(bundle, DictConfig) else [bundle or None]


def deploy_stage(workspace: Workspace, path: Path, deployment: Deployment) -> dict[str, Any]:
    """Write what a serving system reads of an artefact.

    Args:
        workspace: of the run.
        path: of the ONNX file, its contract and golden samples beside it.
        deployment: the serving system.

    Raises:
        UserError: the file does not keep its contract, or cannot be served there.
    """
    files = deployment.files(read_model(path))
    folder, passed = workspace.run_dir / FOLDER, _passed(path)
    if not passed:
        log.warning(
            "deploy: no verdict has chosen %s. `pipeline` gives one, and `promote` holds to it.",
            path,
        )

    def compute() -> dict[str, Any]:
        write_files(folder, files)
        return {
            "folder": str(folder),
            "files": list(files),
            "artefact": str(path),
            "artefact_sha256": sha256(path),
            "chosen_by_verdict": passed,
        }

    texts = {name: text if isinstance(text, str) else None for name, text in files.items()}
    done = workspace.stage(
        "deploy",
        compute,
        values={"files": texts, "passed": passed},
        inputs=(path,),
        outputs=tuple(f"{FOLDER}/{name}" for name in files),
    )
    if workspace.leads:
        workspace.console.print(f"{folder} is written. Next:", soft_wrap=True, highlight=False)
        for number, step in enumerate(deployment.steps(folder), start=1):
            workspace.console.print(f"  {number}. {escape(step)}", soft_wrap=True, highlight=False)
    return done


def shipped(folder: Path, names: Sequence[str]) -> Path:
    """Find the file of an export that ships: the verdict's choice, else the last, the smallest."""
    paths = [folder / name for name in names]
    return next((path for path in paths if _passed(path)), paths[-1])


def _passed(path: Path) -> bool:
    """Tell whether the verdict of its run has chosen this very file."""
    file = path.parent.parent / "verdict.json"
    if not file.is_file():
        return False
    verdict = read_json(file)
    judged = verdict.get("artefacts", {}).get(path.name)
    return verdict["chosen"]["artefact"] == path.name and judged == sha256(path)
