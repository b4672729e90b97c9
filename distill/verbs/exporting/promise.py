"""The contract of an exported student: its input, its classes, and where all of it comes from."""

import subprocess
from pathlib import Path
from typing import Any

from distill.contract import Contract, ImageInput, Normalization, SeriesInput, TableInput
from distill.files import read_json, sha256
from distill.redaction import without_secrets
from distill.run_folder import versions
from distill.tables.encoding import Encoder
from distill.tasks import TaskKind
from distill.verbs.learning.members import TEACHER_FACTS
from distill.verbs.learning.networks import further
from distill.verbs.run.workspace import Workspace, plain


def make_contract(
    workspace: Workspace,
    checkpoint: Path,
    golden_sha256: str,
    quantized: dict[str, Any] | None,
) -> Contract:
    """Write down what a student promises, and what it comes from.

    Args:
        workspace: the run.
        checkpoint: of the student.
        golden_sha256: hash of the golden samples' file.
        quantized: what `quantize_stage` left; None where the student is float32 alone.
    """
    from distill.deployment.export import OUTPUT_NAMES, further_outputs

    data = workspace.data
    facts = workspace.run_dir / TEACHER_FACTS
    return Contract(
        **_input(data, checkpoint),
        task=None if data.task.kind is TaskKind.CLASSIFICATION else data.task,
        output=OUTPUT_NAMES[data.task.kind],
        further_outputs=further_outputs(**further(workspace)),
        classes=data.classes,
        provenance={
            "data": {"name": data.name, "sha256": data.fingerprint},
            "student": {
                "network": without_secrets(plain(workspace.cfg.student)),
                "sha256": sha256(checkpoint),
            },
            "teacher": {
                "configuration": without_secrets(plain(workspace.cfg.teacher)),
                "fingerprint": read_json(facts)["fingerprint"] if facts.is_file() else None,
            },
            "quantized_from": {
                "checkpoint": quantized["checkpoint"],
                "sha256": quantized["checkpoint_sha256"],
                "candidate": quantized["chosen"],
            }
            if quantized and quantized["chosen"]
            else None,
            "seed": workspace.cfg.seed,
            "versions": versions(),
            "code": _git_revision(),
        },
        golden_sha256=golden_sha256,
    )


def _input(data: Any, checkpoint: Path) -> dict[str, Any]:
    """Say what goes in: columns, or an image with the normalisation of the weights' own graph."""
    from distill.deployment.export import INPUT_NAME
    from distill.training.fit import load_weights

    if data.encoder is not None:
        categories = data.encoder.categories if isinstance(data.encoder, Encoder) else {}
        takes = TableInput(
            columns=data.encoder.takes, categories=categories, as_written=bool(categories)
        )
        return {"input": None, "normalization": None, "table": takes, "series": _series(data)}
    height, width, channels = data.input_shape
    state = load_weights(checkpoint)
    state = state.get("state_dict", state)
    mean, std = (
        (state[name] / 255).tolist() if name in state else values
        for name, values in zip(("mean", "std"), data.channel_statistics, strict=True)
    )
    return {
        "input": ImageInput(name=INPUT_NAME, height=height, width=width, channels=channels),
        "normalization": Normalization(mean=tuple(mean), std=tuple(std)),
    }


def _series(data: Any) -> SeriesInput | None:
    """Say how windows are read; None where there are none."""
    from distill.training.data.series import SeriesData

    if not isinstance(data, SeriesData):
        return None
    choice, spacing = data.pool.choice, data.pool.panel.spacing
    return SeriesInput(
        time=choice.time,
        value=choice.value,
        series=choice.series,
        known=tuple(choice.known),
        observed=tuple(choice.observed),
        window=choice.window,
        horizon=choice.horizon,
        spacing=spacing.text,
        anchor=spacing.anchor,
        resample=choice.resample,
        fill=choice.fill,
        date_format=choice.date_format,
    )


def _git_revision() -> str | None:
    """Name the commit of the folder the command was started in, marked if it has changes."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
