"""What a step costs: the real `train` verb against plain training and against torchdistill.

Every contender is a process of its own that works only when it is told to, one block of steps at
a time, so that all are interleaved in shuffled rounds and each keeps its own memory allocator.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq
from common import HERE, check, spread

TEACHER = "resnet32x4"
STUDENTS = ("resnet20", "resnet8x4")
ROLES, PRECISIONS = ("control", "student"), ("32-true", "bf16-mixed")
BATCH = 128
NUM_TRAIN, NUM_TEST = 12_800, 512


class Contender:
    """A process that runs one block of work for each line it is sent, and answers in seconds."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self.log = name, log
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=environment,
        )
        self.rates: list[float] = []

    def block(self) -> float:
        """Run one block; return its samples per second."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith('{"samples"'):
                answer = json.loads(line)
                return answer["samples"] / answer["seconds"]
        raise SystemExit(f"{self.name} ended: see {self.log}\n{self.log.read_text()[-2000:]}")

    def end(self) -> None:
        """Stop the process."""
        self.process.kill()
        self.process.wait()


def rows(cifar10: str, work: Path, num_rounds: int, peer: bool) -> tuple[list[dict], list[dict]]:
    """Measure every student and the labelling; return rows and checks."""
    data = _small_data(Path(cifar10), work / "data")
    found, checks = [], []
    for student in STUDENTS:
        rates = _interleave(_training(student, data, work, peer), num_rounds)
        found.append({"subject": f"{TEACHER} -> {student}", "samples_per_s": _table(rates)})
        checks += _training_checks(student, rates, found[-1])
    rates = _interleave(_labelling(data, work, peer), num_rounds)
    found.append({"subject": f"labelling with {TEACHER}", "samples_per_s": _table(rates)})
    if peer:
        ratio = _ratio(rates["distill"], rates["torchdistill"])
        found[-1]["labelling over torchdistill"] = ratio
        checks.append(check("labelling over torchdistill's teacher", ratio["median"], 2.5))
        for row in found[:-1]:
            _amortise(row, rates["distill"])
    return found, checks


def _training(student: str, data: Path, work: Path, peer: bool) -> dict[str, list[str]]:
    """Name the contenders and their commands."""
    contenders = {}
    kinds = [(role, precision, False) for precision in PRECISIONS for role in ROLES]
    for role, precision, compiled in [*kinds, ("student", PRECISIONS[1], True)]:
        name = f"{role} {precision}{', compiled' * compiled}"
        run_dir = work / f"{student} {name}".replace(", ", " ").replace(" ", "_")
        shutil.rmtree(run_dir / "train" / role, ignore_errors=True)
        contenders[name] = [
            *_train(role, data, work, student),
            f"run_dir={run_dir}",
            f"trainer.precision={precision}",
            f"compile={str(compiled).lower()}",
            "+callbacks.pace._target_=distillation_workers.Pace",
        ]
    if peer:
        worker = str(HERE / "distillation_workers.py")
        contenders["torchdistill"] = [sys.executable, worker, "torchdistill", student, str(data)]
    return contenders


def _train(role: str, data: Path, work: Path, student: str) -> list[str]:
    teacher = work / "teacher.pt"
    if not teacher.exists():  # untrained weights cost the same
        worker = str(HERE / "distillation_workers.py")
        subprocess.run([sys.executable, worker, "save_teacher", str(teacher)], check=True)
    command = [sys.executable, "-m", "distill", "train", role]
    settings = [
        "experiment=cifar10",
        f"data.root={data}",
        f"student={student}",
        f"teacher={TEACHER}",
        f"teacher.checkpoint={teacher}",
        f"soft_labels.path={work / 'labels'}",
        "soft_labels.num_views=1",
        "soft_labels.precision=float32",
        f"batch_size={BATCH}",
        "trainer.max_epochs=1000",
        "scheduler=constant",
        "logger=none",
    ]
    return [*command, *settings]


def _labelling(data: Path, work: Path, peer: bool) -> dict[str, list[str]]:
    worker = [sys.executable, str(HERE / "distillation_workers.py")]
    contenders = {
        "distill": [*worker, "labelling", "bfloat16", str(data)],
        "distill float32": [*worker, "labelling", "float32", str(data)],
    }
    if peer:
        contenders["torchdistill"] = [*worker, "torchdistill_teacher", "resnet20", str(data)]
    return contenders


def _interleave(commands: dict[str, list[str]], num_rounds: int) -> dict[str, list[float]]:
    """Run all contenders in shuffled rounds, after two blocks each to warm up."""
    log = Path(os.environ.get("TMPDIR", "/tmp"))
    contenders = []
    for number, (name, command) in enumerate(commands.items()):
        # One after another: they share a soft-label store, which the first one builds.
        contenders.append(Contender(name, command, log / f"contender_{number}.log"))
        for _ in range(2):
            contenders[-1].block()
    order = random.Random(0)
    try:
        for number in range(num_rounds):
            for contender in order.sample(contenders, len(contenders)):
                contender.rates.append(contender.block())
            shown = ", ".join(f"{c.name} {c.rates[-1]:.0f}" for c in contenders)
            print(f"round {number + 1}: {shown}", file=sys.stderr, flush=True)
    finally:
        for contender in contenders:
            contender.end()
    return {contender.name: contender.rates for contender in contenders}


def _training_checks(student: str, rates: dict[str, list[float]], row: dict) -> list[dict]:
    checks = []
    for precision in PRECISIONS:
        step = _ratio(rates[f"control {precision}"], rates[f"student {precision}"])
        row[f"step from the store over plain step, {precision}"] = step
        name = f"{student}: step from the store over plain step, {precision}"
        checks.append(check(name, step["median"], 1.02, at_most=True))
    compiled = _ratio(rates["student bf16-mixed, compiled"], rates["student bf16-mixed"])
    row["compiled over not, bf16-mixed"] = compiled
    if "torchdistill" in rates:
        limits = {"resnet20": (9, 15), "resnet8x4": (4, 7.5)}[student]
        for precision, limit in zip(PRECISIONS, limits, strict=True):
            times = _ratio(rates[f"student {precision}"], rates["torchdistill"])
            row[f"times torchdistill, {precision}"] = times
            checks.append(
                check(f"{student}: times torchdistill, {precision}", times["median"], limit)
            )
    return checks


def _amortise(row: dict, labelling: list[float], num_views: int = 4) -> None:
    """Add the teacher's time, spread over a schedule of 240 epochs and over one of 12."""
    label = median(labelling)
    peer = row["samples_per_s"]["torchdistill"]["median"]
    own = row["samples_per_s"]["student bf16-mixed"]["median"]
    for num_epochs in (240, 12):
        rate = 1 / (1 / own + num_views / num_epochs / label)
        row[f"times torchdistill, labelling of {num_views} views over {num_epochs} epochs"] = (
            rate / peer
        )


def _ratio(first: list[float], second: list[float]) -> dict:
    return spread([a / b for a, b in zip(first, second, strict=True)])


def _table(rates: dict[str, list[float]]) -> dict:
    return {name: spread(values) for name, values in rates.items()}


def _small_data(root: Path, folder: Path) -> Path:
    """Write the first images of each file, enough for a step not to see the same twice at once."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        pq.write_table(pq.read_table(root / f"{name}.parquet")[:count], folder / f"{name}.parquet")
    return folder
