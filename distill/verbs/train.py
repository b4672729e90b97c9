"""`train`: the teacher, the control (the student on labels alone) and the distilled student."""

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from hydra.utils import instantiate
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from omegaconf import DictConfig

from distill.errors import UserError
from distill.files import write_json
from distill.training.modules import make_schedule
from distill.verbs.fitting import fit_stage
from distill.verbs.networks import (
    TEACHER_FACTS,
    build_student,
    build_teacher_network,
    load_member,
    load_network,
    load_teacher,
    named_in_errors,
    teacher_members,
)
from distill.verbs.ranks import launched
from distill.verbs.seeds import compare_over_seeds, seed_folder, seeds, show_trained
from distill.verbs.soft_labels import (
    check_store_settings,
    num_views,
    open_store,
    soft_labels_stage,
    uses_store,
)
from distill.verbs.teacher import existing, teacher_stage
from distill.verbs.workspace import Workspace, open_workspace, plain

ROLES = ("teacher", "control", "student")


def run(cfg: DictConfig) -> dict[str, Any]:
    """Train one role, or all three in order."""
    with open_workspace(cfg) as workspace:
        check_configuration(workspace)
        return train_roles(workspace, ROLES if cfg.action == "all" else (cfg.action,))


def train_roles(workspace: Workspace, roles: tuple[str, ...]) -> dict[str, Any]:
    """Train some roles, the control and the student over all seeds, and compare the two."""
    results: dict[str, Any] = {}
    if "teacher" in roles or "student" in roles:  # a student needs its teacher first
        results["teacher"] = teacher_stage(workspace)
    if "student" in roles and uses_store(workspace):
        results["soft_labels"] = soft_labels_stage(workspace)
    for role in ("control", "student"):
        if role in roles:
            trained = [train_stage(workspace, role, seed) for seed in seeds(workspace)]
            results[role] = trained[0] | {"seeds": trained}
    if "control" in results and "student" in results:
        results["over_seeds"] = compare_over_seeds(workspace, results)
    show_trained(workspace, results)
    if workspace.leads:
        write_json(workspace.run_dir / "train.json", results)
    return results


def check_configuration(workspace: Workspace) -> None:
    """Build everything that training needs once, so that a mistake shows before the first epoch."""
    cfg = workspace.cfg
    seeds(workspace)
    student, networks = build_student(workspace), []
    for role, member in teacher_members(cfg.teacher).items():
        if "network" not in member and member.get("estimator") is None:
            load_member(workspace, role, member)
        elif "network" in member and member.checkpoint is None:
            networks.append(build_teacher_network(workspace, member, len(workspace.data.classes)))
        elif "network" in member:
            load_network(workspace, member, existing(member.checkpoint))
    trainings = [(student, cfg), *((network, cfg.teacher_training) for network in networks)]
    for model, training in trainings:
        with named_in_errors("optimizer"):
            optimizer = instantiate(training.optimizer)(model.parameters())
        with named_in_errors("scheduler"):
            scheduler = instantiate(training.scheduler)
            if scheduler is not None:
                make_schedule(scheduler, optimizer, total_steps=100)
        with named_in_errors("trainer"):
            _check_trainer(instantiate(training.trainer)(logger=False, enable_checkpointing=False))
    for group in ("views", "mixing", "quantize", "target"):
        with named_in_errors(group):
            instantiate(cfg[group])
    if uses_store(workspace):
        check_store_settings(workspace)
    _check_losses(workspace, student)


def _check_losses(workspace: Workspace, student: Any) -> None:
    """Build the distillation module with a teacher of the right kind, its weights untrained."""
    from distill.training.data.images import ImageDataModule
    from distill.training.teachers.live import TorchTeacher

    cfg, classes = workspace.cfg, len(workspace.data.classes)
    with named_in_errors("loss"):
        losses = instantiate(cfg.loss, _convert_="all")
    on_features = [name for name, loss in losses.items() if hasattr(loss, "teacher_taps")]
    if on_features and (uses_store(workspace) or "network" not in cfg.teacher):
        found = "`soft_labels=store` keeps" if uses_store(workspace) else "this teacher has"
        raise UserError(
            f"Expected a live torch teacher for losses on features (`loss.{on_features[0]}`) but "
            f"{found} logits alone. Add `soft_labels=none` with a torch teacher."
        )
    network = student
    if on_features:
        network = build_teacher_network(workspace, cfg.teacher, classes)
    with named_in_errors("module"):
        module = _distillation_module(
            workspace, student, TorchTeacher(network), losses, torch.optim.SGD
        )
    trainer = instantiate(cfg.trainer)(logger=False, enable_checkpointing=False)
    module.check_optimizer(instantiate(cfg.optimizer)(module.parameters()), trainer)
    batch = ImageDataModule(
        workspace.data, batch_size=2, mixing=instantiate(cfg.mixing) or None
    ).shown[0, np.arange(2)]
    with named_in_errors("loss"), torch.no_grad():
        module.terms(batch, epoch=0)


def _check_trainer(trainer: lightning.Trainer) -> None:
    """Refuse a trainer that starts processes in a way that cannot work, or computes as we do not.

    Raises:
        UserError: says which other settings do.
    """
    if trainer.precision not in ("32-true", "bf16-mixed", "16-mixed"):
        raise UserError(
            f"Expected `trainer.precision` to be 32-true, bf16-mixed or 16-mixed but got "
            f"{trainer.precision}: weights stay in float32."
        )
    num_ranks = launched().num_ranks
    would_start = isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)
    if num_ranks == 1 and trainer.world_size > 1 and would_start:
        raise UserError(
            "Expected one device, or processes that are spawned, or started by torchrun or srun, "
            f"but `trainer` asks for {trainer.world_size} that would start themselves. Take "
            "`trainer=ddp`, or start the command with torchrun (see `conf/trainer/ddp.yaml`)."
        )
    if num_ranks > 1 and trainer.world_size != num_ranks:
        raise UserError(
            f"Expected a trainer for the {num_ranks} processes that were started but it is for "
            f"{trainer.world_size}. Set `trainer=ddp trainer.strategy=ddp "
            "trainer.devices=<processes on each node> trainer.num_nodes=<nodes>`."
        )


def train_stage(workspace: Workspace, role: str, seed: int) -> dict[str, Any]:
    """Train the control or the student with one seed."""
    from distill.training.modules import SupervisedModule

    cfg = workspace.cfg
    values: dict[str, Any] = {"network": plain(cfg.student), "seed": seed}
    inputs: tuple[Path, ...] = ()
    if role == "student":
        inputs = (workspace.run_dir / TEACHER_FACTS,)
        values |= {"losses": plain(cfg.loss), "module": plain(cfg.module)}
        labels = {k: v for k, v in (plain(cfg.soft_labels) or {}).items() if k != "path"}
        values["soft_labels"] = labels

    def module(parts: dict[str, Any]) -> lightning.LightningModule:
        student = build_student(workspace)
        if role == "control":
            return SupervisedModule(student, **parts)
        with_store = uses_store(workspace)
        losses = instantiate(cfg.loss, _convert_="all")
        teacher = open_store(workspace) if with_store else load_teacher(workspace)
        if not any(hasattr(loss, "teacher_taps") for loss in losses.values()):
            teacher = teacher.folded()
        return _distillation_module(workspace, student, teacher, losses, **parts)

    folder = seed_folder(workspace, role, seed)
    shown = num_views(workspace) if role == "student" and uses_store(workspace) else None
    return fit_stage(
        workspace, folder, cfg, module, values, seed=seed, inputs=inputs, num_views=shown
    )


def _distillation_module(
    workspace: Workspace, student: Any, teacher: Any, losses: Any, *parts: Any, **named: Any
) -> Any:
    example = torch.from_numpy(workspace.data.train.images[:2])
    module = instantiate(workspace.cfg.module)
    return module(student, teacher, losses, *parts, example=example, **named)
