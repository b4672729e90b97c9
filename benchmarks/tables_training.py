"""What the product does with a table, without its run folder: data in, exported student out."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from distill.deployment.export import export_onnx
from distill.deployment.table_graph import in_units, prepend_encoder
from distill.tables.encoding import Encoder
from distill.training.data.folds import draw_folds, rows_without
from distill.training.data.loading import BatchDataModule, BatchDataset
from distill.training.data.splits import Data, Split, joined, labelled_by
from distill.training.fit import fit
from distill.training.labelling import answer
from distill.training.losses.logits import CrossEntropy, SoftTargetKL
from distill.training.losses.regression import HuberToLabel, HuberToTeacher
from distill.training.modules import DistillationModule, SupervisedModule
from distill.training.soft_label_writer import StoreWriter
from distill.training.soft_labels import Recipe, SoftLabelStore
from distill.training.table_models import MLP, build_table_network
from distill.training.teachers.base import Teacher
from distill.training.teachers.cached import CachedTeacher
from distill.training.teachers.estimator import SklearnTeacher, fit_estimator
from distill.training.teachers.out_of_fold import OutOfFoldTeacher

TEACHER_FOLDS = 5
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it lists hardware


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How student and control are trained, in the terms of `conf`."""

    max_epochs: int = 60  # trainer.max_epochs
    batch_size: int = 64
    lr: float = 0.01  # optimizer=adamw, scheduler=onecycle
    weight_decay: float = 0.01
    widths: tuple[int, ...] = (128, 64)  # student=mlp
    dropout: float = 0.2
    temperature: float = 4.0  # loss.kd; not of numbers
    label_weight: float = 0.9  # loss.ce, or loss.label; that of the loss on the teacher is the rest


def out_of_fold_teacher(data: Data, estimator: Any) -> OutOfFoldTeacher:
    """Fit an estimator on all training rows, and once without each of 5 folds of them."""
    train, kind = data.train, data.task.kind

    def fitted(rows: Any) -> Teacher:
        of_rows = fit_estimator(estimator, train.inputs[rows], train.learnt[rows], kind)
        return SklearnTeacher(of_rows, data.task.outputs, kind)

    fold = draw_folds(train, TEACHER_FOLDS)
    members = [fitted(rows_without(train, fold, number)) for number in range(TEACHER_FOLDS)]
    return OutOfFoldTeacher(fitted(slice(None)), members, train.indices, fold)


def stored(teacher: Teacher, data: Data, folder: Path) -> CachedTeacher:
    """Ask a teacher about every row that the student learns from, and keep what it says."""
    taught = data.taught
    recipe = Recipe(
        teacher="of this fold", data="of this fold", classes=data.classes, views={},
        views_version=1, num_samples=len(taught), top_k=None, precision="float32",
    )  # fmt: skip
    writer = StoreWriter(folder, recipe, taught.indices, 1)
    writer.prepare()
    for view, block in writer.missing_blocks():
        rows = writer.rows(block)
        writer.write(view, block, answer(teacher, BatchDataset(taught), view, rows))
    writer.finish()
    return CachedTeacher(SoftLabelStore(folder, recipe))


def distilled(
    data: Data, teacher: Teacher, settings: Settings, folder: Path, seed: int
) -> dict[str, nn.Module]:
    """Train a student on a teacher's soft labels and, by their weight, on the labels."""
    share = settings.label_weight
    losses: dict[str, nn.Module] = {
        "ce": CrossEntropy(weight=share),
        "kd": SoftTargetKL(temperature=settings.temperature, weight=1 - share),
    }
    if data.is_numeric:
        losses = {
            "label": HuberToLabel(delta=None, weight=share),
            "teacher": HuberToTeacher(delta=None, weight=1 - share),
        }
    student = network(data, settings, seed)
    module = DistillationModule(student, teacher, losses, **_parts(data, settings))
    taught = None
    if data.unlabelled is not None:
        rows = np.arange(len(data.unlabelled))
        told = answer(teacher, BatchDataset(data.unlabelled), 0, rows)
        taught = joined(data.train, labelled_by(data.unlabelled, told, data.task))
    return train(module, data, settings, folder, seed, taught=taught)


def on_labels(
    data: Data, settings: Settings, folder: Path, seed: int, callbacks: Sequence[Callback] = ()
) -> dict[str, nn.Module]:
    """Train the control: the same network from the same weights, on labels alone."""
    module = SupervisedModule(network(data, settings, seed), **_parts(data, settings))
    return train(module, data, settings, folder, seed, callbacks=callbacks)


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
    *,
    callbacks: Sequence[Callback] = (),
    taught: Split | None = None,
) -> dict[str, nn.Module]:
    """Train as the verb does; return the network of the `last` epoch and of the `best`."""
    networks = {epoch: copy.deepcopy(module.student) for epoch in ("last", "best")}
    size = settings.batch_size
    batches = BatchDataModule(data, batch_size=size, num_views=1, seed=seed, taught=taught)
    trainer = partial(
        lightning.Trainer,
        accelerator="cpu", devices=1, max_epochs=settings.max_epochs, deterministic=True,
    )  # fmt: skip
    fitted = fit(module, batches, trainer, folder, callbacks=callbacks)
    for epoch, network in networks.items():
        network.load_state_dict(getattr(fitted, epoch))
    return {epoch: network.eval() for epoch, network in networks.items()}


def export(network: nn.Module, data: Data, path: Path) -> None:
    """Write a network as it ships: raw columns in, encoding inside, numbers in their own units."""
    assert isinstance(data.encoder, Encoder)
    export_onnx(network, data.input_shape, path, dtype=torch.float32, kind=data.task.kind)
    prepend_encoder(data.encoder, path)
    if data.is_numeric:
        in_units(data.task, path)


def _parts(data: Data, settings: Settings) -> dict[str, Any]:
    onecycle = torch.optim.lr_scheduler.OneCycleLR
    return {
        "kind": data.task.kind,
        "optimizer": partial(torch.optim.AdamW, lr=settings.lr, weight_decay=settings.weight_decay),
        "scheduler": partial(onecycle, max_lr=settings.lr, pct_start=0.2),
    }
