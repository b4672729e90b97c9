"""The teacher of a run: its networks trained or loaded, anything else fitted or opened."""

import logging
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig

from distill.contract import CONTRACT_FILE
from distill.errors import settings_of
from distill.files import write_json
from distill.training.modules import SupervisedModule
from distill.training.teachers.ensemble import check_weights
from distill.verbs.learning.elsewhere import warnings_about_test_set
from distill.verbs.learning.fitting import HISTORY, fit_stage, keep, outputs_of, score_test
from distill.verbs.learning.members import (
    TEACHER_FACTS,
    fingerprint_of,
    load_teacher,
    settings_name,
    teacher_members,
)
from distill.verbs.learning.networks import (
    existing,
    load_network,
    objective,
    start_path,
    starting_teacher,
    teacher_classes,
    weights_path,
)
from distill.verbs.learning.normalization import check_normalization, is_open
from distill.verbs.run.workspace import Workspace, plain

log = logging.getLogger(__name__)


def teacher_stage(workspace: Workspace) -> dict[str, Any]:
    """Train, load or fit the teacher, member by member, and leave what identifies it."""
    run_dir, teacher = workspace.run_dir, workspace.cfg.teacher
    members = teacher_members(teacher)
    if "members" in teacher:
        check_weights(plain(teacher.weights), len(members))  # before anything is trained
    trained = {
        role: _teacher_network_stage(workspace, role, member, workspace.cfg.seed + number)
        for number, (role, member) in enumerate(members.items())
        if "network" in member
    }
    inputs = tuple(weights_path(run_dir, role) for role in trained)
    inputs += tuple(path for member in members.values() for path in _files(member))

    def compute() -> dict[str, Any]:
        whole = load_teacher(workspace)
        for warning in warnings_about_test_set(workspace):
            log.warning("WARNING: %s", warning)
        facts = {"fingerprint": fingerprint_of(workspace, whole), "kind": type(whole).__name__}
        write_json(run_dir / TEACHER_FACTS, facts)
        scores = trained["teacher"] if "teacher" in trained else _score_teacher(workspace, whole)
        return scores | facts

    values = {"teacher": plain(teacher), "data": workspace.data.fingerprint}
    outputs = (TEACHER_FACTS,)
    result = workspace.stage("teacher", compute, values=values, inputs=inputs, outputs=outputs)
    return result | ({"members": trained} if "members" in teacher else {})


def _files(member: DictConfig) -> list[Path]:
    """List the files that a teacher reads which is no network of ours: other bytes, other answers.

    An ONNX file may keep its weights beside it, and a contract that names its classes.
    """
    from distill.training.teachers.onnx import weights_files

    found: list[Path] = []
    for path in (Path(member[key]) for key in ("path", "test_path") if member.get(key)):
        is_onnx = path.suffix == ".onnx"
        found += [*weights_files(path), path.with_name(CONTRACT_FILE)] if is_onnx else [path]
    return [path for path in found if path.is_file()]


def _score_teacher(workspace: Workspace, teacher: Any) -> dict[str, Any]:
    """Score a teacher that is no single network, where it can answer for the test set."""
    from distill.training.labelling import ask_test

    test = ask_test(teacher, workspace.data.test)
    if test is None:
        return {"num_parameters": None, "test_at_best_epoch": None, "test_at_last_epoch": None}
    through = "torch" if teacher.computes_in_torch else "the teacher itself"
    test = workspace.data.in_units(test, workspace.data.test)
    scores = score_test(workspace, test, measured_through=through)
    return {"num_parameters": None, "test_at_best_epoch": scores, "test_at_last_epoch": scores}


def _teacher_network_stage(
    workspace: Workspace, role: str, member: DictConfig, seed: int
) -> dict[str, Any]:
    """Train a teacher's network on the labels, or load it."""
    with settings_of("teacher", settings_name(role)):
        return _train_or_load(workspace, role, member, seed)


def _train_or_load(
    workspace: Workspace, role: str, member: DictConfig, seed: int
) -> dict[str, Any]:
    cfg = workspace.cfg
    keys = ("network", "input_size", "mean", "std")
    network = {key: plain(member.get(key)) for key in keys}
    if member.checkpoint is not None:
        path = existing(member.checkpoint)
        values = {"data": workspace.data.fingerprint, "classes": plain(member.get("classes"))}
        return workspace.stage(
            f"train/{role}",
            lambda: _load_checkpoint(workspace, role, member, path),
            values=values | network,
            inputs=(path,),
            outputs=outputs_of(role),
        )

    def module(parts: dict[str, Any]) -> lightning.LightningModule:
        model = starting_teacher(workspace, member)
        return SupervisedModule(model, **objective(workspace), **parts)

    start = start_path(cfg, "teacher")
    return fit_stage(
        workspace,
        role,
        cfg.teacher_training,
        module,
        {"network": network, "seed": seed},
        seed=seed,
        inputs=() if start is None else (start,),
    )


def _load_checkpoint(
    workspace: Workspace, role: str, member: DictConfig, path: Path
) -> dict[str, Any]:
    from distill.training.fit import load_weights
    from distill.training.models import num_parameters

    model, content = load_network(workspace, member, path), load_weights(path)
    classes = teacher_classes(workspace, member, content)
    if workspace.data.encoder is None and is_open(member, content, model):
        check_normalization(workspace.images, model, classes, settings_name(role))
    folder = workspace.run_dir / "train" / role
    result: dict[str, Any] = {"num_parameters": num_parameters(model), "loaded_from": str(path)}
    state = model.state_dict()
    scores = keep(workspace, model, role, {"last": state, "best": state}, classes)
    write_json(folder / HISTORY, [])
    return result | scores
