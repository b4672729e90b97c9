"""The literature's long recipe, where there is a GPU: resnet32x4 -> resnet8x4 for 240 epochs.

SGD with momentum 0.9, weight decay 5e-4, batch 64, rate 0.05, times 0.1 at epochs 150, 180 and 210
(CRD's repository, 2020, and all that compare with it); reported at the last epoch, on the test set.
"""

import subprocess
import sys
import time
from pathlib import Path

import torch
from common import check

from distill.files import read_json

LOSSES = ("kd", "dkd", "logit_std")
NUM_EPOCHS, NUM_VIEWS = 240, 40


def rows(cifar10: str, work: Path) -> tuple[list[dict], list[dict]]:
    """Train the control and a student for each loss; a run that is done is not run again."""
    if not torch.cuda.is_available():
        raise SystemExit("Expected a GPU for `--only gpu` but torch sees none.")
    found = [_run(cifar10, work, "control", "kd")]
    found += [_run(cifar10, work, "student", loss) for loss in LOSSES]
    control = found[0]["accuracy_last"]
    checks = [
        check(f"{row['name']}: gain over the control", row["accuracy_last"] - control, 0.0)
        for row in found[1:]
    ]
    return found, checks


def _run(cifar10: str, work: Path, role: str, loss: str) -> dict:
    name = "control" if role == "control" else loss
    recipe = [
        "optimizer=sgd",
        "optimizer.lr=0.05",
        "scheduler=multistep",
        "trainer=gpu",
        f"trainer.max_epochs={NUM_EPOCHS}",
    ]
    overrides = [
        "experiment=cifar10",
        f"data.root={cifar10}",
        "student=resnet8x4",
        "teacher=resnet32x4",
        "batch_size=64",
        f"loss={loss}",
        f"soft_labels.num_views={NUM_VIEWS}",
        f"soft_labels.path={work / 'labels'}",
        *recipe,
        "scheduler@teacher_training.scheduler=multistep",
        "trainer@teacher_training.trainer=gpu",
        "teacher_training.optimizer.lr=0.05",
        f"teacher_training.trainer.max_epochs={NUM_EPOCHS}",
    ]
    if role == "student":
        teacher_run = work / "teacher"
        command = [sys.executable, "-m", "distill", "train", "teacher", f"run_dir={teacher_run}"]
        subprocess.run([*command, *overrides], stdout=subprocess.DEVNULL, check=True)
        best = teacher_run / "train" / "teacher" / "last.pt"
        overrides.append(f"teacher.checkpoint={best}")
    start = time.monotonic()
    command = [sys.executable, "-m", "distill", "train", role, f"run_dir={work / name}"]
    subprocess.run([*command, *overrides], stdout=subprocess.DEVNULL, check=True)
    trained = read_json(work / name / "train.json")[role]
    return {
        "name": name,
        "accuracy_last": trained["test_at_last_epoch"]["accuracy"]["estimate"],
        "accuracy_best": trained["test_at_best_epoch"]["accuracy"]["estimate"],
        "nll_last": trained["test_at_last_epoch"]["nll"]["estimate"],
        "training_seconds": trained["seconds"],
        "wall_seconds": time.monotonic() - start,
        "num_samples_per_epoch": 45_000,
        "device": torch.cuda.get_device_name(),
    }
