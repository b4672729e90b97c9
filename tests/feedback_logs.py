"""Logs of a small model with a better teacher, for tests of the feedback loop."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from prediction_logs import prediction, write
from registry_runs import CLASSES, Run, weights
from served import write_onnx

from distill.contract import CLASSES_KEY
from distill.files import sha256, sha256_json
from distill.production.logged_inputs import row_bytes
from distill.production.prediction_log.annotations import answer
from distill.production.prediction_log.connection import open_log
from distill.production.prediction_log.queue import reviewed
from distill.production.prediction_log.records import Annotation
from distill.runtime import OnnxModel

START = 1_790_000_000.0


def pictures(count, seed=0):
    """Images [N, 2, 2, 1] of few gray levels, so that answers are of all confidences."""
    return np.random.default_rng(seed).integers(0, 8, (count, 2, 2, 1), dtype=np.uint8)


def teacher_weights(distance=0.5, seed=3):
    """Like the model's, and a little otherwise."""
    own = weights(Run())
    return own + distance * np.random.default_rng(seed).normal(size=own.shape).astype(np.float32)


def make_teacher(path, matrix=None, classes=CLASSES):
    """Write a linear teacher of images [N, 2, 2, 1]."""
    matrix = teacher_weights() if matrix is None else matrix
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    return write_onnx(
        path,
        nodes,
        [("image", TensorProto.UINT8, ["batch", 2, 2, 1])],
        [("logits", TensorProto.FLOAT, ["batch", matrix.shape[1]])],
        constants={"weights": matrix},
        metadata={CLASSES_KEY: json.dumps(list(classes))},
    )


def answered(artefact, images, **facts):
    """Predictions as `serve` writes them, a second apart."""
    logits = OnnxModel(artefact).predict(images)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    own = sha256(artefact)
    return [
        prediction(
            **{
                "model": "pets",
                "version": None,
                "artefact_sha256": own,
                "input": row_bytes({"image": images}, i, has_rows=True),
                "output": logits[i].astype("<f4").tobytes(),
                "label": int(logits[i].argmax()),
                "confidence": float(probabilities[i].max()),
                "time": START + i,
            }
            | facts
        )
        for i in range(len(images))
    ]


def fill(engine, artefact, images, **facts):
    """Bring predictions into a log; gives them."""
    records = answered(artefact, images, **facts)
    write(engine, *records)
    return records


def with_embedding(path, target):
    """Copy a linear model of pictures with its flat pixels as an `embedding`."""
    model = onnx.load(path)
    flat = helper.make_node("Identity", ["flat"], ["embedding"])
    model.graph.node.append(flat)
    model.graph.output.append(
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 4])
    )
    onnx.save(model, target)
    return target


CLASSES_SHA256 = sha256_json(list(CLASSES))
AUDIT = "looking.audit_share=0.2"


@pytest.fixture
def log(tmp_path):
    engine = open_log(f"sqlite:///{tmp_path}/predictions.db")
    yield engine
    engine.dispose()


@pytest.fixture
def model(pets):
    return pets / "model.onnx"


@pytest.fixture
def loop(cli, pets):
    """Run an action on the pets; gives its document, or its error."""

    def call(action, *overrides, artefact=pets):
        ran = cli("feedback", action, f"artefact={artefact}", *overrides)
        assert "Traceback" not in ran.stderr, ran.stderr
        return ran.document if ran.code == 0 else ran.stderr

    return call


def label_all(engine, truth, who="ann", *, only=None):
    """Answer all open items as the truth has them."""
    count = 0
    for row in list(reviewed(engine, CLASSES_SHA256)):
        if row.item.label is None and (only is None or row.item.split == only):
            own = Annotation(
                prediction=row.item.prediction, annotator=who, label=truth[row.prediction.id]
            )
            answer(engine, own)
            count += 1
    return count


@pytest.fixture
def taught(log, model, tmp_path):
    """A log of 800 predictions, a teacher, and the truth, which is what the teacher says."""
    images = pictures(800)
    records = fill(log, model, images)
    teacher = make_teacher(tmp_path / "teacher.onnx", 0.3 * teacher_weights())
    labels = OnnxModel(teacher).predict(images).argmax(axis=1)
    return records, teacher, {r.id: int(own) for r, own in zip(records, labels, strict=True)}


def annotated(task, *said, **facts):
    """Annotations as Label Studio exports them: (who, choice)."""
    return task | {
        "annotations": [
            {
                "id": i,
                "completed_by": who,
                "result": []
                if choice is None
                else [{"type": "choices", "from_name": "label", "value": {"choices": [choice]}}],
                "was_cancelled": False,
                "lead_time": 2.5,
                "created_at": "2026-11-01T10:00:00.000000Z",
            }
            | facts
            for i, (who, choice) in enumerate(said)
        ]
    }
