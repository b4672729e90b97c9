from functools import partial

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import nn

from distill.errors import UserError
from distill.training import modules
from distill.training.data.loading import BatchDataModule
from distill.training.fit import fit, forget_other_recipe, load_weights
from distill.training.losses.logits import CrossEntropy, SoftTargetKL
from distill.training.losses.terms import FeatureTerm
from distill.training.models import ImageClassifier, PlainCNN
from distill.training.modules import DistillationModule
from distill.training.teachers.live import TorchTeacher


class KilledError(Exception):
    """What stands for SIGKILL."""


class KillAt(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == self.epoch and batch_idx == 2:
            raise KilledError


class Connected(FeatureTerm):
    """A loss with a connector of its own, drawn at random."""

    def connect(self, student_shapes, teacher_shapes):
        self.connector = nn.Linear(student_shapes[0][1], teacher_shapes[0][1])

    def forward(self, student_features, teacher_features):
        return (self.connector(student_features[0]) - teacher_features[0]).square().mean()


def network(seed, dropout, widths=(4, 8)):
    torch.manual_seed(seed)
    return ImageClassifier(PlainCNN(10, 1, widths=widths, dropout=dropout), [0.3], [0.4])


def trained(data, folder, callbacks=(), epochs=4):
    lightning.seed_everything(3, verbose=False)
    teacher = TorchTeacher(network(1, 0.5, widths=(4, 12)))
    losses = {
        "ce": CrossEntropy(weight=0.1),
        "kd": SoftTargetKL(temperature=4.0, weight=0.9, warmup_epochs=1.5),
        "hint": Connected(student_tap="features", teacher_tap="features", weight=0.1),
    }
    module = DistillationModule(
        network(2, 0.5),
        teacher,
        losses,
        partial(torch.optim.AdamW, lr=0.01),
        scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01),
        example=torch.from_numpy(data.train.inputs[:2]),
    )
    trainer = partial(lightning.Trainer, max_epochs=epochs, accelerator="cpu", deterministic=True)
    batches = BatchDataModule(data, batch_size=64)
    return fit(module, batches, trainer, folder, callbacks=list(callbacks))


@pytest.mark.slow
@pytest.mark.parametrize("killed_in", [1, 3])
def test_a_killed_training_with_dropout_ends_bit_identical(data, tmp_path, killed_in):
    whole = trained(data, tmp_path / "whole")
    with pytest.raises(KilledError):
        trained(data, tmp_path / "killed", [KillAt(killed_in)])
    torch.rand(7)  # another process would stand elsewhere in its random numbers
    resumed = trained(data, tmp_path / "killed")
    for name, tensor in whole.last.items():
        assert torch.equal(tensor, resumed.last[name]), name
    assert [e["train/loss"] for e in whole.history] == [e["train/loss"] for e in resumed.history]
    first, second = (load_weights(tmp_path / n / "last.ckpt") for n in ("whole", "killed"))
    for name, tensor in first["state_dict"].items():  # connectors as well
        assert torch.equal(tensor, second["state_dict"][name]), name


def test_the_checkpoint_holds_student_connectors_optimizer_and_random_states(data, tmp_path):
    trained(data, tmp_path, epochs=1)
    state = load_weights(tmp_path / "last.ckpt")
    parts = {name.split(".")[0] for name in state["state_dict"]}
    assert parts == {"student", "losses"}
    assert "losses.hint.connector.weight" in state["state_dict"]
    optimized = state["optimizer_states"][0]["state"]
    assert any(s["exp_avg"].shape == (12, 8) for s in optimized.values())  # the connector
    assert set(state["callbacks"]["RandomStates"]) == {"torch", "cuda", "numpy", "python"}


def worse_every_epoch(module, model, batch, *_):
    module.log("val/selection", -float(module.current_epoch), batch_size=1)
    module.log("val/accuracy", 0.0, batch_size=1)


def test_the_last_epoch_is_kept_where_it_is_not_the_best(data, tmp_path, monkeypatch):
    monkeypatch.setattr(modules, "validate", worse_every_epoch)
    fitted = trained(data, tmp_path, epochs=3)
    assert fitted.best_epoch == 0
    assert len(fitted.history) == 3
    assert not fitted.was_stopped
    assert not torch.equal(
        fitted.best["network.head.1.weight"], fitted.last["network.head.1.weight"]
    )
    assert load_weights(tmp_path / "last.ckpt")["epoch"] == 2
    assert load_weights(tmp_path / "best.ckpt")["epoch"] == 0


def test_a_training_that_was_stopped_trains_no_more_when_it_is_resumed(data, tmp_path, monkeypatch):
    monkeypatch.setattr(modules, "validate", worse_every_epoch)
    stopped, resumed = (
        trained(data, tmp_path, [EarlyStopping("val/selection", mode="max", patience=1)])
        for _ in range(2)  # the second as if the first were killed before anything else was written
    )
    assert len(stopped.history) == len(resumed.history) == 2
    assert stopped.was_stopped
    assert resumed.was_stopped
    assert all(torch.equal(tensor, resumed.last[name]) for name, tensor in stopped.last.items())


def test_the_students_weights_hold_nothing_else(data, tmp_path):
    fitted = trained(data, tmp_path, epochs=1)
    assert set(fitted.last) == set(network(0, 0.5).state_dict())


def test_checkpoints_of_another_recipe_are_forgotten_those_of_the_same_kept(data, tmp_path):
    forget_other_recipe(tmp_path, "first")
    trained(data, tmp_path, epochs=1)
    forget_other_recipe(tmp_path, "first")
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}
    forget_other_recipe(tmp_path, "second")
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_truncated_checkpoint_is_one_message(data, tmp_path):
    trained(data, tmp_path, epochs=1)
    path = tmp_path / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        trained(data, tmp_path, epochs=2)
