"""What `tables_accuracy` is, for numbers: root mean square errors, the smaller the better.

Student and control are trained by a plain loop on the product's data, networks and losses.
"""

import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from common import check
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.base import clone
from sklearn.linear_model import RidgeCV
from tables_folds import NUM_FOLDS, folds, regressor
from tables_statistics import difference, ratio
from tables_training import TEACHER_FOLDS, Settings, network
from torch import Tensor, nn

from distill.training.data.splits import Data
from distill.training.data.tables import Choice, from_table
from distill.training.fit import predict_logits
from distill.training.losses.regression import HuberToLabel, HuberToTeacher
from distill.training.teachers.out_of_fold import draw_folds

SEEDS = range(5)  # settings were chosen on seeds from 100 on
WORSE = 1.03  # times the mixture's error


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A table of numbers.

    Attributes:
        name: of it.
        settings: of student and control; no temperature.
        num_trees: of each forest.
        num_folds: of the 5 of a repetition that are done.
    """

    name: str
    settings: Settings
    num_trees: int = 300
    num_folds: int = NUM_FOLDS


SUBJECTS = (
    Subject(
        name="diabetes", settings=Settings(max_epochs=30, lr=0.003, dropout=0.2, label_weight=0.5)
    ),
    Subject(
        name="friedman1",
        settings=Settings(max_epochs=30, dropout=0.0, label_weight=0.5),
        num_trees=100,
        num_folds=1,
    ),
)


def rows(*, quick: bool, num_jobs: int) -> tuple[list[dict], list[dict]]:
    """Do all folds, `num_jobs` at a time, and judge them."""
    jobs = [
        (subject, seed, number)
        for seed in (SEEDS[:2] if quick else SEEDS)
        for subject in (SUBJECTS[:1] if quick else SUBJECTS)
        for number in range(1 if quick else subject.num_folds)
    ]
    done: dict[str, list[dict]] = {subject.name: [] for subject in SUBJECTS}
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with ProcessPoolExecutor(num_jobs, get_context("spawn")) as pool:
        futures = {pool.submit(_fold, *job): job[0].name for job in jobs}
        for future in as_completed(futures):
            done[futures[future]].append(future.result())
            print(f"{futures[future]}: {future.result()}", file=sys.stderr, flush=True)
    return _judged(done)


def fold_data(name: str, seed: int, number: int) -> Data:
    """Make data of one fold; the noise of Friedman's function has a standard deviation of 1."""
    if name == "diabetes":
        inputs, labels = datasets.load_diabetes(return_X_y=True)
    else:
        inputs, labels = datasets.make_friedman1(20_000, noise=1.0, random_state=0)
    learnt, reported = list(folds(labels, seed))[number]
    columns = {f"x{at}": pa.array(values) for at, values in enumerate(inputs.T)}
    whole = pa.table(columns | {"y": pa.array(labels)})
    order = pa.array(np.concatenate([learnt, reported]))
    choice = Choice(label="y", task="regression", validation_fraction=0.1, seed=seed)
    return from_table(whole.take(order), name, choice, num_first=len(learnt))


def _fold(subject: Subject, seed: int, number: int) -> dict:
    """Fit and judge everything on one fold."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data = fold_data(subject.name, seed, number)
    train, target = data.train, data.train.learnt[:, 0]
    mixture = regressor(seed, subject.num_trees)
    fold = draw_folds(data.train.labels, TEACHER_FOLDS)
    answers = np.empty_like(target)
    for own in range(TEACHER_FOLDS):
        member = clone(mixture).fit(train.inputs[fold != own], target[fold != own])
        answers[fold == own] = member.predict(train.inputs[fold == own])
    inputs = data.test.inputs
    linear = RidgeCV(np.logspace(-3, 3, 13)).fit(train.inputs, target)
    student = _trained(data, answers[:, None], subject.settings, seed)
    control = _trained(data, None, subject.settings, seed)
    found = {
        "ensemble": mixture.fit(train.inputs, target).predict(inputs)[:, None],
        "student": predict_logits(student, inputs),
        "control": predict_logits(control, inputs),
        "linear": linear.predict(inputs)[:, None],
    }
    errors = {
        who: float(np.sqrt(np.mean((data.in_units(told, data.test) - data.test.labels) ** 2)))
        for who, told in found.items()
    }
    return {"seed": seed, "fold": number} | errors


def _trained(
    data: Data, answers: NDArray[np.float32] | None, settings: Settings, seed: int
) -> nn.Module:
    """Train on labels and answers, or on labels alone; the last epoch's network."""
    model = network(data, settings, seed).train()
    share = 1.0 if answers is None else settings.label_weight
    to_label, to_teacher = HuberToLabel(weight=share), HuberToTeacher(weight=1 - share)
    inputs, labels = torch.from_numpy(data.train.inputs), torch.from_numpy(data.train.learnt)
    taught = labels if answers is None else torch.from_numpy(answers)
    num_batches = max(1, round(len(inputs) / settings.batch_size))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=settings.lr,
        total_steps=num_batches * settings.max_epochs,
        pct_start=0.2,
    )

    def loss(rows: Tensor) -> Tensor:
        outputs, label = model(inputs[rows]), labels[rows]
        hard = to_label.weight * to_label(outputs, None, label)
        return hard + to_teacher.weight * to_teacher(outputs, taught[rows], label)

    for epoch in range(settings.max_epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(inputs))
        for rows in np.array_split(order, num_batches):
            optimizer.zero_grad()
            loss(torch.from_numpy(rows)).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _judged(done: dict[str, list[dict]]) -> tuple[list[dict], list[dict]]:
    found, checks = [], []
    for subject in SUBJECTS:
        folds = sorted(done[subject.name], key=lambda fold: (fold["seed"], fold["fold"]))
        if len(folds) < 2:
            continue
        of: dict[str, Any] = {
            who: [fold[who] for fold in folds] for who in folds[0] if who not in ("seed", "fold")
        }
        over = ratio(of["student"], of["ensemble"], NUM_FOLDS)
        found.append(
            {
                "subject": subject.name,
                "settings": asdict(subject.settings),
                "rmse": {who: float(np.mean(values)) for who, values in of.items()},
                "student_over_ensemble": over,
                "student_minus_control": difference(of["student"], of["control"], NUM_FOLDS),
                "student_minus_linear": difference(of["student"], of["linear"], NUM_FOLDS),
                "folds": folds,
            }
        )
        name = f"{subject.name}: student's RMSE over the ensemble's"
        held = check(name, over["estimate"], WORSE, at_most=True)
        checks.append(held | {"interval": over["interval"]})
    return found, checks
