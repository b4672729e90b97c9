"""A model whose world is known, and logs of what it is asked later: for the tests of monitoring."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from feedback_logs import with_embedding
from registry_runs import ARTEFACT, CLASSES, Run, make_run, weights

from distill.audit import place_of
from distill.files import sha256, write_arrays, write_json
from distill.production.prediction_log.connection import open_log, writing
from distill.production.prediction_log.queue import set_audit_share
from distill.production.prediction_log.records import Feedback, Prediction, new_id
from distill.production.prediction_log.rows import row_of
from distill.production.prediction_log.schema import FEEDBACK, insert_new
from distill.production.prediction_log.writer import LogWriter, WriterOptions
from distill.production.reference import (
    EMBEDDINGS,
    embeddings,
    input_statistics,
    output_statistics,
    reference,
)
from distill.production.teacher_answers import TeacherAnswers
from distill.runtime import OnnxModel
from distill.statistics.metrics import log_softmax
from distill.statistics.scoring import Truth, scoring_of
from distill.tasks import classification

ACCURACY, TEACHER_ACCURACY = 0.9, 0.95
DAY, TILT = 86_400.0, 25.0
EMBEDDED = Run(seed=113)  # see `unseen`


def unseen():
    """Find the direction of pixels, [2, 2, 1], that moves no logit of the `EMBEDDED` run.

    Of its weights that direction has a mean of 0 by chance: it does not move brightness either.
    """
    return np.linalg.svd(weights(EMBEDDED).T)[2][-1].reshape(2, 2, 1)


def images(rng, count, *, brighter=0.0, tilt=0.0):
    """Draw inputs, [n, 2, 2, 1], moved by so many gray levels along what is `unseen`."""
    values = rng.normal(120 + brighter, 40, (count, 2, 2, 1)) + tilt * unseen()
    return np.clip(values, 0, 255).astype(np.uint8)


def others(rng, classes, share):
    """Replace a share of classes by others."""
    wrong = rng.random(len(classes)) < share
    return np.where(wrong, (classes + rng.integers(1, 3, len(classes))) % 3, classes)


def sure(classes):
    """Logits of somebody who is sure of classes, [n, 3]."""
    return (np.eye(3)[classes] * 6).astype(np.float32)


def make_world(folder: Path, *, teacher=True, embedding=False, tilt=0.0) -> Path:
    """Leave a run whose model is right on `ACCURACY` of the rows, its teacher on more.

    With `embedding` it gives its flat pixels, and those of the reference rows are kept.
    """
    run = make_run(folder, EMBEDDED if embedding else None)
    rng = np.random.default_rng(5)
    if embedding:
        with_embedding(run / "export" / ARTEFACT, run / "export" / ARTEFACT)
    model = OnnxModel(run / "export" / ARTEFACT)
    shown = images(rng, 1500, tilt=tilt)
    if embedding:
        write_arrays(run / EMBEDDINGS, {ARTEFACT: embeddings(model, shown)})
    logits = model.predict(shown)
    labels = others(rng, logits.argmax(axis=1), 1 - ACCURACY)
    task = classification(CLASSES)
    said = output_statistics(logits, Truth(labels=labels), task, scoring_of(task), confidence=0.95)
    own = {ARTEFACT: {"sha256": sha256(run / "export" / ARTEFACT)} | said}
    write_json(run / "reference.json", reference(input_statistics([shown]), own, labels, task))
    tested = model.predict(images(rng, 1500, tilt=tilt))
    truth = others(rng, tested.argmax(axis=1), 1 - ACCURACY)
    arrays = {"label": truth, "index": np.arange(1500), "student": tested}
    if teacher:
        arrays["teacher"] = sure(others(rng, truth, 1 - TEACHER_ACCURACY))
    write_arrays(run / "predictions/test_logits.npz", arrays)
    scores = {"majority": {"accuracy": {"estimate": 0.6, "interval": [0.57, 0.63]}}}
    write_json(run / "baseline.json", {"best": "majority", "baselines": scores})
    return run


def as_npy(image) -> bytes:
    """Write one row as the log keeps it."""
    file = io.BytesIO()
    np.save(file, image)
    return file.getvalue()


def say(engine, feedback):
    """Keep what turned out, all at once."""
    with writing(engine) as connection:
        if feedback:
            insert = insert_new(FEEDBACK, engine.dialect)
            connection.exec_driver_sql(insert, [row_of(one) for one in feedback])


def id_at(moment, share, chance):
    """Make an id that an audit draws where the chance says so: the same rows in every run.

    Of a share that is not known yet, it falls near the chance: all but a few rows are the same.
    """

    def fits(own):
        place = place_of(own)
        return abs(place - chance) < 0.02 if share is None else (place < share) == (chance < share)

    while not fits(own := new_id(moment)):
        pass
    return own


def fill(
    url,
    run,
    *,
    days=28,
    rows=150,
    audit=0.2,
    brighter=0.0,
    tilt=0.0,
    wrong=None,
    inputs=True,
    labels=True,
):
    """Write what a model was asked, day by day until now; return its teacher's answers.

    Args:
        url: of the log.
        run: see `make_world`.
        days: how many.
        rows: on each.
        audit: share of the random slice, all of which have labels.
        brighter: gray levels by which inputs have changed on the last day, from 0 on.
        tilt: of the images, see there; on all days.
        wrong: share of wrong answers by day, from 0 to 1 of the time; None stays as it was.
        inputs: whether the log keeps them.
        labels: whether there are any.
    """
    rng, now = np.random.default_rng(6), time.time()
    by_chance = np.random.default_rng(7)
    path = run / "export" / ARTEFACT
    model, artefact = OnnxModel(path), sha256(path)
    engine = open_log(url)
    if audit is not None:
        set_audit_share(engine, audit)
    said, ids, answers = [], [], []
    with LogWriter(engine, WriterOptions(capacity=1_000_000, capacity_bytes=2**30)) as writer:
        for day in range(days):
            at = day / max(days - 1, 1)
            shown = images(rng, rows, brighter=brighter * at, tilt=tilt)
            logits = model.predict(shown)
            truth = others(rng, logits.argmax(axis=1), wrong(at) if wrong else 1 - ACCURACY)
            answers.append(sure(others(rng, truth, 1 - TEACHER_ACCURACY)))
            chances = np.exp(log_softmax(logits))
            for row in range(rows):
                moment = now - (days - day) * DAY + row / rows * DAY
                own = id_at(moment, audit, by_chance.random())
                writer.put(
                    Prediction(
                        id=own,
                        request=own,
                        time=moment,
                        model="pets",
                        version=1,
                        artefact_sha256=artefact,
                        role="champion",
                        latency_ms=1.0,
                        input=as_npy(shown[row]) if inputs else None,
                        output=logits[row].astype("<f4").tobytes(),
                        label=int(logits[row].argmax()),
                        confidence=float(chances[row].max()),
                    )
                )
                ids.append(own)
                said.append(Feedback(prediction=own, label=int(truth[row]), source="human"))
    say(engine, said if labels else [])
    engine.dispose()
    return TeacherAnswers(
        ids=np.array(ids),
        logits=np.concatenate([np.zeros((0, 3), np.float32), *answers]),
        model_sha256="t",
        classes=CLASSES,
    )


@pytest.fixture(scope="session")
def embedded_world(tmp_path_factory):
    """Likewise, of an artefact with an embedding, whose images are tilted."""
    folder = tmp_path_factory.mktemp("embedded")
    return make_world(folder / "run", embedding=True, tilt=TILT)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A run, see `make_world`."""
    return make_world(tmp_path_factory.mktemp("world") / "run")
