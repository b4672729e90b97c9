"""Claims about trainings that have no limit, and what may end them."""

from datetime import timedelta
from functools import partial

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch.optim import SGD, lr_scheduler

from distill.errors import UserError
from distill.training.data.loading import BatchDataModule
from distill.training.endings import check_end, check_schedule
from distill.training.fit import fit, predict_logits
from distill.training.models import ImageClassifier, PlainCNN
from distill.training.modules import SupervisedModule
from distill.training.progress import EpochBar

STOPPING = EarlyStopping("val/selection")
ONE_CYCLE = partial(lr_scheduler.OneCycleLR, max_lr=0.1)
CONSTANT = partial(lr_scheduler.ConstantLR, factor=1.0)


def cosine(num_epochs):
    return partial(lr_scheduler.CosineAnnealingLR, T_max=num_epochs)


def trainer(**options):
    plain = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    return lightning.Trainer(**plain, **options)


def test_a_training_that_nothing_ends_is_refused():
    with pytest.raises(UserError, match=r"`repair\.trainer\.max_epochs=-1` but there is nothing"):
        check_end(trainer(max_epochs=-1), "repair.")


@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": 3},
        {"max_epochs": -1, "max_steps": 9},
        {"max_epochs": -1, "max_time": "00:00:01:00"},
        {"max_epochs": None, "max_time": "00:00:01:00"},
        {"max_epochs": -1, "callbacks": [STOPPING]},
    ],
)
def test_a_limit_a_timer_or_early_stopping_ends_a_training(options):
    check_end(trainer(**options))


@pytest.mark.parametrize(
    ("scheduler", "options", "found"),
    [
        (ONE_CYCLE, {"max_epochs": -1}, r"got `trainer\.max_epochs=-1`.*`scheduler=constant`"),
        (ONE_CYCLE, {"max_epochs": None, "max_time": "00:00:01:00"}, "Set `trainer.max_epochs`"),
        (cosine(-1), {"max_epochs": -1, "max_steps": 9}, r"got `scheduler\.T_max=-1`"),
        (cosine(None), {"max_epochs": None, "max_steps": 9}, r"got `scheduler\.T_max=None`"),
    ],
)
def test_a_schedule_over_a_length_that_nobody_knows_is_refused(scheduler, options, found):
    with pytest.raises(UserError, match=found):
        check_schedule(scheduler, trainer(**options))


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        (ONE_CYCLE, {"max_epochs": 3}),
        (ONE_CYCLE, {"max_epochs": -1, "max_steps": 9}),
        (CONSTANT, {"max_epochs": -1}),
        (cosine(50), {"max_epochs": -1}),
    ],
)
def test_other_schedules_are_taken(scheduler, options):
    check_schedule(scheduler, trainer(**options))


def fitted(data, folder, callbacks=(), **options):
    network = ImageClassifier(PlainCNN(10, 1, widths=(4, 8)), [0.3], [0.4])
    module = SupervisedModule(network, partial(SGD, lr=0.05))
    own = partial(lightning.Trainer, accelerator="cpu", **options)
    return fit(module, BatchDataModule(data, batch_size=64), own, folder, callbacks=callbacks)


def test_time_that_is_up_within_an_epoch_ends_it_with_its_figures(data, tmp_path):
    limit = {"max_epochs": -1, "max_time": timedelta(milliseconds=1)}
    (epoch,) = fitted(data, tmp_path, **limit).history  # of one batch
    assert {"train/loss", "val/accuracy"} <= set(epoch)
    assert fitted(data, tmp_path, **limit).history == [epoch]  # there is no more time


def test_less_than_an_epoch_by_another_limit_is_one_message(data, tmp_path):
    with pytest.raises(UserError, match="at least one whole epoch but the training ended before"):
        fitted(data, tmp_path, max_epochs=0)


class Watch(Callback):
    """Validates by itself, and keeps every loss."""

    def __init__(self):
        self.losses, self.accuracy = [], None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())

    def on_train_end(self, trainer, pl_module):
        split = trainer.datamodule.data.validation
        found = predict_logits(pl_module.student, split.inputs).argmax(axis=1)
        self.accuracy = float(np.mean(found == split.labels))


@pytest.mark.parametrize(("num_steps", "epochs"), [(2, [2]), (12, [10, 2]), (20, [10, 10])])
def test_steps_that_end_within_an_epoch_end_it_with_its_figures(data, tmp_path, num_steps, epochs):
    watch, limit = Watch(), {"max_epochs": 9, "max_steps": num_steps, "limit_train_batches": 10}
    made = fitted(data, tmp_path, callbacks=[watch], **limit)
    parts = np.split(np.array(watch.losses), np.cumsum(epochs)[:-1])
    assert [len(own) for own in parts] == epochs
    losses = [epoch["train/loss"] for epoch in made.history]
    np.testing.assert_allclose(losses, [own.mean() for own in parts], rtol=1e-5)
    assert made.history[-1]["val/accuracy"] == pytest.approx(watch.accuracy)
    assert not made.was_stopped  # it is the whole of its schedule
    again = fitted(data, tmp_path, **limit)  # as if it were killed after its last epoch
    assert again.history == made.history
    assert all(torch.equal(tensor, again.last[name]) for name, tensor in made.last.items())


@pytest.mark.parametrize(("max_epochs", "shown"), [(-1, "Epoch 3"), (9, "Epoch 3/8")])
def test_a_bar_names_the_last_epoch_where_there_is_one(max_epochs, shown):
    bar = EpochBar()
    bar._trainer = trainer(max_epochs=max_epochs)
    assert bar._get_train_description(3).rstrip() == shown
