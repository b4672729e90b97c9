"""What the product does with a table, without its run folder: fold in, exported student out."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import nn

from distill.deployment.export import export_onnx
from distill.deployment.table_graph import prepend_encoder
from distill.encoding import Encoder
from distill.training.data.loading import BatchDataModule, BatchDataset
from distill.training.data.splits import Data, Split
from distill.training.fit import fit
from distill.training.labelling import answer
from distill.training.losses.logits import CrossEntropy, SoftTargetKL
from distill.training.modules import DistillationModule, SupervisedModule
from distill.training.soft_label_writer import StoreWriter
from distill.training.soft_labels import Recipe, SoftLabelStore
from distill.training.table_models import MLP, build_table_network
from distill.training.teachers.base import Teacher
from distill.training.teachers.cached import CachedTeacher
from distill.training.teachers.estimator import SklearnTeacher, fit_estimator
from distill.training.teachers.out_of_fold import OutOfFoldTeacher, draw_folds

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it lists hardware

TEACHER_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How student and control are trained, in the terms of `conf`."""

    max_epochs: int = 60  # trainer.max_epochs
    batch_size: int = 64
    lr: float = 0.01  # optimizer=adamw, scheduler=onecycle
    weight_decay: float = 0.01
    widths: tuple[int, ...] = (128, 64)  # student=mlp
    dropout: float = 0.2
    temperature: float = 4.0  # loss.kd
    label_weight: float = 0.9  # loss.ce; that of loss.kd is the rest


def out_of_fold_teacher(data: Data, estimator: Any) -> OutOfFoldTeacher:
    """Fit an estimator on all training rows, and once without each of 5 folds of them."""
    train = data.train
    fold = draw_folds(train.labels, TEACHER_FOLDS)

    def fitted(rows: Any) -> Teacher:
        return SklearnTeacher(
            fit_estimator(estimator, train.inputs[rows], train.labels[rows]), data.classes
        )

    members = [fitted(np.flatnonzero(fold != number)) for number in range(TEACHER_FOLDS)]
    return OutOfFoldTeacher(fitted(slice(None)), members, train.indices, fold)


def stored(teacher: Teacher, data: Data, folder: Path) -> CachedTeacher:
    """Ask a teacher about every training row, and keep what it says in a store."""
    recipe = Recipe(
        teacher="of this fold", data="of this fold", classes=data.classes, views={},
        views_version=1, num_samples=len(data.train), top_k=None, precision="float32",
    )  # fmt: skip
    writer = StoreWriter(folder, recipe, data.train.indices, 1)
    writer.prepare()
    for view, block in writer.missing_blocks():
        rows = writer.rows(block)
        writer.write(view, block, answer(teacher, BatchDataset(data.train), view, rows))
    writer.finish()
    return CachedTeacher(SoftLabelStore(folder, recipe))


def with_unlabelled(data: Data, rows: Split, teacher: Teacher) -> Data:
    """Add rows without labels to those that learn; the teacher's class stands for the label."""
    told = answer(teacher, BatchDataset(rows), 0, np.arange(len(rows))).argmax(axis=1)
    train = data.train
    both = Split(
        inputs=np.concatenate([train.inputs, rows.inputs]),
        labels=np.concatenate([train.labels, told]),
        indices=np.concatenate([train.indices, rows.indices]),
    )
    return replace(data, train=both)


def distilled(data: Data, teacher: Teacher, settings: Settings, seed: int) -> nn.Module:
    """Build and train a student on a teacher's soft labels."""
    weights = {"ce": settings.label_weight, "kd": 1 - settings.label_weight}
    losses: dict[str, nn.Module] = {
        "ce": CrossEntropy(weight=weights["ce"]),
        "kd": SoftTargetKL(temperature=settings.temperature, weight=weights["kd"]),
    }
    student = network(data, settings, seed)
    return DistillationModule(student, teacher, losses, **_parts(settings))


def on_labels(data: Data, settings: Settings, seed: int) -> nn.Module:
    """Build the control: the same network from the same weights, on labels alone."""
    return SupervisedModule(network(data, settings, seed), **_parts(settings))


def network(data: Data, settings: Settings, seed: int) -> nn.Module:
    """Build the untrained network."""
    assert isinstance(data.encoder, Encoder)
    lightning.seed_everything(seed, verbose=False)
    factory = partial(MLP, widths=settings.widths, dropout=settings.dropout)
    layout = data.encoder.layout
    return build_table_network(factory, num_classes=len(data.classes), layout=layout)


def train(
    module: Any,
    data: Data,
    settings: Settings,
    folder: Path,
    seed: int,
    callbacks: Sequence[Callback] = (),
) -> dict[str, nn.Module]:
    """Train as `train` does; return the network of the `last` epoch and of the `best`."""
    networks = {epoch: copy.deepcopy(module.student) for epoch in ("last", "best")}
    batches = BatchDataModule(data, batch_size=settings.batch_size, num_views=1, seed=seed)
    trainer = partial(
        lightning.Trainer,
        accelerator="cpu", devices=1, max_epochs=settings.max_epochs, deterministic=True,
    )  # fmt: skip
    fitted = fit(module, batches, trainer, folder, callbacks=callbacks)
    for epoch, network in networks.items():
        network.load_state_dict(getattr(fitted, epoch))
    return {epoch: network.eval() for epoch, network in networks.items()}


def export(network: nn.Module, data: Data, path: Path) -> None:
    """Write a network as it ships: raw columns in, encoding inside."""
    assert isinstance(data.encoder, Encoder)
    export_onnx(network, data.input_shape, path, dtype=torch.float32)
    prepend_encoder(data.encoder, path)


def accuracy(outputs: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Share of rows whose largest output is their class's."""
    return float((outputs.argmax(axis=1) == labels).mean())


def _parts(settings: Settings) -> dict[str, Any]:
    optimizer = partial(torch.optim.AdamW, lr=settings.lr, weight_decay=settings.weight_decay)
    onecycle = torch.optim.lr_scheduler.OneCycleLR
    return {
        "optimizer": optimizer,
        "scheduler": partial(onecycle, max_lr=settings.lr, pct_start=0.2),
    }
