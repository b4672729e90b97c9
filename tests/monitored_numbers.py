"""Models of numbers and of several labels, and logs of what they are asked: as in `monitored`."""

import time
from dataclasses import dataclass

import numpy as np
from monitored import DAY, as_npy, images, say
from registry_runs import ARTEFACT, Run, make_run

from distill.files import sha256, write_arrays, write_json
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.records import TRUTH, Feedback, Prediction, new_id
from distill.production.prediction_log.writer import LogWriter, WriterOptions
from distill.production.reference import input_statistics, output_statistics, reference
from distill.runtime import OnnxModel
from distill.statistics.scoring import Truth, scoring_of
from distill.tasks import TaskKind

NOISE = 20.0  # by which numbers err, whatever they are
FLIPPED = 0.1  # of the labels


@dataclass(frozen=True)
class Asked:
    """What a model was asked lately.

    Attributes:
        times: of its answers, [n].
        answers: [n, K].
        truths: [n, D].
    """

    times: np.ndarray
    answers: np.ndarray
    truths: np.ndarray


def truths_of(kind, rng, answers, worse=0.0):
    """Draw what turns out: numbers off by `NOISE` and more, labels of which some are not so."""
    if kind is TaskKind.REGRESSION:
        return (answers + rng.normal(0, NOISE + worse, answers.shape)).astype(np.float32)
    return ((answers > 0) ^ (rng.random(answers.shape) < FLIPPED + worse)).astype(np.float32)


def make_world(folder, kind, *, outputs=("north", "south"), metric=None):
    """Leave a run of a model of two numbers or labels, and what it must beat."""
    shown = Run(kind=kind, classes=outputs)
    run, rng = make_run(folder, shown), np.random.default_rng(5)
    model, task = OnnxModel(run / "export" / ARTEFACT), shown.task
    scoring = scoring_of(task, metric)
    inputs = images(rng, 1500)
    answers = model.predict(inputs)
    labels = truths_of(kind, rng, answers)
    said = output_statistics(answers, Truth(labels=labels), task, scoring, confidence=0.95)
    own = {ARTEFACT: {"sha256": sha256(run / "export" / ARTEFACT)} | said}
    write_json(run / "reference.json", reference(input_statistics([inputs]), own, labels, task))
    tested = model.predict(images(rng, 1500))
    arrays = {"label": truths_of(kind, rng, tested), "index": np.arange(1500), "student": tested}
    write_arrays(run / "predictions/test_logits.npz", arrays)
    estimate = {"estimate": 30.0 if kind is TaskKind.REGRESSION else 0.6, "interval": [0, 99]}
    scores = {"mean": {scoring.metric: estimate}}
    write_json(run / "baseline.json", {"best": "mean", "baselines": scores})
    return run


def fill(url, run, kind, *, days=28, rows=60, brighter=0.0, worse=None, known=1.0, inputs=True):
    """Write what a model was asked, day by day until now.

    Args:
        url: of the log.
        run: see `make_world`.
        kind: of it.
        days: how many.
        rows: on each.
        brighter: gray levels by which inputs have changed on the last day.
        worse: what is added to its errors by day, from 0 to 1 of the time; None is nothing.
        known: share of the rows of which the truth of all outputs is known; of the rest it is known
            of the first one alone.
        inputs: whether the log keeps them.
    """
    rng, now = np.random.default_rng(6), time.time()
    path = run / "export" / ARTEFACT
    model, artefact = OnnxModel(path), sha256(path)
    engine = open_log(url)
    told, times, given, truths = [], [], [], []
    with LogWriter(engine, WriterOptions(capacity=1_000_000, capacity_bytes=2**30)) as writer:
        for day in range(days):
            at = day / max(days - 1, 1)
            shown = images(rng, rows, brighter=brighter * at)
            answers = model.predict(shown)
            truth = truths_of(kind, rng, answers, worse(at) if worse else 0.0)
            for row in range(rows):
                moment = now - (days - day) * DAY + row / rows * DAY
                own = new_id(moment)
                writer.put(
                    Prediction(
                        id=own, request=own, time=moment, model="pets", version=1,
                        artefact_sha256=artefact, role="champion", latency_ms=1.0,
                        input=as_npy(shown[row]) if inputs else None,
                        output=answers[row].astype("<f4").tobytes(),
                    )
                )  # fmt: skip
                whole = rng.random() < known
                for i in range(truth.shape[1] if whole else 1):
                    name, value = f"{TRUTH}{i}", float(truth[row, i])
                    told.append(Feedback(prediction=own, name=name, value=value))
                if whole:
                    times.append(moment)
                    given.append(answers[row])
                    truths.append(truth[row])
    say(engine, told)
    engine.dispose()
    return Asked(np.array(times), np.array(given), np.array(truths))
