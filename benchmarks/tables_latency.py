"""One row, one answer: the mixture as scikit-learn serves it, beside the student's file.

Contenders are interleaved in fresh processes, pinned to one CPU. The student takes raw columns and
encodes them itself; the mixture is given rows that are encoded already, in scikit-learn and where
it was converted by skl2onnx.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, check, spread
from numpy.typing import NDArray
from tables_folds import classifier
from tables_subjects import Subject, fold_data
from tables_training import distilled, export, out_of_fold_teacher, stored

from distill.deployment.device.latency import Rotation, Scenario, time_rounds, warm_up
from distill.deployment.device.machine import pin
from distill.files import read_json
from distill.runtime import OnnxModel

TABLES = ("breast_cancer", "wine", "digits")
SEED = 100  # of the fold: not one of those that are reported on
NUM_PROCESSES, ROUNDS, CALLS = 7, 20, 10
NUM_ROWS = 36  # in rotation: as many as the smallest test set has
TIMES_FASTER = 50
ENSEMBLE, CONVERTED, STUDENT = "scikit-learn", "skl2onnx", "student"


def rows(work: Path, converter: str | None, *, quick: bool) -> tuple[list[dict], list[dict]]:
    """Time every table's contenders; ratios are taken within each process."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    warnings.simplefilter("ignore")
    found, checks = [], []
    for table in TABLES[1:2] if quick else TABLES:
        with tempfile.TemporaryDirectory(dir=work) as name:
            row = _row(table, Path(name), converter, quick=quick)
        found.append(row)
        over = row["scikit_learn_over_student"]
        limits = check(f"{table}: p95 of the mixture over the student's", over["median"], 50)
        checks.append(limits | {"interval": over["interval"] or over["range"]})
    return found, checks


def _row(table: str, folder: Path, converter: str | None, *, quick: bool) -> dict:
    """Fit, distil, export, convert, and time."""
    subject = Subject(table=table)
    data = fold_data(subject, SEED, 0)
    num_trees = 20 if quick else 300
    teacher = out_of_fold_teacher(data, classifier(SEED, num_trees))
    soft = stored(teacher, data, folder / "labels")
    student = distilled(data, soft, subject.settings, folder / "student", SEED)["last"]
    files = {STUDENT: folder / "model.onnx"}
    export(student, data, files[STUDENT])
    whole = teacher.whole.estimator
    encoded, raw = data.test.inputs[:NUM_ROWS], data.test.records[:NUM_ROWS]
    row: dict[str, Any] = {"subject": table, "num_trees": num_trees, "threads": 1}
    if converter is not None:
        files[CONVERTED] = folder / "converted.onnx"
        row |= _convert(converter, data.train, num_trees, files[CONVERTED])
        theirs = _probabilities(OnnxModel(files[CONVERTED]), encoded)
        row["converted_differs_by"] = float(np.abs(theirs - whole.predict_proba(encoded)).max())
    taken = []
    for seed in range(1 if quick else NUM_PROCESSES):  # a fresh process each
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            taken.append(pool.submit(_time, whole, files, encoded, raw, seed).result())
    for name in taken[0]:
        for level in (50, 95):
            values = [float(np.percentile(process[name], level)) / 1e6 for process in taken]
            row[f"{name}, p{level} ms"] = spread(values)
    for name in (ENSEMBLE, CONVERTED)[: len(files)]:
        p95 = [[np.percentile(process[who], 95) for who in (name, STUDENT)] for process in taken]
        key = f"{name.replace('-', '_')}_over_student"
        row[key] = spread([float(theirs / own) for theirs, own in p95])
    row["size_bytes"] = {name: path.stat().st_size for name, path in files.items()}
    return row


def _time(
    estimator: Any, files: dict[str, Path], encoded: NDArray, raw: NDArray, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Time all contenders in one process, interleaved; nanoseconds of each call."""
    pin(1)
    warnings.simplefilter("ignore")
    student = OnnxModel(files[STUDENT])
    models: dict[str, tuple[Callable, Rotation]] = {
        ENSEMBLE: (estimator.predict_proba, Rotation(encoded, 1, seed)),
        STUDENT: (student, Rotation(raw, 1, seed, student.prepared)),
    }
    if CONVERTED in files:
        converted = OnnxModel(files[CONVERTED])
        models[CONVERTED] = (converted, Rotation(encoded, 1, seed, converted.prepared))
    for model in models.values():
        warm_up(*model)
    taken = time_rounds(models, Scenario(), rounds=ROUNDS, calls=CALLS, max_seconds=60.0, seed=seed)
    return {name: samples.ravel() for name, samples in taken.items()}


def _convert(converter: str, train: Any, num_trees: int, path: Path) -> dict[str, Any]:
    """Have the very same mixture fitted and converted by an interpreter that has skl2onnx."""
    given = path.with_suffix(".npz")
    np.savez(given, inputs=train.inputs, labels=train.labels)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [converter, HERE / "tables_convert.py", given, str(SEED), str(num_trees), path]
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    return {"converted_by": read_json(path.with_suffix(".json"))}


def _probabilities(model: OnnxModel, encoded: NDArray[np.float32]) -> NDArray[np.floating]:
    """Ask for the second output; the first are the classes."""
    return model.session.run(None, model.prepared(encoded))[1]
