"""How much of a heavy mixture a small network keeps, and what its soft labels are worth.

Repeated 5-fold cross-validation, each seed another repetition, of classes (accuracy) and of numbers
(RMSE). Per fold the mixture, student, control and linear baseline learn from the same rows; the
student is the exported file. What is done is kept, fold by fold, and not done again.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from common import check
from tables_folds import NUM_FOLDS, classifier, regressor
from tables_statistics import difference, ratio
from tables_subjects import Subject, fold_data
from tables_training import distilled, export, on_labels, out_of_fold_teacher, stored

from distill.runtime import OnnxModel
from distill.statistics.scoring import Truth, scoring_of
from distill.training.baselines.heuristics import LogisticRegressionOnPixels
from distill.training.baselines.numbers import LinearRegression
from distill.training.fit import predict_logits
from distill.training.labelling import ask_test

SEEDS = range(5)  # settings were chosen on seeds from 100 on
KEPT, WORSE = 0.99, 1.03  # of the mixture's accuracy at least, of its error at most
OTHERS = ("control", "control_best_epoch", "linear", "student_best_epoch")

Part = tuple[list[dict], list[dict]]


def rows(
    subjects: Sequence[Subject],
    work: Path,
    kept: Sequence[dict],
    keep: Callable[[list[dict], list[dict]], None],
    *,
    quick: bool,
    num_jobs: int,
) -> Part:
    """Do the folds that are missing, `num_jobs` at a time, and judge all of them."""
    done: dict[str, list[dict]] = {subject.name: [] for subject in subjects}
    for subject in subjects:
        for row in kept:
            if row["subject"] == subject.name and row.items() >= subject.facts.items():
                done[subject.name] = list(row["folds"])
    jobs = [
        (subject, seed, number)
        for seed in (SEEDS[:2] if quick else SEEDS)
        for subject in subjects
        for number in range(1 if quick else subject.num_folds)
        if all((fold["seed"], fold["fold"]) != (seed, number) for fold in done[subject.name])
    ]
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with ProcessPoolExecutor(num_jobs, get_context("spawn")) as pool:
        futures = {pool.submit(_fold, *job, work, quick): job[0].name for job in jobs}
        for future in as_completed(futures):
            name, fold = futures[future], future.result()
            done[name].append(fold)
            keep(*_judged(subjects, done))
            shown = {key: round(value, 4) for key, value in fold.items()}
            print(f"{name}: {shown}", file=sys.stderr, flush=True)
    return _judged(subjects, done)


def _fold(subject: Subject, seed: int, number: int, work: Path, quick: bool) -> dict:
    """Fit and judge everything on one fold; without a word, networks at their last epoch."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data = fold_data(subject, seed, number)
    settings, own = subject.settings, subject.control or subject.settings
    if quick:
        settings, own = (replace(of, max_epochs=5) for of in (settings, own))
    mixture = (regressor if subject.is_numeric else classifier)(
        seed, 20 if quick else subject.num_trees
    )
    teacher = out_of_fold_teacher(data, mixture)
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        soft = stored(teacher, data, folder / "labels")
        students = distilled(data, soft, settings, folder / "student", seed)
        controls = on_labels(data, own, folder / "control", seed)
        export(students["last"], data, folder / "model.onnx")
        answers = OnnxModel(folder / "model.onnx").predict(data.test.served)
    linear = LinearRegression() if subject.is_numeric else LogisticRegressionOnPixels()
    inputs, test = data.test.inputs, data.test
    learnt = {
        "ensemble": ask_test(teacher, test),
        "control": predict_logits(controls["last"], inputs),
        "student_best_epoch": predict_logits(students["best"], inputs),
        "control_best_epoch": predict_logits(controls["best"], inputs),
    }
    found = {who: data.in_units(told, test) for who, told in learnt.items() if told is not None}
    found |= {
        "student": answers,
        "linear": linear.fit(data.train, len(data.classes)).answer(inputs),
    }
    scoring = scoring_of(data.task)
    figures = {
        who: scoring.value(scoring.marks(told, Truth(labels=test.labels)))
        for who, told in found.items()
    }
    return {"seed": seed, "fold": number} | figures


def _judged(subjects: Sequence[Subject], done: dict[str, list[dict]]) -> Part:
    found, checks = [], []
    for subject in subjects:
        folds = sorted(done[subject.name], key=lambda fold: (fold["seed"], fold["fold"]))
        if len(folds) < 2:
            continue
        of = {who: [fold[who] for fold in folds] for who in folds[0] if who not in ("seed", "fold")}
        over = ratio(of["student"], of["ensemble"], NUM_FOLDS)
        minus = {
            f"student_minus_{who}": difference(of["student"], of[who], NUM_FOLDS) for who in OTHERS
        }
        metric = "rmse" if subject.is_numeric else "accuracy"
        row = {
            "subject": subject.name,
            **subject.facts,
            metric: {who: float(np.mean(values)) for who, values in of.items()},
            "student_over_ensemble": over,
            **minus,
            "folds": folds,
        }
        found.append(row)
        name = f"{subject.name}: student's {metric} over the ensemble's"
        limit = WORSE if subject.is_numeric else KEPT
        held = check(name, over["estimate"], limit, at_most=subject.is_numeric)
        checks.append(held | {"interval": over["interval"]})
        if subject.labelled < 1:
            # Against both epochs: early stopping is a remedy of its own.
            ends = [minus[f"student_minus_{who}"]["interval"][0] for who in OTHERS[:2]]
            name = f"{subject.name}: student minus control, lower end of the interval"
            checks.append(check(name, min(ends), 0.0))
    return found, checks
