"""What training needs, built once before the first epoch, so that a mistake shows at once."""

import shutil
from typing import Any

import lightning
import numpy as np
import torch
from hydra.utils import instantiate
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from omegaconf import DictConfig, OmegaConf

from distill.errors import UsageError, UserError, settings_of
from distill.tasks import TaskKind
from distill.training.endings import check_end, check_schedule
from distill.training.modules import make_schedule
from distill.verbs.learning.members import (
    is_fitted,
    load_member,
    settings_name,
    teacher_members,
)
from distill.verbs.learning.networks import (
    build_distillation,
    build_teacher_network,
    existing,
    further,
    load_network,
    starting_student,
    starting_teacher,
)
from distill.verbs.learning.seeds import seeds
from distill.verbs.learning.store import check_store_settings, uses_store
from distill.verbs.learning.views import check_views_of_data
from distill.verbs.run.ranks import launched
from distill.verbs.run.workspace import Workspace, named_in_errors

SUGGESTED = {
    TaskKind.CLASSIFICATION: "kd",
    TaskKind.MULTI_LABEL: "bce_kd",
    TaskKind.REGRESSION: "regression",
}


def check_configuration(workspace: Workspace) -> None:
    """Build everything that training needs once, so that a mistake shows before the first epoch."""
    cfg = workspace.cfg
    if workspace.data.logged is not None:
        raise UsageError(
            "Expected data to learn from but `data=prediction_log` is what a teacher answers, by "
            "`soft_labels`: its audited rows judge. Train on what `feedback collect` writes: "
            "`data=feedback`."
        )
    seeds(workspace)
    _ = workspace.scoring
    check_views_of_data(workspace)
    student, networks = starting_student(workspace), []
    for role, member in teacher_members(cfg.teacher).items():
        with settings_of("teacher", settings_name(role)):
            if is_fitted(workspace, member):
                _check_levels(workspace, member)
            elif "network" not in member:
                load_member(workspace, role, member)
            elif member.checkpoint is None:
                networks.append(starting_teacher(workspace, member))
            else:
                load_network(workspace, member, existing(member.checkpoint))
    trainings = [(student, ""), *((network, "teacher_training.") for network in networks)]
    if cfg.get("repair"):
        trainings.append((student, "repair."))
    for model, within in trainings:
        _check_training(cfg, model, within)
    further(workspace)
    for group in ("quantize", "target", "scenario", "runtime", "effort"):
        with named_in_errors(group):
            instantiate(cfg[group])
    with named_in_errors("emulator"):
        for emulator in cfg.emulator.values():
            instantiate(emulator)
    if cfg.compile and not any(map(shutil.which, ("g++", "clang++"))):
        raise UserError(
            "Expected a C++ compiler for `compile=true` but found neither g++ nor clang++. Install "
            "one, or leave `compile=false`."
        )
    if uses_store(workspace):
        check_store_settings(workspace)
    _check_losses(workspace, student)


def _check_training(cfg: DictConfig, model: Any, within: str) -> None:
    """Build what trains a network, of the whole configuration or of a part, such as `repair.`."""
    training = OmegaConf.select(cfg, within.removesuffix(".")) if within else cfg
    with named_in_errors("callbacks"):
        callbacks = [instantiate(callback) for callback in cfg.callbacks.values()]
    with named_in_errors("trainer"):
        trainer = instantiate(training.trainer)(callbacks=callbacks, logger=False)
        _check_trainer(trainer)
        check_end(trainer, within)
    with named_in_errors("optimizer"):
        optimizer = instantiate(training.optimizer)(model.parameters())
    with named_in_errors("scheduler"):
        scheduler = instantiate(training.scheduler)
        if scheduler is not None:
            check_schedule(scheduler, trainer, within)
            make_schedule(scheduler, optimizer, total_steps=100)


def _check_losses(workspace: Workspace, student: Any) -> None:
    """Build the distillation module with a teacher of the right kind, its weights untrained."""
    from distill.training.data.loading import BatchDataModule
    from distill.training.teachers.live import TorchTeacher

    cfg, classes = workspace.cfg, len(workspace.data.classes)
    with named_in_errors("loss"):
        losses = instantiate(workspace.of_task("loss"), _convert_="all")
    kind = workspace.data.task.kind
    for name, loss in losses.items():
        if kind not in getattr(loss, "kinds", [kind]):
            raise UsageError(
                f"Expected losses for {kind.replace('_', ' ')} but `loss.{name}` is one of "
                f"{', '.join(sorted(loss.kinds))}. Choose another `loss=`, such as "
                f"`loss={SUGGESTED[kind]}`."
            )
        _check_quantiles(workspace.data.task.quantiles, name, loss)
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
        module = build_distillation(
            workspace, student, TorchTeacher(network), losses, torch.optim.SGD
        )
    trainer = instantiate(cfg.trainer)(logger=False, enable_checkpointing=False)
    module.check_optimizer(instantiate(cfg.optimizer)(module.parameters()), trainer)
    batch = BatchDataModule(
        workspace.data, batch_size=2, mixing=instantiate(cfg.mixing) or None
    ).shown[0, np.arange(2)]
    with named_in_errors("loss"), torch.no_grad():
        module.terms(batch, epoch=0)


def _check_quantiles(levels: tuple[float, ...], name: str, loss: Any) -> None:
    """Refuse losses of numbers for quantiles, of quantiles for numbers, and other levels."""
    of_quantiles = getattr(loss, "of_quantiles", None)
    if of_quantiles not in (None, bool(levels)):
        asked, other = ("quantiles", "numbers") if levels else ("numbers", "quantiles")
        raise UsageError(
            f"Expected losses for {asked} (`data.quantiles={list(levels) or 'null'}`) but "
            f"`loss.{name}` is one of {other}. Choose "
            f"`loss={'quantile' if levels else 'regression'}`, or change `data.quantiles`."
        )
    own = getattr(loss, "quantiles", levels)
    if own != levels:
        raise UsageError(
            f"Expected `loss.{name}.levels` to be those of `data.quantiles`, {list(levels)}, but "
            f"got {list(own)}. Leave it out: `loss=quantile` takes them from there."
        )


def _check_levels(workspace: Workspace, member: Any) -> None:
    """Refuse a regressor that answers no quantiles where they are asked for."""
    from distill.training.teachers.levels import at_level

    for level in workspace.data.task.quantiles:
        with named_in_errors("teacher.regressor"):
            at_level(instantiate(member.regressor), level)


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
