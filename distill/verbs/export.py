"""`export`: checkpoints to ONNX files that are proven to answer as torch does, with a contract."""

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from distill.contract import (
    CONTRACT_FILE,
    GOLDEN_FILE,
    HASH_KEY,
    replay_golden,
    save_contract,
    write_golden,
)
from distill.deployment.parity import measure_parity
from distill.deployment.quantize.auto import Auto
from distill.deployment.quantize.choice import Outcome
from distill.deployment.quantize.recipes import StaticInt8
from distill.files import atomic_path, read_json
from distill.runtime import OnnxModel
from distill.verbs.exporting.artefacts import (
    ARTEFACTS,
    MAY_SHIP,
    STUDENT,
    check_weights,
    export_float32,
)
from distill.verbs.exporting.bundle import bundle_stage, wanted_bundle
from distill.verbs.exporting.deploy import deploy_artefact, deploy_stage, shipped, wanted_deployment
from distill.verbs.exporting.measuring import NUM_INPUTS, measurement
from distill.verbs.exporting.promise import make_contract
from distill.verbs.exporting.quantization import FLOAT32, REPAIRED, STAGE, quantize_stage
from distill.verbs.exporting.references import export_reference_stage, reference_input
from distill.verbs.learning.members import TEACHER_FACTS
from distill.verbs.learning.networks import weights_path
from distill.verbs.run.workspace import Workspace, open_workspace, plain

log = logging.getLogger(__name__)

NUM_GOLDEN = 8


def run(cfg: DictConfig) -> dict[str, Any]:
    """Export the student of a run folder with its teacher and control, or any checkpoint.

    With `artefact=` nothing is exported: what was is laid out for another serving system.
    """
    deployment = wanted_deployment(cfg)
    if cfg.artefact:
        return deploy_artefact(cfg, deployment)
    with open_workspace(cfg) as workspace:
        portable = wanted_bundle(cfg.bundle)
        own = weights_path(workspace.run_dir, "student")
        result = export_student(workspace, Path(cfg.checkpoint) if cfg.checkpoint else own)
        for role in ("teacher", "control") if not cfg.checkpoint else ():
            if reference_input(workspace, role).is_file():
                export_reference_stage(workspace, role)
        if portable is not None:
            folder = workspace.run_dir / "export"
            artefacts = [folder / name for name in result["artefacts"]]
            inputs = workspace.data.validation.served[:NUM_INPUTS]
            request = measurement(workspace, lambda said: None)
            written = bundle_stage(workspace, artefacts, inputs, request, portable)
            result["bundle"] = written["bundle"]
        if deployment is not None:
            path = shipped(workspace.run_dir / "export", result["artefacts"])
            result["deploy"] = deploy_stage(workspace, path, deployment)
        return result


def export_student(workspace: Workspace, checkpoint: Path) -> dict[str, Any]:
    """Quantise a student as configured, mend it where that is needed and configured, export it."""
    check_weights(checkpoint)
    cfg = workspace.cfg
    if not cfg.quantize:
        return export_stage(workspace, checkpoint, None)
    quantized = quantize_stage(workspace, checkpoint)
    if quantized["outcome"] == Outcome.REPAIR:
        why_not = cannot_be_repaired(workspace)
        if why_not is None:
            from distill.verbs.exporting.repair import repair_stage

            repaired = repair_stage(workspace, quantized, checkpoint)
            again = quantize_stage(workspace, repaired, name=REPAIRED)
            if again["holds"] or _drop(again) < _drop(quantized):
                quantized = again
            else:
                log.warning("The repair did not help; its weights are not exported.")
        else:
            log.warning(
                "int8 is less accurate than `budget.accuracy.max_drop_vs_float32` allows on the "
                "validation set, and is not trained for: %s. Let `quantize=auto` look for another "
                "recipe, or raise the limit if you can bear it.",
                why_not,
            )
    return export_stage(workspace, checkpoint, quantized)


def _drop(quantized: dict[str, Any]) -> float:
    """Say how much accuracy the best int8 candidate of a quantisation loses."""
    drops = [c["accuracy_drop"]["estimate"] for c in quantized["candidates"] if c["accuracy_drop"]]
    return min(drops, default=1.0)


def cannot_be_repaired(workspace: Workspace) -> str | None:
    """Say why a student is not trained with int8 in the loop; None if it can be."""
    has_teacher = (workspace.run_dir / TEACHER_FACTS).is_file()
    missing = None if has_teacher else "this run folder has no teacher (run `train` in it)"
    return never_repaired(workspace) or missing


def never_repaired(workspace: Workspace) -> str | None:
    """Say why the configuration lets no student be; None where it lets."""
    cfg = workspace.cfg
    if not cfg.get("repair"):
        return "`repair` is not configured"
    if not isinstance(instantiate(cfg.quantize), StaticInt8 | Auto):
        return "training rounds as static recipes do, and this one is none"
    return None


def export_stage(
    workspace: Workspace, checkpoint: Path, quantized: dict[str, Any] | None
) -> dict[str, Any]:
    """Write a student's float32 file and the chosen smaller one, with contract and golden samples.

    Args:
        workspace: the run.
        checkpoint: the student's weights.
        quantized: what `quantize_stage` left, of these weights or of repaired ones.
    """
    run_dir = workspace.run_dir
    smaller: dict[str, Path] = {}
    if quantized and quantized["chosen"]:
        smaller[quantized["artefact"]] = run_dir / quantized["chosen"]
    names = (STUDENT, *smaller)
    values = {
        "data": workspace.data.fingerprint,
        "network": plain(workspace.cfg.student),
        "head": plain(workspace.cfg.head),
        "embedding": workspace.cfg.embedding,
        "parity": dataclasses.asdict(workspace.budget.parity),
        "quantized": _summary(quantized),
    }
    own = (run_dir / quantized["float32"]["path"],) if quantized else ()

    def compute() -> dict[str, Any]:
        return _export(workspace, checkpoint, quantized, smaller)

    outputs = tuple(f"export/{name}" for name in (*names, CONTRACT_FILE, GOLDEN_FILE))
    return workspace.stage(
        "export",
        compute,
        values=values,
        inputs=(checkpoint, *own, *smaller.values()),
        outputs=outputs,
    )


def _export(
    workspace: Workspace,
    checkpoint: Path,
    quantized: dict[str, Any] | None,
    smaller: dict[str, Path],
) -> dict[str, Any]:
    from distill.deployment.export import embed_metadata

    run_dir, folder = workspace.run_dir, workspace.run_dir / "export"
    names = (STUDENT, *smaller)
    for name in {ARTEFACTS[role] for role in MAY_SHIP} - set(names):
        (folder / name).unlink(missing_ok=True)  # of an earlier configuration
    if quantized:  # whose float32 file is that of these weights, already held against torch
        _copy(run_dir / STAGE / FLOAT32, folder / STUDENT)
        parity = {STUDENT: read_json(run_dir / f"{STAGE}.json")["float32"]["parity"]}
    else:
        parity = {STUDENT: export_float32(workspace, checkpoint, folder / STUDENT)}
    images = workspace.data.validation.served
    for name, path in smaller.items():
        assert quantized is not None
        _copy(path, folder / name)
        own = OnnxModel(run_dir / quantized["float32"]["path"], num_threads=2).predict(images)
        found = OnnxModel(folder / name, num_threads=2).predict(images)
        parity[name] = measure_parity(own, found)
    golden = images[:NUM_GOLDEN]
    answers = {name: OnnxModel(folder / name).predict(golden) for name in names}
    golden_sha256 = write_golden(folder, golden, answers)
    contract = make_contract(workspace, checkpoint, golden_sha256, quantized)
    save_contract(contract, folder)
    for name in names:
        embed_metadata(folder / name, {HASH_KEY: contract.sha256})
        replay_golden(folder, name)
    return {
        "artefacts": list(names),
        "parity": parity,
        "size_bytes": {name: (folder / name).stat().st_size for name in names},
        "contract": f"export/{CONTRACT_FILE}",
        "quantized": _summary(quantized),
    }


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _summary(quantized: dict[str, Any] | None) -> dict[str, Any] | None:
    keys = ("outcome", "why", "chosen", "artefact", "holds", "checkpoint", "checkpoint_sha256")
    return quantized and {key: quantized[key] for key in keys}
