"""The small parts beside the networks: making a batch, Lightning's loop, opening a store."""

import time
from functools import partial
from pathlib import Path

import lightning
import numpy as np
import torch
from common import check, spread
from distillation_workers import BATCH, network
from torch.utils.flop_counter import FlopCounterMode

from distill.tasks import classification
from distill.training.data.images import ImageData
from distill.training.data.loading import BatchDataModule
from distill.training.data.splits import Split
from distill.training.fit import History, RandomStates
from distill.training.hardware import TunedProcess, tune_allocator
from distill.training.losses.logits import CrossEntropy, SoftTargetKL
from distill.training.models import ImageClassifier, PlainCNN
from distill.training.modules import DistillationModule
from distill.training.soft_label_writer import StoreWriter
from distill.training.soft_labels import Recipe, SoftLabelStore
from distill.training.teachers.cached import CachedTeacher
from distill.training.views import ShiftFlip

NUM_CLASSES = 10


def rows(work: Path, num_rounds: int = 15) -> tuple[list[dict], list[dict]]:
    """Measure all parts; a resnet20 step is what they are held against."""
    tune_allocator()
    data = _data(100 * BATCH)
    batches = BatchDataModule(data, batch_size=BATCH, views=ShiftFlip(padding=4, flip=True))
    store = _store(work / "small", data)
    step, batch_s = _step(batches, num_rounds), _batch(batches, num_rounds)
    overhead = _loop(data, store, num_rounds)
    opening = _opening(work / "large")
    share = batch_s["median"] / step["median"]
    found = [
        {"subject": "resnet20 step, bfloat16, ms", **_milliseconds(step)},
        _limit(step["median"]),
        {"subject": "batch of 128, crop and flip, ms", **_milliseconds(batch_s)},
        *overhead,
        opening,
    ]
    over = overhead[-1]["median"] / (1000 * step["median"])
    checks = [
        check("batch assembly over a resnet20 step", share, 0.02, at_most=True),
        check("Lightning's loop over a resnet20 step", over, 0.01, at_most=True),
        check("opening a store of 1 GB, s", opening["median"], 1.0, at_most=True),
        check("store bytes a sample and view", opening["bytes"], opening["limit"], at_most=True),
    ]
    return found, checks


def _data(num_samples: int) -> ImageData:
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        return Split(
            inputs=rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
            labels=rng.integers(0, NUM_CLASSES, count),
            indices=np.arange(count),
        )

    classes = tuple(map(str, range(NUM_CLASSES)))
    return ImageData(
        name="noise",
        task=classification(classes),
        train=split(num_samples),
        validation=split(64),
        test=split(64),
    )


def _store(folder: Path, data: ImageData, num_classes: int = NUM_CLASSES) -> SoftLabelStore:
    recipe = Recipe(
        teacher="noise",
        data="noise",
        classes=tuple(map(str, range(num_classes))),
        views={},
        views_version=1,
        num_samples=len(data.train),
        top_k=None,
        precision="float32",
    )
    writer = StoreWriter(folder, recipe, data.train.indices, 1)
    writer.prepare()
    rng = np.random.default_rng(0)
    for view, block in writer.missing_blocks():
        size = (len(writer.rows(block)), num_classes)
        writer.write(view, block, rng.normal(size=size).astype(np.float32))
    writer.finish()
    return SoftLabelStore(folder, recipe)


def _step(batches: BatchDataModule, num_rounds: int) -> dict:
    """Time forward, backward and update alone."""
    model = network("resnet20").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batch = next(iter(batches.train_dataloader()))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(batch["input"]), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return _timed(step, num_rounds)


def _limit(step_s: float, size: int = 2048) -> dict:
    """Hold a step's arithmetic against the fastest this machine does: a large matrix product."""
    model, images = network("resnet20").train(), torch.zeros(BATCH, 32, 32, 3, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    matrix = torch.rand(size, size, dtype=torch.bfloat16)
    fastest = min(_timed(lambda: matrix @ matrix, 9)["range"])
    peak = 2 * size**3 / fastest
    reached = counter.get_total_flops() / step_s
    return {
        "subject": "resnet20 step, share of the arithmetic a matrix product reaches",
        "step_gflops": reached / 1e9,
        "matrix_product_gflops": peak / 1e9,
        "share": reached / peak,
    }


def _batch(batches: BatchDataModule, num_rounds: int) -> dict:
    """Time what the loader does for one batch."""
    waiting = iter(batches.train_dataloader())
    return _timed(lambda: next(waiting), num_rounds)


def _timed(work: object, num_rounds: int) -> dict:
    seconds = []
    for _ in range(num_rounds + 3):
        start = time.perf_counter()
        work()  # type: ignore[operator]
        seconds.append(time.perf_counter() - start)
    return spread(seconds[3:])


def _milliseconds(seconds: dict) -> dict:
    return {
        "median": 1000 * seconds["median"],
        "interval": [1000 * value for value in seconds["interval"] or []] or None,
        "range": [1000 * value for value in seconds["range"]],
        "num_rounds": seconds["num_rounds"],
    }


def _loop(data: ImageData, store: SoftLabelStore, num_rounds: int) -> list[dict]:
    """Time an epoch of a tiny network by Lightning and by a bare loop, in turn.

    The overhead of a step is the difference, whatever the network.
    """
    seconds: dict[str, list[float]] = {"bare": [], "lightning": []}
    for _ in range(num_rounds):
        seconds["bare"].append(_bare(*_distillation(data, store)))
        seconds["lightning"].append(_lightning(*_distillation(data, store)))
    rows = [
        {"subject": f"{name} loop, ms a step", **_milliseconds(spread(values))}
        for name, values in seconds.items()
    ]
    over = [a - b for a, b in zip(seconds["lightning"], seconds["bare"], strict=True)]
    rows.append({"subject": "Lightning's loop beyond it, ms a step", **_milliseconds(spread(over))})
    return rows


def _distillation(
    data: ImageData, store: SoftLabelStore
) -> tuple[DistillationModule, BatchDataModule]:
    torch.manual_seed(0)
    student = ImageClassifier(PlainCNN(NUM_CLASSES, 3, widths=(2,)), [0.5] * 3, [0.25] * 3)
    losses = {"ce": CrossEntropy(weight=0.1), "kd": SoftTargetKL(temperature=4.0, weight=0.9)}
    sgd = partial(torch.optim.SGD, lr=0.01)
    module = DistillationModule(student, CachedTeacher(store), losses, sgd)
    return module, BatchDataModule(data, batch_size=BATCH, num_views=1)


def _bare(module: DistillationModule, batches: BatchDataModule) -> float:
    optimizer = torch.optim.SGD(module.student.parameters(), lr=0.01)
    start, steps = time.perf_counter(), 0
    for batch in batches.train_dataloader():
        terms = module.terms(batch, epoch=0)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        steps += 1
    return (time.perf_counter() - start) / steps


class _Clock(lightning.Callback):
    def __init__(self) -> None:
        self.seconds, self._start = 0.0, 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: object) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: object) -> None:
        self.seconds = time.perf_counter() - self._start


def _lightning(module: DistillationModule, batches: BatchDataModule) -> float:
    clock = _Clock()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[TunedProcess(), RandomStates(), History(), clock],
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, batches)
    return clock.seconds / len(batches.train_dataloader())


def _opening(folder: Path) -> dict:
    """Time opening a store of 1 GB, every byte hashed, from a warm cache."""
    num_classes = 1000
    data = _data(1)
    rows = 500_000
    indices = np.arange(rows)
    split = Split(
        inputs=np.zeros((rows, 1, 1, 1), np.uint8), labels=np.zeros(rows, np.int64), indices=indices
    )
    large = ImageData(
        name="large", task=data.task, train=split, validation=data.validation, test=data.test
    )
    store = _store(folder, large, num_classes)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        SoftLabelStore(folder)
        seconds.append(time.perf_counter() - start)
    return {
        "subject": "opening a store of 1 GB, s",
        "size_bytes": store.size_bytes,
        "bytes": store.size_bytes / (rows * store.num_views),
        "limit": 2 * num_classes + 64,
        **spread(seconds),
    }
