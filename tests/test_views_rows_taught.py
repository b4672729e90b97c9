"""Claims about training on augmented rows: labels, stored answers, and what goes with what."""

import re
from functools import partial
from types import SimpleNamespace

import lightning
import numpy as np
import pyarrow as pa
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.ensemble import RandomForestRegressor

from distill.errors import UserError
from distill.tasks import TaskKind
from distill.training import views
from distill.training.data.loading import BatchDataModule, BatchDataset
from distill.training.data.tables import Choice, from_table, with_unlabelled
from distill.training.labelling import answer, check_replay, label
from distill.training.losses.multi_label import binary_cross_entropy
from distill.training.soft_label_writer import StoreWriter
from distill.training.soft_labels import Recipe, SoftLabelStore
from distill.training.teachers.sources import sklearn_teacher
from distill.training.views import (
    Compose,
    MixUpRows,
    NoiseRows,
    SwapColumns,
    bound,
)
from distill.verbs.learning import distilling


def houses(*labels, n=300, **choice):
    rng = np.random.default_rng(1)
    size, town = rng.normal(100, 20, n), rng.choice(["Ulm", "Bonn"], n)
    price = 3 * size + 50 * (town == "Ulm") + rng.normal(0, 20, n)
    whole = pa.table(
        {
            "size": size,
            "town": town,
            "price": price,
            "days": rng.poisson(price / 20),
            "is_dear": price > np.median(price),
            "is_sold": rng.random(n) < 0.3,
            "kind": rng.choice(["hut", "flat", "villa"], n),
        }
    )
    return from_table(
        whole, "houses", Choice(label=list(labels), columns=["size", "town"], **choice)
    )


def mixed_batch(data, mixing, positions):
    dataset = BatchDataset(data.train, None, mixing, num_classes=len(data.classes))
    batch = dataset[2, positions]
    known = bound(mixing, data.train.layout)
    indices = data.train.indices[positions]
    partners = known.partners(indices, 2, len(data.train))
    inputs = data.train.inputs
    rows, shares = known.mix(inputs[positions], inputs[partners], indices, 2)
    np.testing.assert_array_equal(batch["input"].numpy(), rows)
    assert len(np.unique(shares)) > 2
    return batch["label"], partners, shares.astype(float)


@pytest.mark.parametrize("mixing", [MixUpRows(alpha=1), SwapColumns(probability=0.5)])
def test_labels_are_mixed_as_the_task_asks(mixing):
    positions = np.arange(50, 90)
    data = houses("price", "days", task="regression")
    found, partners, shares = mixed_batch(data, mixing, positions)
    labels = data.train.labels.astype(float)
    standard = (labels - labels.mean(axis=0)) / labels.std(axis=0)
    expected = shares[:, None] * standard[positions] + (1 - shares[:, None]) * standard[partners]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)

    data = houses("is_dear", "is_sold")
    assert data.task.kind is TaskKind.MULTI_LABEL
    found, partners, shares = mixed_batch(data, mixing, positions)
    own, other = data.train.labels[positions], data.train.labels[partners]
    np.testing.assert_allclose(found, (shares * own.T + (1 - shares) * other.T).T, atol=1e-6)
    logits = torch.randn(40, 2)
    expected = torch.nn.BCEWithLogitsLoss(reduction="none")(logits, found).sum(dim=1)
    torch.testing.assert_close(binary_cross_entropy(logits, found), expected)

    data = houses("kind")
    found, partners, shares = mixed_batch(data, mixing, positions)
    expected = np.zeros((40, 3))
    for row, (i, j) in enumerate(zip(positions, partners, strict=True)):
        expected[row, data.train.labels[i]] += shares[row]
        expected[row, data.train.labels[j]] += 1 - shares[row]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_validation_rows_are_never_augmented_nor_mixed():
    data = houses("price", task="regression")
    batches = BatchDataModule(data, batch_size=16, views=NoiseRows(), mixing=MixUpRows())
    shown = list(batches.val_dataloader())
    inputs, labels = (torch.cat([batch[part] for batch in shown]) for part in ("input", "label"))
    np.testing.assert_array_equal(inputs, data.validation.inputs)
    np.testing.assert_array_equal(labels, data.validation.learnt)


@pytest.mark.parametrize("folds", [0, 3])
def test_the_store_holds_what_the_teacher_says_of_each_shown_row_and_replays(tmp_path, folds):
    data = houses("price", task="regression")
    forest = RandomForestRegressor(5, random_state=0)
    teacher = sklearn_teacher(data, tmp_path, regressor=forest, folds=folds)
    steps = Compose(steps={"first": NoiseRows(std=0.2), "again": NoiseRows(std=0.1, seed=1)})
    dataset = BatchDataset(data.train, steps, SwapColumns(probability=0.4), num_classes=1)
    recipe = Recipe(
        teacher=teacher.fingerprint,
        data=data.fingerprint,
        classes=data.classes,
        views={},
        views_version=views.VERSION,
        num_samples=len(data.train),
        top_k=None,
        precision="float32",
    )
    writer = StoreWriter(tmp_path / "store", recipe, data.train.indices, 3)
    writer.prepare()
    trainer = partial(lightning.Trainer, accelerator="cpu", devices=1)
    label(teacher, dataset, writer, trainer, missing=writer.missing_blocks(), batch_size=64)
    writer.finish()
    store = SoftLabelStore(tmp_path / "store", recipe)
    positions = np.array([7, 0, 99])
    answers = []
    for view in range(3):
        batch = dataset[view, positions]
        asked = teacher(batch["input"], batch["index"]).logits
        answers.append(store.logits(view, data.train.indices[positions]))
        np.testing.assert_allclose(answers[-1], asked, atol=2e-3)
    assert not np.allclose(answers[0], answers[1], atol=0.01)
    assert check_replay(store, teacher, dataset, of_classes=False) < 1e-3
    for other in (
        BatchDataset(data.train, steps, SwapColumns(probability=0.4, seed=1), num_classes=1),
        BatchDataset(data.train, NoiseRows(std=0.2), SwapColumns(probability=0.4), num_classes=1),
        BatchDataset(data.train),
    ):
        with pytest.raises(UserError, match="teacher or the views have changed"):
            check_replay(store, teacher, other, of_classes=False)


def test_rows_without_labels_get_the_teachers_answer_to_what_they_are(tmp_path, monkeypatch):
    data = houses("price", task="regression")
    more = pa.table({"size": [80.0, 120.0], "town": ["Ulm", "Bonn"]})
    data = with_unlabelled(data, more, 300)
    teacher = sklearn_teacher(data, tmp_path, regressor=RandomForestRegressor(5, random_state=0))
    mixing = {"_target_": "distill.training.views.MixUpRows"}
    cfg = {"views": {"_target_": "distill.training.views.Unchanged"}, "mixing": mixing}
    workspace = SimpleNamespace(
        data=data, cfg=OmegaConf.create(cfg | {"soft_labels": {"path": "store"}})
    )
    monkeypatch.setattr(distilling, "load_teacher", lambda _: teacher)
    monkeypatch.setattr(distilling, "open_store", lambda _: pytest.fail("it is of mixed rows"))
    taught = distilling.taught_rows(workspace)
    expected = answer(teacher, BatchDataset(data.unlabelled), 0, np.arange(2))
    np.testing.assert_allclose(taught.learnt[-2:], expected)
    partners = MixUpRows().partners(taught.indices, 0, len(taught))
    assert partners.max() >= len(data.train)  # they are mixed in, too
    batch = BatchDataset(taught, None, MixUpRows())[0, np.arange(len(taught))]
    assert torch.isfinite(batch["label"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "experiment=table_ensemble", "views=shift"], "rows for a table but ShiftFlip"),
        (["soft_labels", "experiment=table_ensemble", "mixing=mixup"], "a table but MixUp is"),
        (["train", "experiment=digits", "views=noise_rows"], "of images but NoiseRows is of rows"),
        (["train", "experiment=digits", "mixing=swap_columns"], "of images but SwapColumns"),
        (["train", "experiment=series", "mixing=mixup_rows"], "a series but got MixUpRows"),
        (
            ["train", "experiment=table_ensemble", "views=noise_rows", "teacher=predictions",
             "teacher.path=saved.csv"],
            "`views=none mixing=none` for a teacher of saved predictions, or of raw rows",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_before_anything_trains(
    cli, tmp_path, arguments, message
):
    lines = [f"{i},{3 * (i % 2)},{1 - i % 2}" for i in range(569)]  # logits
    (tmp_path / "saved.csv").write_text("\n".join(["index,malignant,benign", *lines]) + "\n")
    ran = cli(*arguments, "run_dir=run")
    assert ran.code in (1, 2)
    assert re.search(message, ran.stderr)
    assert "Traceback" not in ran.stderr
    assert not list((tmp_path / "run").glob("train/**/*.pt"))


@pytest.mark.slow
def test_a_student_of_numbers_learns_from_mixed_rows(cli, tmp_path):
    ran = cli(
        "train", "experiment=table_ensemble", "data.name=diabetes", "views=noise_rows",
        "mixing=mixup_rows", "teacher.regressor.n_estimators=5", "trainer.max_epochs=2",
        "soft_labels.num_views=2", "teacher.folds=2", "run_dir=run",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert "soft labels verified" in ran.stderr + ran.stdout
