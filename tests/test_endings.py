"""Claims about trainings that have no limit, and what may end them."""

from datetime import timedelta
from functools import partial

import lightning
import pytest
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim import SGD, lr_scheduler

from distill.errors import UserError
from distill.training.data.loading import BatchDataModule
from distill.training.endings import check_end, check_schedule
from distill.training.fit import fit
from distill.training.models import ImageClassifier, PlainCNN
from distill.training.modules import SupervisedModule

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


def fitted(data, folder, **options):
    network = ImageClassifier(PlainCNN(10, 1, widths=(4, 8)), [0.3], [0.4])
    module = SupervisedModule(network, partial(SGD, lr=0.05))
    own = partial(lightning.Trainer, accelerator="cpu", **options)
    return fit(module, BatchDataModule(data, batch_size=64), own, folder)


def test_time_that_is_up_within_an_epoch_ends_it_with_its_figures(data, tmp_path):
    limit = {"max_epochs": -1, "max_time": timedelta(milliseconds=1)}
    (epoch,) = fitted(data, tmp_path, **limit).history  # of one batch
    assert {"train/loss", "val/accuracy"} <= set(epoch)
    assert fitted(data, tmp_path, **limit).history == [epoch]  # there is no more time


@pytest.mark.parametrize("limit", [{"max_epochs": 0}, {"max_epochs": -1, "max_steps": 2}])
def test_less_than_an_epoch_by_another_limit_is_one_message(data, tmp_path, limit):
    with pytest.raises(UserError, match="at least one whole epoch but the training ended before"):
        fitted(data, tmp_path, **limit)
