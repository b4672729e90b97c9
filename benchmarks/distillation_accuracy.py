"""What distillation is worth on CIFAR-10: losses, number of stored views, precision; with controls.

Every row is `distill train` with three seeds in a run folder of its own; a row that is done is kept
with the results and not trained again, one that was killed goes on where it stopped. All rows share
one teacher and one soft-label store, of which each uses as many views as it names.
"""

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import mean

import numpy as np
from common import check

from distill.files import read_json, to_json
from distill.statistics.scoring import Classes
from distill.statistics.seed_comparison import compare_over_seeds

STUDENT, TEACHER = "resnet8", "resnet20"
EPOCHS, NUM_SEEDS, NUM_TEST = 10, 3, 10_000
LOSSES = ("kd", "dkd", "dist", "logit_std", "soft_only", "logit_mse", "hard", "jsd", "mlkd")
VIEWS = (4, 1, EPOCHS, 2, 8)
DEFAULT_VIEWS = 4
LOW, HIGH = "bf16-mixed", "32-true"

Row = dict
Job = tuple[str, int, str, str]  # role, views, loss, precision


def jobs() -> dict[str, Job]:
    """Name every row and what is trained for it, the most telling first."""
    # The controls come first: they need no teacher, which is trained beside them.
    named: dict[str, Job] = {
        "control": ("control", 0, "kd", LOW),
        "control, float32": ("control", 0, "kd", HIGH),
    }
    named |= {f"kd, {count} views": ("student", count, "kd", LOW) for count in VIEWS}
    named |= {f"{loss}, 4 views": ("student", DEFAULT_VIEWS, loss, LOW) for loss in LOSSES[:6]}
    named["kd, 4 views, float32"] = ("student", DEFAULT_VIEWS, "kd", HIGH)
    named |= {f"{loss}, 4 views": ("student", DEFAULT_VIEWS, loss, LOW) for loss in LOSSES[6:]}
    return named


def rows(
    cifar10: str,
    work: Path,
    kept: list[Row],
    keep: Callable[[list[Row], list[dict]], None],
    num_jobs: int,
) -> tuple[list[Row], list[dict]]:
    """Train what is still missing, `num_jobs` rows at a time, and compare all rows."""
    found = {row["name"]: row for row in kept}
    missing = {name: job for name, job in jobs().items() if name not in found}
    if missing:
        with ThreadPoolExecutor(num_jobs) as pool:
            teacher = pool.submit(_teacher, cifar10, work, num_jobs)
            futures = [
                pool.submit(_row, cifar10, name, job, work, teacher, num_jobs)
                for name, job in missing.items()
            ]
            for future in as_completed(futures):
                row = future.result()
                found[row["name"]] = row
                keep(*_compared(found))
                print(f"{row['name']}: {row['accuracy_last_mean']:.4f}", file=sys.stderr)
    return _compared(found)


def _compared(found: dict[str, Row]) -> tuple[list[Row], list[dict]]:
    _compare(found)
    return [found[name] for name in jobs() if name in found], _checks(found)


def _teacher(cifar10: str, work: Path, num_jobs: int) -> Path:
    """Train the teacher and store its answers in as many views as any row wants."""
    run_dir = work / "teacher"
    labels = [f"soft_labels.num_views={max(VIEWS)}", f"soft_labels.path={work / 'labels'}"]
    overrides = [f"teacher_training.trainer.precision={LOW}", *labels]
    _distill(cifar10, ["soft_labels"], run_dir, overrides, num_jobs)
    return run_dir / "train" / "teacher" / "best.pt"


def _distill(
    cifar10: str, verb: list[str], run_dir: Path, overrides: list[str], num_jobs: int
) -> None:
    command = [sys.executable, "-m", "distill", *verb, f"run_dir={run_dir}"]
    command += ["experiment=cifar10", f"data.root={cifar10}", f"student={STUDENT}"]
    command += [f"teacher={TEACHER}", *overrides]
    num_threads = max(1, (os.cpu_count() or 1) // num_jobs)
    environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads)}
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "log.txt").open("a") as log:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log, check=True, env=environment)


def _row(
    cifar10: str, name: str, job: Job, work: Path, teacher: Future[Path], num_jobs: int
) -> Row:
    role, num_views, loss, precision = job
    overrides = [
        f"loss={loss}",
        f"trainer.precision={precision}",
        f"trainer.max_epochs={EPOCHS}",
        f"seeds={NUM_SEEDS}",
    ]
    local = []
    if role == "student":
        overrides.append(f"soft_labels.num_views={num_views}")
        local = [
            f"teacher.checkpoint={teacher.result()}",
            f"soft_labels.path={work / 'labels'}",
        ]
    run_dir = work / name.replace(", ", "_").replace(" ", "_")
    _distill(cifar10, ["train", role], run_dir, [*overrides, *local], num_jobs)
    seeds = read_json(run_dir / "train.json")[role]["seeds"]
    row: Row = {"name": name, "overrides": overrides}
    for epoch in ("best", "last"):
        scores = [seed[f"test_at_{epoch}_epoch"] for seed in seeds]
        for figure in ("accuracy", "nll", "nll_scaled", "ece", "ece_scaled"):
            values = [score[figure]["estimate"] for score in scores]
            row[f"{figure}_{epoch}"] = values
            row[f"{figure}_{epoch}_mean"] = mean(values)
    row["seconds"] = [seed["seconds"] for seed in seeds]
    folder = run_dir / "train" / role
    right = [np.load(path)["last"] for path in sorted(folder.rglob("test_marks.npz"))]
    packed = np.packbits(np.stack(right), axis=1).tobytes()
    row["correct_bits"] = base64.b64encode(packed).decode()
    return row


def _right(row: Row) -> np.ndarray:
    """Unpack which test sample each seed's model has right at the last epoch, [seeds, N]."""
    packed = np.frombuffer(base64.b64decode(row["correct_bits"]), np.uint8)
    return np.unpackbits(packed.reshape(NUM_SEEDS, -1), axis=1, count=NUM_TEST).astype(bool)


def _compare(found: dict[str, Row]) -> None:
    """Set every row against its references, at the last epoch, paired by seed and by sample."""

    def minus(name: str, reference: str, field: str) -> None:
        if name != reference and {name, reference} <= set(found):
            ours, theirs = (list(_right(found[own])) for own in (name, reference))
            comparison = compare_over_seeds(Classes(10), ours, theirs)
            found[name][field] = to_json(comparison)

    for name in found:
        minus(name, "control, float32" if "float32" in name else "control", "minus_control")
    for count in VIEWS:
        minus(f"kd, {count} views", f"kd, {EPOCHS} views", "minus_fresh")
    for name in ("control", "kd, 4 views"):
        minus(name, f"{name}, float32", "bfloat16_minus_float32")


def _checks(found: dict[str, Row]) -> list[dict]:
    num_losses = sum(f"{loss}, 4 views" in found for loss in LOSSES)
    checks = [check("losses in the table", num_losses, 6)]
    for name in ("control", "kd, 4 views"):
        compared = found.get(name, {}).get("bfloat16_minus_float32")
        if compared:
            label = f"{name}: bfloat16 minus float32, lower end of the interval"
            checks.append(check(label, compared["sample_interval"][0], -0.01))
    return checks
