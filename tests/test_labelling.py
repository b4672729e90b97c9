from functools import partial

import lightning
import numpy as np
import pytest
import torch

from distill.errors import UserError
from distill.training import labelling, soft_label_writer
from distill.training.data.loading import BatchDataset
from distill.training.models import ImageClassifier, PlainCNN
from distill.training.soft_label_writer import StoreWriter
from distill.training.soft_labels import Recipe, SoftLabelStore
from distill.training.teachers.cached import CachedTeacher
from distill.training.teachers.live import TorchTeacher
from distill.training.views import ShiftFlip

TRAINER = partial(lightning.Trainer, accelerator="cpu", devices=1)


def make_teacher(seed=0):
    torch.manual_seed(seed)
    model = ImageClassifier(PlainCNN(10, 1, widths=(8, 12), dropout=0.3), [0.3], [0.4])
    for _ in range(3):  # statistics of batch norm that are not those of a new network
        model.train()(torch.randint(0, 17, (64, 8, 8, 1), dtype=torch.uint8))
    return TorchTeacher(model, [str(digit) for digit in range(10)])


@pytest.fixture
def teacher():
    return make_teacher()


@pytest.fixture
def dataset(data, monkeypatch):
    monkeypatch.setattr(soft_label_writer, "BLOCK", 100)
    return BatchDataset(data.train, ShiftFlip(padding=1, flip=True, seed=2))


def recipe(teacher, dataset):
    return Recipe(
        teacher=teacher.fingerprint,
        data="digits",
        classes=tuple(str(digit) for digit in range(10)),
        views={"padding": 1},
        views_version=1,
        num_samples=len(dataset.split),
        top_k=None,
        precision="float32",
    )


def build(folder, teacher, dataset, batch_size=64):
    made = recipe(teacher, dataset)
    writer = StoreWriter(folder, made, dataset.split.indices, 2)
    writer.prepare()
    missing = writer.missing_blocks()
    labelling.label(teacher, dataset, writer, TRAINER, missing=missing, batch_size=batch_size)
    writer.finish()
    return SoftLabelStore(folder, made)


def test_the_store_holds_what_the_live_teacher_says_of_each_view(teacher, dataset, tmp_path):
    store = build(tmp_path, teacher, dataset)
    positions = np.array([0, 917, 333])
    for view in (0, 1):
        batch = dataset[view, positions]
        live = teacher(batch["input"], batch["index"]).logits
        cached = CachedTeacher(store)
        cached.show_view(view)
        stored = cached(batch["input"], batch["index"]).logits
        torch.testing.assert_close(stored, live, rtol=1e-3, atol=1e-3)
        assert stored.dtype == torch.float32


def test_a_build_killed_between_blocks_ends_byte_identical(teacher, dataset, tmp_path, monkeypatch):
    build(tmp_path / "whole", teacher, dataset)
    real, calls = StoreWriter.write, []

    def die(self, view, block, logits):
        if len(calls) == 7:
            raise KeyboardInterrupt
        calls.append((view, block))
        real(self, view, block, logits)

    monkeypatch.setattr(StoreWriter, "write", die)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        build(tmp_path / "killed", teacher, dataset)
    monkeypatch.setattr(StoreWriter, "write", real)
    build(tmp_path / "killed", teacher, dataset)
    whole, killed = (
        {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
        for name in ("whole", "killed")
    )
    assert whole == killed


def test_replay_passes_for_the_teacher_and_refuses_another(teacher, dataset, tmp_path):
    store = build(tmp_path, teacher, dataset)
    assert labelling.check_replay(store, teacher, dataset) < labelling.TOLERANCE["float32"]
    with pytest.raises(UserError, match="teacher or the views have changed"):
        labelling.check_replay(store, make_teacher(1), dataset)
    other = BatchDataset(dataset.split, ShiftFlip(padding=1, flip=True, seed=3))
    with pytest.raises(UserError, match="teacher or the views have changed"):
        labelling.check_replay(store, teacher, other)


def test_a_folded_teacher_answers_the_same_and_stays_frozen(teacher, dataset):
    folded = teacher.folded()
    batch = dataset[0, np.arange(64)]
    exact, quick = (t(batch["input"], batch["index"]).logits for t in (teacher, folded))
    torch.testing.assert_close(quick, exact, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in teacher.modules())
    assert not any(p.requires_grad for p in folded.parameters())
    assert not folded.training


def test_a_model_that_cannot_be_traced_is_asked_as_it_is(dataset):
    class Branching(torch.nn.Module):
        def forward(self, image):
            if image.float().sum() > 0:
                return torch.ones(len(image), 10)
            return torch.zeros(len(image), 10)

    teacher = TorchTeacher(Branching())
    assert teacher.folded() is teacher


def test_bfloat16_is_chosen_only_where_the_answers_agree(teacher, dataset, monkeypatch):
    monkeypatch.setattr(labelling, "has_bfloat16", lambda device: False)
    assert labelling.choose_precision(teacher, dataset) == "float32"
    monkeypatch.setattr(labelling, "has_bfloat16", lambda device: True)
    sure = make_teacher()
    sure.model.network.head[1].weight.data *= 0
    sure.model.network.head[1].bias.data = torch.arange(10.0)
    assert labelling.choose_precision(sure, dataset) == "bfloat16"
    monkeypatch.setattr(labelling, "MIN_AGREEMENT", 1.01)
    assert labelling.choose_precision(sure, dataset) == "float32"


def test_a_teacher_without_answers_for_the_test_set_is_not_asked(teacher, data):
    class TrainingOnly(type(teacher)):
        def on_test(self):
            return None

    assert labelling.ask_test(TrainingOnly(teacher.model), data.test) is None
    found = labelling.ask_test(teacher, data.test)
    with torch.no_grad():
        expected = teacher.model(torch.from_numpy(data.test.inputs))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
