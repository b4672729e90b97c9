"""The teacher and the control as ONNX files, so that they are measured as the student is."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from distill.contract import CLASSES_KEY
from distill.errors import UserError, full_disk
from distill.verbs.exporting.artefacts import (
    ARTEFACTS,
    calibrated,
    export_network,
    parity_with_torch,
)
from distill.verbs.learning.members import TEACHER_FACTS, load_teacher
from distill.verbs.learning.networks import load_student, weights_path
from distill.verbs.run.workspace import Workspace, plain


def export_reference_stage(workspace: Workspace, role: str) -> dict[str, Any]:
    """Export the teacher or the control.

    A teacher that cannot be exported is measured as it is, and the result says why.
    """
    from distill.deployment.export import embed_metadata

    cfg = workspace.cfg
    name = ARTEFACTS[role]
    checkpoint = reference_input(workspace, role)
    network = cfg.teacher if role == "teacher" else cfg.student

    path = workspace.run_dir / "export" / name

    def compute() -> dict[str, Any]:
        try:
            model = _reference_model(workspace, role)
            export_network(workspace, model, path)
            embed_metadata(path, {CLASSES_KEY: json.dumps(workspace.data.classes)})
            return {"artefact": name, "parity": parity_with_torch(workspace, model, path)}
        except UserError as error:
            path.unlink(missing_ok=True)
            if role == "control" or full_disk(error):
                raise
            return {"artefact": None, "why": str(error)}

    return workspace.stage(
        f"export_{role}",
        compute,
        values={
            "data": workspace.data.fingerprint,
            "network": plain(network),
            "parity": dataclasses.asdict(workspace.budget.parity),
        },
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
        return calibrated(load_student(workspace, checkpoint), checkpoint)
    teacher = load_teacher(workspace)
    if not teacher.computes_in_torch:
        raise UserError(f"{type(teacher).__name__} is no torch model, so it is measured as it is.")
    return Answers(teacher).eval()
