"""The files of an export folder, and how a network becomes a float32 file that answers alike."""

import dataclasses
from pathlib import Path
from typing import Any

from distill.errors import UserError
from distill.tasks import TaskKind
from distill.verbs.learning.networks import further, load_student
from distill.verbs.run.workspace import Workspace

STUDENT, STUDENT_INT8, STUDENT_FP16 = "model.onnx", "model.int8.onnx", "model.fp16.onnx"
CONTROL, TEACHER = "control.onnx", "teacher.onnx"
ARTEFACTS = {
    "teacher": TEACHER,
    "control": CONTROL,
    "student": STUDENT,
    "student_int8": STUDENT_INT8,
    "student_fp16": STUDENT_FP16,
}
OF_PRECISION = {"int8": STUDENT_INT8, "float16": STUDENT_FP16}
MAY_SHIP = ("student", "student_int8", "student_fp16")


def export_float32(workspace: Workspace, checkpoint: Path, path: Path) -> Any:
    """Export a student's weights, its temperature folded in, and return its parity with torch.

    Raises:
        UserError: there are no weights, or the file does not answer as torch does.
    """
    check_weights(checkpoint)
    model = calibrated(load_student(workspace, checkpoint), checkpoint)
    export_network(workspace, model, path, **further(workspace))
    return parity_with_torch(workspace, model, path)


def export_network(
    workspace: Workspace, model: Any, path: Path, *, head: Any = None, embedding: bool = False
) -> None:
    """Export a network; of rows and windows with their encoding inside, of numbers in their units.

    Raises:
        UserError: it cannot be exported.
    """
    import torch

    from distill.deployment.export import export_onnx
    from distill.deployment.series_graph import wrap_windows
    from distill.deployment.table_graph import in_units, prepend_encoder
    from distill.tables.windows import Windows

    data = workspace.data
    dtype, kind = torch.uint8 if data.encoder is None else torch.float32, data.task.kind
    export_onnx(
        model, data.input_shape, path, dtype=dtype, head=head, embedding=embedding, kind=kind
    )
    if isinstance(data.encoder, Windows):
        wrap_windows(data.encoder, path, data.task)
    elif data.encoder is not None:
        prepend_encoder(data.encoder, path)
        if data.is_numeric:
            in_units(data.task, path)


def check_weights(checkpoint: Path) -> None:
    """Refuse a checkpoint that is not there.

    Raises:
        UserError: says where it was looked for.
    """
    if not checkpoint.is_file():
        raise UserError(
            f"Expected the student's weights at {checkpoint} but there are none. Run `train` in "
            "this run folder first, or give `checkpoint=`."
        )


def calibrated(model: Any, checkpoint: Path) -> Any:
    """Fold the temperature that fits the validation set into a model; its answers stay."""
    from distill.training.fit import load_weights
    from distill.training.models import TemperatureScaled

    temperature = load_weights(checkpoint).get("temperature", 1.0)
    return model if temperature == 1 else TemperatureScaled(model, temperature).eval()


def parity_with_torch(workspace: Workspace, model: Any, path: Path) -> Any:
    """Hold torch against the ONNX file on the whole validation set."""
    from distill.deployment.export import check_parity
    from distill.training.fit import predict_logits

    split, limits = workspace.data.validation, dataclasses.asdict(workspace.budget.parity)
    if workspace.data.task.kind is not TaskKind.CLASSIFICATION:
        limits["min_top1_agreement"] = None  # there is no largest output to agree on
    expected = workspace.data.in_units(predict_logits(model, split.inputs), split)
    return check_parity(expected, path, split.served, **limits)
