"""The processes behind `distillation_speed`: each does a block of work for every line on stdin."""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from distill.training.models import CifarResNet, build_classifier

BATCH, BLOCK = 128, 8
NETWORKS = {
    "resnet20": {"depth": 20},
    "resnet8x4": {"depth": 8, "widths": (32, 64, 128, 256)},
    "resnet32x4": {"depth": 32, "widths": (32, 64, 128, 256)},
}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


class Pace(Callback):
    """Lets a training go on for a block of batches whenever a line comes in."""

    def __init__(self) -> None:
        self._started = 0.0

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report the block that ends here, and wait for the next.

        A block begins and ends at the start of a batch: it holds as many fetches as steps.
        """
        if batch_idx % BLOCK:
            return
        if batch_idx:
            report(BLOCK * BATCH, time.perf_counter() - self._started)
        if batch_idx + BLOCK < trainer.num_training_batches:
            wait()
        self._started = time.perf_counter()


def wait() -> None:
    """Wait for a line; end with the parent."""
    if not sys.stdin.readline():
        sys.exit(0)


def report(samples: int, seconds: float) -> None:
    """Answer the parent."""
    print(json.dumps({"samples": samples, "seconds": seconds}), flush=True)


def network(name: str) -> nn.Module:
    """Build one of our networks, preprocessing inside."""

    def factory(num_classes: int, in_channels: int) -> nn.Module:
        return CifarResNet(num_classes, in_channels, **NETWORKS[name])

    torch.manual_seed(0)
    return build_classifier(factory, num_classes=10, image_shape=(32, 32, 3), mean=MEAN, std=STD)


def save_teacher(path: str) -> None:
    """Save a teacher that was never trained."""
    torch.save(network("resnet32x4").state_dict(), path)


def labelling(precision: str, data: str) -> None:
    """Label: views made, teacher asked, as `soft_labels` does it."""
    from distill.training.data.loading import BatchDataset
    from distill.training.data.sources import parquet_images
    from distill.training.hardware import tune_allocator
    from distill.training.labelling import answer
    from distill.training.teachers.live import TorchTeacher
    from distill.training.views import ShiftFlip

    tune_allocator()
    images = parquet_images(root=data, validation_fraction=0.1, seed=0)
    dataset = BatchDataset(images.train, ShiftFlip(padding=4, flip=True))
    teacher = TorchTeacher(network("resnet32x4")).folded()
    rows = torch.arange(4 * BATCH).numpy()
    while True:
        wait()
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            answer(teacher, dataset, 0, rows)
        report(len(rows), time.perf_counter() - start)


def torchdistill(student: str, data: str) -> None:
    """Train with torchdistill's distillation box, by the loop of its examples."""
    box = _box(student, data)
    batches = _endless(box.train_data_loader)
    box.pre_epoch_process(epoch=0)
    while True:
        wait()
        start = time.perf_counter()
        for _ in range(4):
            images, labels, extra = next(batches)
            loss = box.forward_process(images, targets=labels, supp_dict=extra)
            box.post_forward_process(loss=loss)
        report(4 * BATCH, time.perf_counter() - start)


def torchdistill_teacher(student: str, data: str) -> None:
    """Ask the teacher as torchdistill does, the data being ready."""
    box = _box(student, data)
    images, labels, extra = next(_endless(box.train_data_loader))
    while True:
        wait()
        start = time.perf_counter()
        for _ in range(4):
            box.get_teacher_output(images, labels, extra)
        report(4 * BATCH, time.perf_counter() - start)


def _box(student: str, data: str) -> Any:
    import torchdistill.losses.mid_level  # noqa: F401 - registers KDLoss
    from torchdistill.core.distillation import DistillationBox
    from torchvision import transforms

    from distill.training.data.sources import parquet_images

    images = parquet_images(root=data, validation_fraction=0.1, seed=0)
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    # The networks alone: in torchdistill the data set normalises.
    models = [
        network(name).network.to(memory_format=torch.contiguous_format)
        for name in ("resnet32x4", student)
    ]
    loader = {
        "dataset_id": "train",
        "sampler": {"class_or_func": torch.utils.data.RandomSampler},
        "kwargs": {"batch_size": BATCH, "num_workers": 0},
    }
    kd = {
        "key": "KDLoss",
        "kwargs": {
            "student_module_path": "head",
            "student_module_io": "output",
            "teacher_module_path": "head",
            "teacher_module_io": "output",
            "temperature": 4.0,
            "alpha": 0.1,
            "reduction": "batchmean",
        },
    }
    hook = {"forward_proc": "forward_batch_only", "forward_hook": {"output": ["head"]}}
    config = {
        "num_epochs": 1,
        "train_data_loader": loader,
        "val_data_loader": loader,
        "teacher": {**hook, "requires_grad": False},
        "student": {**hook, "requires_grad": True},
        "optimizer": {
            "key": "SGD",
            "kwargs": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}},
        },
    }
    dataset = _Pictures(images.train.inputs, images.train.labels, transform)
    cpu = torch.device("cpu")
    return DistillationBox(models[0], models[1], {"train": dataset}, config, cpu, None, False, 1)


class _Pictures(torch.utils.data.Dataset):
    """Images as torchvision's CIFAR10 gives them: a PIL image a sample."""

    def __init__(self, images: Any, labels: Any, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from (batch for batch in loader if len(batch[1]) == BATCH)


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    globals()[name](*arguments)
