import lightning
import numpy as np
import pytest
import torch
from torch import nn

from distill.training.data.loading import BatchDataModule
from distill.training.losses.logits import CrossEntropy, SoftTargetKL
from distill.training.models import ImageClassifier, PlainCNN
from distill.training.modules import (
    DistillationModule,
    DivergenceError,
    SupervisedModule,
    make_schedule,
)
from distill.training.teachers.live import TorchTeacher


def classifier(seed, dropout=0.0):
    torch.manual_seed(seed)
    return ImageClassifier(PlainCNN(10, 1, widths=(4, 8), dropout=dropout), [0.3], [0.4])


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05)


def fit(module, data, epochs=1):
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, BatchDataModule(data, batch_size=64))
    return trainer


@pytest.fixture
def distilled(data):
    module = DistillationModule(
        classifier(0),
        TorchTeacher(classifier(1, dropout=0.5)),
        {"ce": CrossEntropy(weight=0.1), "kd": SoftTargetKL(temperature=4.0, weight=0.9)},
        sgd,
    )
    return module, data


def test_the_teacher_stays_frozen_through_fit(distilled):
    module, data = distilled
    teacher = module.teacher
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student_before = {n: t.clone() for n, t in module.student.state_dict().items()}
    trainer = fit(module, data)
    assert not any(part.training for part in teacher.modules())
    for name, tensor in teacher.state_dict().items():  # BatchNorm statistics included
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    optimized = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert not optimized & {id(p) for p in teacher.parameters()}
    moved = [
        n for n, t in module.student.state_dict().items() if not torch.equal(t, student_before[n])
    ]
    assert len(moved) > 5


def test_the_teacher_is_no_part_of_the_module_that_is_wrapped_moved_and_averaged(distilled):
    module, _ = distilled  # DDP, EMA and checkpoints see what `modules()` gives
    parts = {id(part) for part in module.modules()}
    assert not parts & {id(part) for part in module.teacher.modules()}
    wrapped = {id(p) for p in [*module.parameters(), *module.buffers()]}
    held = [*module.teacher.parameters(), *module.teacher.buffers()]
    assert not wrapped & {id(p) for p in held}


def test_the_checkpoint_holds_no_teacher(distilled):
    module, data = distilled
    trainer = fit(module, data)
    state = trainer._checkpoint_connector.dump_checkpoint()["state_dict"]
    assert set(state) == {f"student.{name}" for name in module.student.state_dict()}


def test_a_teacher_answers_the_same_twice_even_when_told_to_train():
    teacher = TorchTeacher(classifier(1, dropout=0.5)).train()
    images = torch.zeros(8, 8, 8, 1, dtype=torch.uint8)
    first, second = (teacher(images, torch.arange(8)).logits for _ in range(2))
    assert torch.equal(first, second)
    assert not teacher.training


def test_the_student_and_the_teacher_see_the_same_view(distilled):
    module, data = distilled
    seen = {}

    def remember(name):
        def hook(_, args):
            seen.setdefault(name, args[0])

        return hook

    module.student.register_forward_pre_hook(remember("student"))
    module.teacher.model.register_forward_pre_hook(remember("teacher"))
    fit(module, data)
    assert torch.equal(seen["student"], seen["teacher"])


def test_a_loss_that_is_no_number_stops_before_the_step(data):
    class Broken(nn.Module):
        def forward(self, student_logits, teacher_logits, label):
            return student_logits.sum() * float("nan")

    module = DistillationModule(classifier(0), TorchTeacher(classifier(1)), {"bad": Broken()}, sgd)
    before = module.student.network.head[1].weight.clone()
    with pytest.raises(DivergenceError, match="finite loss"):
        fit(module, data)
    assert torch.equal(module.student.network.head[1].weight, before)


def test_training_twice_from_one_seed_gives_identical_weights(data):
    def trained():
        module = SupervisedModule(classifier(0), sgd)
        fit(module, data, epochs=2)
        return module.student.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_cycle_is_stepped_each_step_and_multistep_each_epoch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)

    def one_cycle(optimizer, total_steps):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=total_steps)

    schedule = make_schedule(one_cycle, optimizer, total_steps=20)
    assert schedule["interval"] == "step"
    assert schedule["scheduler"].total_steps == 20

    def multistep(optimizer):
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, [2])

    assert make_schedule(multistep, optimizer, total_steps=20)["interval"] == "epoch"


def test_batches_hold_every_sample_once_an_epoch_in_a_new_order(data):
    loader = BatchDataModule(data, batch_size=64, seed=5).train_dataloader()
    orders = []
    for epoch in (0, 1, 0):
        loader.sampler.set_epoch(epoch)
        orders.append(np.concatenate([batch["index"].numpy() for batch in loader]))
    assert set(orders[0]) == set(data.train.indices)
    assert len(orders[0]) == len(data.train)
    assert np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[1])
