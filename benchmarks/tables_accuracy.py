"""How much of a heavy mixture's accuracy a small network keeps, and what its soft labels are worth.

Repeated stratified 5-fold cross-validation, each seed another repetition. Per fold the mixture,
student, control and linear baseline learn from the same rows; the student is the exported file.
What is done is kept, fold by fold, and not done again.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from common import check
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.model_selection import train_test_split
from tables_folds import NUM_FOLDS, classifier, folds
from tables_statistics import difference, ratio
from tables_training import (
    Settings,
    accuracy,
    distilled,
    export,
    on_labels,
    out_of_fold_teacher,
    stored,
    train,
    with_unlabelled,
)

from distill.files import to_json
from distill.runtime import OnnxModel
from distill.training.baselines.heuristics import LogisticRegressionOnPixels
from distill.training.data.splits import Data, Split
from distill.training.data.tables import Choice, from_table
from distill.training.fit import predict_logits

SEEDS = range(5)  # settings were chosen on seeds from 100 on
VALIDATION = 0.1  # of the rows that are not in the fold
KEPT = 0.99  # of the mixture's accuracy
DEFAULTS = Settings()
CONTROLS = ("control", "control_best_epoch")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A table, and what is made hard about it.

    Attributes:
        table: of scikit-learn.
        settings: of the student.
        control: of the control; None for the student's. Where labels are few or wrong it is given
            those that suit it, or it would lose to its settings.
        wrong: share of the labels that are learnt from, replaced by another class.
        labelled: share of the rows that are learnt from which have a label; the student also
            learns from the others, as the mixture labels them.
    """

    table: str
    settings: Settings = DEFAULTS
    control: Settings | None = None
    wrong: float = 0.0
    labelled: float = 1.0

    @property
    def name(self) -> str:
        """What it is called in the document."""
        parts = [self.table]
        parts += [f"{self.wrong:.0%} of the labels wrong"] if self.wrong else []
        parts += [f"{self.labelled:.0%} of the rows labelled"] if self.labelled < 1 else []
        return ", ".join(parts)

    @property
    def facts(self) -> dict:
        """What its folds depend on, as the document holds it."""
        return to_json(
            {"settings": self.settings, "control_settings": self.control or self.settings}
        )


SUBJECTS = (
    Subject(table="breast_cancer"),
    Subject(table="wine"),
    Subject(table="digits"),
    Subject(
        table="digits",
        labelled=0.1,
        settings=Settings(max_epochs=15, lr=0.003, label_weight=0.5),
        control=Settings(batch_size=16, lr=0.003, dropout=0.4),
    ),
    Subject(
        table="breast_cancer",
        wrong=0.2,
        settings=Settings(max_epochs=8, label_weight=0.1),
        control=Settings(max_epochs=8, lr=0.003, weight_decay=1.0),
    ),
)


def rows(
    work: Path,
    kept: Sequence[dict],
    keep: Callable[[list[dict], list[dict]], None],
    *,
    quick: bool,
    num_jobs: int,
) -> tuple[list[dict], list[dict]]:
    """Do the folds that are missing, `num_jobs` at a time, and judge all of them."""
    done: dict[str, list[dict]] = {subject.name: [] for subject in SUBJECTS}
    for subject in SUBJECTS:
        for row in kept:
            if row["subject"] == subject.name and row.items() >= subject.facts.items():
                done[subject.name] = list(row["folds"])
    jobs = [
        (subject, seed, number)
        for seed in (SEEDS[:1] if quick else SEEDS)
        for subject in SUBJECTS
        for number in range(2 if quick else NUM_FOLDS)
        if all((fold["seed"], fold["fold"]) != (seed, number) for fold in done[subject.name])
    ]
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with ProcessPoolExecutor(num_jobs, get_context("spawn")) as pool:
        futures = {pool.submit(_fold, *job, work, quick): job[0].name for job in jobs}
        for future in as_completed(futures):
            name, fold = futures[future], future.result()
            done[name].append(fold)
            keep(*_judged(done))
            shown = {key: round(value, 4) for key, value in fold.items()}
            print(f"{name}: {shown}", file=sys.stderr, flush=True)
    return _judged(done)


def whole_table(name: str) -> tuple[pa.Table, NDArray[np.int64]]:
    """Load a table of scikit-learn with the names of its classes, and the classes as numbers."""
    loaded: Any = getattr(datasets, f"load_{name}")(as_frame=True)
    whole = pa.Table.from_pandas(loaded.frame, preserve_index=False)
    return whole, np.asarray(loaded.target)


def fold_data(subject: Subject, seed: int, number: int) -> tuple[Data, Split | None]:
    """Make data of one fold, and of its rows without a label, if there are any.

    Wrong labels are wrong in training and validation; those that are reported on are true.
    """
    whole, labels = whole_table(subject.table)
    learnt, reported = list(folds(labels, seed))[number]
    rng = np.random.default_rng((seed, number))
    num_classes = int(labels.max()) + 1
    wrong = learnt[rng.random(len(learnt)) < subject.wrong]
    given = labels.copy()
    given[wrong] = (given[wrong] + rng.integers(1, num_classes, len(wrong))) % num_classes
    unlabelled = learnt[:0]
    if subject.labelled < 1:
        learnt, unlabelled = train_test_split(
            learnt, train_size=subject.labelled, stratify=labels[learnt], random_state=seed
        )
    whole = whole.set_column(whole.num_columns - 1, "target", pa.array(given))
    rows = np.concatenate([learnt, unlabelled, reported])
    choice = Choice(
        label="target", task="classification", validation_fraction=VALIDATION, seed=seed
    )
    data = from_table(whole.take(pa.array(rows)), subject.table, choice, num_first=len(learnt))
    first, rest = np.split(np.arange(len(data.test)), [len(unlabelled)])
    return replace(data, test=data.test.take(rest)), data.test.take(first) if len(first) else None


def _fold(subject: Subject, seed: int, number: int, work: Path, quick: bool) -> dict:
    """Fit and judge everything on one fold; without a word, everybody at the last epoch."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data, unlabelled = fold_data(subject, seed, number)
    settings, own = subject.settings, subject.control or subject.settings
    if quick:
        settings, own = (replace(of, max_epochs=5) for of in (settings, own))
    teacher = out_of_fold_teacher(data, classifier(seed, 20 if quick else 300))
    taught = data if unlabelled is None else with_unlabelled(data, unlabelled, teacher)
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        module = distilled(taught, stored(teacher, taught, folder / "labels"), settings, seed)
        students = train(module, taught, settings, folder / "student", seed)
        controls = train(on_labels(data, own, seed), data, own, folder / "control", seed)
        export(students["last"], data, folder / "model.onnx")
        answers = OnnxModel(folder / "model.onnx").predict(data.test.served)
    inputs = data.test.inputs
    found = {
        "ensemble": teacher.whole.estimator.predict_proba(inputs),
        "student": answers,
        "control": predict_logits(controls["last"], inputs),
        "linear": LogisticRegressionOnPixels().fit(data.train, len(data.classes)).answer(inputs),
        "student_best_epoch": predict_logits(students["best"], inputs),
        "control_best_epoch": predict_logits(controls["best"], inputs),
    }
    right = {who: accuracy(outputs, data.test.labels) for who, outputs in found.items()}
    return {"seed": seed, "fold": number} | right


def _judged(done: dict[str, list[dict]]) -> tuple[list[dict], list[dict]]:
    found, checks = [], []
    for subject in SUBJECTS:
        folds = sorted(done[subject.name], key=lambda fold: (fold["seed"], fold["fold"]))
        if len(folds) < 2:
            continue
        of = {who: [fold[who] for fold in folds] for who in folds[0] if who not in ("seed", "fold")}
        over = ratio(of["student"], of["ensemble"], NUM_FOLDS)
        minus = {
            f"student_minus_{who}": difference(of["student"], of[who], NUM_FOLDS)
            for who in ("control", "control_best_epoch", "linear", "student_best_epoch")
        }
        row = {
            "subject": subject.name,
            **subject.facts,
            "accuracy": {who: float(np.mean(values)) for who, values in of.items()},
            "student_over_ensemble": over,
            **minus,
            "folds": folds,
        }
        found.append(row)
        name = f"{subject.name}: student's accuracy over the ensemble's"
        checks.append(check(name, over["estimate"], KEPT) | {"interval": over["interval"]})
        if subject.labelled < 1:
            # Against the better of the two epochs: early stopping is a remedy of its own.
            ends = [minus[f"student_minus_{who}"]["interval"][0] for who in CONTROLS]
            name = f"{subject.name}: student minus control, lower end of the interval"
            checks.append(check(name, min(ends), 0.0))
    return found, checks
