"""`export`: checkpoints to ONNX files that are proven to answer as torch does, with a contract."""

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig

from distill.contract import (
    CLASSES_KEY,
    CONTRACT_FILE,
    GOLDEN_FILE,
    HASH_KEY,
    Contract,
    ImageInput,
    Normalization,
    replay_golden,
    save_contract,
    write_golden,
)
from distill.errors import UserError
from distill.files import read_json, sha256, versions
from distill.verbs.bundle import bundle_stage, wanted_bundle
from distill.verbs.measuring import NUM_INPUTS, measurement
from distill.verbs.networks import TEACHER_FACTS, load_student, load_teacher, weights_path
from distill.verbs.workspace import Workspace, open_workspace, plain

STUDENT, STUDENT_INT8, CONTROL, TEACHER = (
    "model.onnx",
    "model.int8.onnx",
    "control.onnx",
    "teacher.onnx",
)
NUM_GOLDEN = 8


def run(cfg: DictConfig) -> dict[str, Any]:
    """Export the student of a run folder with its teacher and control, or any checkpoint."""
    with open_workspace(cfg) as workspace:
        if cfg.checkpoint:
            return export_stage(workspace, Path(cfg.checkpoint))
        result = export_stage(workspace, weights_path(workspace.run_dir, "student"))
        for role in ("teacher", "control"):
            if reference_input(workspace, role).is_file():
                export_reference_stage(workspace, role)
        portable = wanted_bundle(cfg.bundle)
        if portable is not None:
            folder = workspace.run_dir / "export"
            artefacts = [folder / name for name in result["artefacts"]]
            inputs = workspace.data.validation.images[:NUM_INPUTS]
            request = measurement(workspace, lambda said: None)
            written = bundle_stage(workspace, artefacts, inputs, request, portable)
            result["bundle"] = written["bundle"]
        return result


def export_stage(workspace: Workspace, checkpoint: Path) -> dict[str, Any]:
    """Export a student, quantise it, and write its contract and golden samples."""
    if not checkpoint.is_file():
        raise UserError(
            f"Expected the student's weights at {checkpoint} but there are none. Run `train` in "
            "this run folder first, or give `checkpoint=`."
        )
    cfg, parity = workspace.cfg, workspace.budget.parity
    quantizer = instantiate(cfg.quantize)
    values = {
        "data": workspace.data.fingerprint,
        "network": plain(cfg.student),
        "quantize": plain(cfg.quantize),
        "parity": dataclasses.asdict(parity),
    }
    names = (STUDENT, STUDENT_INT8) if quantizer else (STUDENT,)

    def compute() -> dict[str, Any]:
        return _export_student(workspace, checkpoint, quantizer, names)

    outputs = tuple(f"export/{name}" for name in (*names, CONTRACT_FILE, GOLDEN_FILE))
    return workspace.stage("export", compute, values=values, inputs=(checkpoint,), outputs=outputs)


def export_reference_stage(workspace: Workspace, role: str) -> dict[str, Any]:
    """Export the teacher or the control, so that it is measured as the student is.

    A teacher that cannot be exported is measured as it is, and the result says why.
    """
    from distill.deployment.export import embed_metadata, export_onnx

    cfg = workspace.cfg
    name = {"teacher": TEACHER, "control": CONTROL}[role]
    checkpoint = reference_input(workspace, role)
    network = cfg.teacher if role == "teacher" else cfg.student

    path = workspace.run_dir / "export" / name

    def compute() -> dict[str, Any]:
        try:
            model = _reference_model(workspace, role)
            export_onnx(model, workspace.data.image_shape, path)
            embed_metadata(path, {CLASSES_KEY: json.dumps(workspace.data.classes)})
            return {"artefact": name, "parity": _parity(workspace, model, path)}
        except UserError as error:
            path.unlink(missing_ok=True)
            if role == "control":
                raise
            return {"artefact": None, "why": str(error)}

    return workspace.stage(
        f"export_{role}",
        compute,
        values={"data": workspace.data.fingerprint, "network": plain(network)},
        inputs=(checkpoint,),
        outputs=(f"export/{name}",),
    )


def reference_input(workspace: Workspace, role: str) -> Path:
    """Name the file that a reference's export depends on."""
    if role == "teacher":
        return workspace.run_dir / TEACHER_FACTS
    return weights_path(workspace.run_dir, role)


def _reference_model(workspace: Workspace, role: str) -> Any:
    from distill.training.teachers.live import Answers

    if role == "control":
        checkpoint = reference_input(workspace, role)
        return _calibrated(load_student(workspace, checkpoint), checkpoint)
    teacher = load_teacher(workspace)
    if not teacher.computes_in_torch:
        raise UserError(f"{type(teacher).__name__} is no torch model, so it is measured as it is.")
    return Answers(teacher).eval()


def _calibrated(model: Any, checkpoint: Path) -> Any:
    """Fold the temperature that fits the validation set into a model; its answers stay."""
    from distill.training.fit import load_weights
    from distill.training.models import TemperatureScaled

    return TemperatureScaled(model, load_weights(checkpoint).get("temperature", 1.0)).eval()


def _export_student(
    workspace: Workspace, checkpoint: Path, quantizer: Any, names: tuple[str, ...]
) -> dict[str, Any]:
    from distill.deployment.export import embed_metadata, export_onnx, measure_parity
    from distill.runtime import OnnxModel

    data, folder = workspace.data, workspace.run_dir / "export"
    for name in {STUDENT, STUDENT_INT8} - set(names):
        (folder / name).unlink(missing_ok=True)  # of an earlier configuration
    model = _calibrated(load_student(workspace, checkpoint), checkpoint)
    export_onnx(model, data.image_shape, folder / STUDENT)
    parity = {STUDENT: _parity(workspace, model, folder / STUDENT)}
    if quantizer:
        chosen = np.random.default_rng(workspace.cfg.seed).permutation(len(data.train))
        images = data.train.images[chosen[: quantizer.num_calibration_samples]]
        quantizer(folder / STUDENT, folder / STUDENT_INT8, images)
        images = data.validation.images
        reference = OnnxModel(folder / STUDENT).predict(images)
        int8 = OnnxModel(folder / STUDENT_INT8).predict(images)
        parity[STUDENT_INT8] = measure_parity(reference, int8)
    golden = data.validation.images[:NUM_GOLDEN]
    answers = {name: OnnxModel(folder / name).predict(golden) for name in names}
    contract = _contract(workspace, checkpoint, write_golden(folder, golden, answers))
    save_contract(contract, folder)
    for name in names:
        embed_metadata(folder / name, {HASH_KEY: contract.sha256})
        replay_golden(folder, name)
    return {
        "artefacts": list(names),
        "parity": parity,
        "size_bytes": {name: (folder / name).stat().st_size for name in names},
        "contract": f"export/{CONTRACT_FILE}",
    }


def _parity(workspace: Workspace, model: Any, path: Path) -> Any:
    """Hold torch against the ONNX file on the whole validation set."""
    from distill.deployment.export import check_parity
    from distill.training.fit import predict_logits

    images, limits = workspace.data.validation.images, workspace.budget.parity
    return check_parity(predict_logits(model, images), path, images, **dataclasses.asdict(limits))


def _contract(workspace: Workspace, checkpoint: Path, golden_sha256: str) -> Contract:
    from distill.deployment.export import INPUT_NAME, OUTPUT_NAME
    from distill.training.fit import load_weights

    data = workspace.data
    height, width, channels = data.image_shape
    state = load_weights(checkpoint)
    state = state.get("state_dict", state)
    own = data.channel_statistics
    mean, std = (
        (state[name] / 255).tolist() if name in state else values
        for name, values in zip(("mean", "std"), own, strict=True)
    )
    facts = workspace.run_dir / TEACHER_FACTS
    return Contract(
        input=ImageInput(name=INPUT_NAME, height=height, width=width, channels=channels),
        normalization=Normalization(mean=tuple(mean), std=tuple(std)),
        output=OUTPUT_NAME,
        classes=data.classes,
        provenance={
            "data": {"name": data.name, "sha256": data.fingerprint},
            "student": {"network": plain(workspace.cfg.student), "sha256": sha256(checkpoint)},
            "teacher": {
                "configuration": plain(workspace.cfg.teacher),
                "fingerprint": read_json(facts)["fingerprint"] if facts.is_file() else None,
            },
            "seed": workspace.cfg.seed,
            "versions": versions(),
            "code": _git_revision(),
        },
        golden_sha256=golden_sha256,
    )


def _git_revision() -> str | None:
    """Name the commit of the folder the command was started in, marked if it has changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
