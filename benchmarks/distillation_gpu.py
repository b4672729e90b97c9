"""What a GPU does: the cost of a step, and the literature's long recipe.

Seconds of an epoch of resnet8x4: labels alone, from the store, in float32, bfloat16 and compiled.

resnet32x4 -> resnet8x4 for 240 epochs: SGD with momentum 0.9, weight decay 5e-4, batch 64, rate
0.05, times 0.1 at epochs 150, 180 and 210 (CRD's repository, 2020, and all that compare with it);
reported at the last epoch, on the test set.
"""

import subprocess
import sys
from pathlib import Path

import torch
from common import check, spread

from distill.files import read_json

LOSSES = ("kd", "dkd", "logit_std")
NUM_EPOCHS, NUM_VIEWS, NUM_TIMED = 240, 40, 6


def rows(cifar10: str, work: Path) -> tuple[list[dict], list[dict]]:
    """Train whatever is not trained yet; a run that is done is not run again."""
    if not torch.cuda.is_available():
        raise SystemExit("Expected a GPU for `--only gpu` but torch sees none.")
    teacher = work / "teacher"
    _distill(["train", "teacher"], teacher, _recipe(cifar10, work, NUM_EPOCHS))
    checkpoint = f"teacher.checkpoint={teacher / 'train' / 'teacher' / 'last.pt'}"
    found = []
    for precision, compiled in (("32-true", False), ("bf16-mixed", False), ("bf16-mixed", True)):
        found.append(_seconds(cifar10, work, checkpoint, precision, compiled))
    for role, loss in (("control", "kd"), *(("student", loss) for loss in LOSSES)):
        found.append(_long(cifar10, work, checkpoint, role, loss))
    control = found[-len(LOSSES) - 1]["accuracy_last"]
    checks = [
        check(f"GPU, {row['name']}: gain over the control", row["accuracy_last"] - control, 0.0)
        for row in found[-len(LOSSES) :]
    ]
    checks += [
        check(f"GPU, {row['name']}: step from the store", row["ratio"], 1.02, at_most=True)
        for row in found[:3]
    ]
    return found, checks


def _recipe(cifar10: str, work: Path, num_epochs: int) -> list[str]:
    training = ["optimizer.lr=0.05", "optimizer.nesterov=false", f"trainer.max_epochs={num_epochs}"]
    training += ["trainer.precision=bf16-mixed"]
    return [
        "experiment=cifar10",
        f"data.root={cifar10}",
        "student=resnet8x4",
        "teacher=resnet32x4",
        "batch_size=64",
        f"soft_labels.num_views={NUM_VIEWS}",
        f"soft_labels.path={work / 'labels'}",
        "trainer=gpu",
        "scheduler=multistep",
        "scheduler@teacher_training.scheduler=multistep",
        *training,
        *(f"teacher_training.{setting}" for setting in training),
    ]


def _distill(verb: list[str], run_dir: Path, overrides: list[str]) -> None:
    command = [sys.executable, "-m", "distill", *verb, f"run_dir={run_dir}", *overrides]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def _seconds(cifar10: str, work: Path, checkpoint: str, precision: str, compiled: bool) -> dict:
    """Time epochs, the first left out; control and student one after the other."""
    name = f"{precision}{', compiled' * compiled}"
    run_dir = work / name.replace(", ", "_")
    overrides = [*_recipe(cifar10, work, NUM_TIMED), checkpoint]
    overrides += [f"trainer.precision={precision}", f"compile={str(compiled).lower()}"]
    seconds = {}
    for role in ("control", "student"):
        _distill(["train", role], run_dir, overrides)
        history = read_json(run_dir / "train" / role / "history.json")
        seconds[role] = spread([epoch["seconds"] for epoch in history[1:]])
    return {
        "name": name,
        "epoch_seconds": seconds,
        "ratio": seconds["student"]["median"] / seconds["control"]["median"],
        "device": torch.cuda.get_device_name(),
    }


def _long(cifar10: str, work: Path, checkpoint: str, role: str, loss: str) -> dict:
    name = "control" if role == "control" else loss
    overrides = [*_recipe(cifar10, work, NUM_EPOCHS), checkpoint, f"loss={loss}"]
    _distill(["train", role], work / name, overrides)
    trained = read_json(work / name / "train.json")[role]
    return {
        "name": name,
        "accuracy_last": trained["test_at_last_epoch"]["accuracy"]["estimate"],
        "accuracy_best": trained["test_at_best_epoch"]["accuracy"]["estimate"],
        "nll_last": trained["test_at_last_epoch"]["nll"]["estimate"],
        "training_seconds": trained["seconds"],
        "device": torch.cuda.get_device_name(),
    }
