"""Finished runs for the registry without training: a linear model, and answers as asked for.

Left by stages of the same names as a pipeline's, so that their manifests vouch for the files.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from distill.contract import (
    HASH_KEY,
    Contract,
    ImageInput,
    Normalization,
    save_contract,
    write_golden,
)
from distill.files import sha256, write_arrays, write_json, write_text
from distill.production.reference import input_statistics, output_statistics, reference
from distill.production.registry.place import Place
from distill.run_folder import Stage
from distill.runtime import OnnxModel
from distill.statistics.scoring import Truth, scoring_of
from distill.tasks import Task, TaskKind

NUM_TEST = 2000
CLASSES = ("cat", "dog", "owl")
ARTEFACT = "model.onnx"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a made-up run is like.

    Attributes:
        seed: of the model's weights; other weights are other files.
        num_wrong: of its test answers, the first ones; numbers are then 1 too large.
        verdict: of the pipeline.
        kind: of answers.
        classes: names, of labels and numbers too.
        test: name of the test set.
        golden_error: what is added to the answers that the golden samples claim.
        incumbent: artefact's sha256 and how many of its answers, the first ones, are wrong.
    """

    seed: int = 0
    num_wrong: int = 100
    verdict: str = "pass"
    kind: TaskKind = TaskKind.CLASSIFICATION
    classes: tuple[str, ...] = CLASSES
    test: str = "one"
    golden_error: float = 0.0
    incumbent: tuple[str, int] | None = None
    labels: np.ndarray = field(default_factory=lambda: np.arange(NUM_TEST) % 3)

    @property
    def task(self) -> Task:
        """What is asked for."""
        if self.kind is not TaskKind.REGRESSION:
            return Task(kind=self.kind, outputs=self.classes)
        zeros, ones = ((value,) * len(self.classes) for value in (0.0, 1.0))
        return Task(kind=self.kind, outputs=self.classes, mean=zeros, scale=ones)

    @property
    def truth(self) -> np.ndarray:
        """Labels of the test set: numbers are as the classes', in every column."""
        if self.kind is TaskKind.CLASSIFICATION:
            return self.labels
        if self.kind is TaskKind.MULTI_LABEL:
            return np.eye(len(self.classes), dtype=np.float32)[self.labels % len(self.classes)]
        return np.repeat(self.labels[:, None], len(self.classes), axis=1).astype(np.float32)


def place(folder: Path, uri: str | None = None, model: str = "pets") -> Place:
    """A registry in a folder, on a database in it."""
    return Place(
        folder=folder, model=model, tracking_uri=uri or f"sqlite:///{folder.resolve()}/mlflow.db"
    )


def weights(run: Run) -> np.ndarray:
    """Of the linear model, [4, C]."""
    return np.random.default_rng(run.seed).normal(size=(4, len(run.classes))).astype(np.float32)


def write_model(path: Path, run: Run, metadata: dict[str, str] | None = None) -> None:
    """Write uint8 images [B, 2, 2, 1] to logits [B, C] as ONNX."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 2, 2, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(run.classes)])],
        [numpy_helper.from_array(weights(run), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def make_run(folder: Path, run: Run | None = None) -> Path:
    """Leave what a pipeline leaves."""
    run = run or Run()
    export = folder / "export"
    write_model(export / ARTEFACT, run)
    images = np.random.default_rng(9).integers(0, 256, (8, 2, 2, 1), dtype=np.uint8)
    answers = OnnxModel(export / ARTEFACT).predict(images)
    contract = Contract(
        input=ImageInput(name="image", height=2, width=2, channels=1),
        normalization=Normalization(mean=(0.0,), std=(1.0,)),
        task=None if run.kind is TaskKind.CLASSIFICATION else run.task,
        output="logits",
        classes=run.classes,
        provenance={"code": "1234", "quantized_from": None, "data": {"sha256": run.test}},
        golden_sha256=write_golden(export, images, {ARTEFACT: answers + run.golden_error}),
    )
    save_contract(contract, export)
    write_model(export / ARTEFACT, run, {HASH_KEY: contract.sha256})
    stages(folder, run, images, answers)
    return folder


def given(run: Run, num_wrong: int) -> np.ndarray:
    """Answers of which the first ones are wrong, [N], or numbers [N, D]."""
    wrong = np.arange(NUM_TEST) < num_wrong
    if run.kind is TaskKind.MULTI_LABEL:
        return (2 * run.truth - 1) * np.where(wrong, -1, 1)[:, None]
    if run.kind is not TaskKind.CLASSIFICATION:
        return run.truth + wrong[:, None]
    return np.where(wrong, (run.labels + 1) % len(run.classes), run.labels)


def stages(folder: Path, run: Run, images: np.ndarray, answers: np.ndarray) -> None:
    """Run stages named as the pipeline's, so that manifests vouch for their files."""
    write_text(folder / "config.yaml", "name: pets\n")
    (folder / "train/student").mkdir(parents=True)
    (folder / "train/student/best.pt").write_bytes(bytes(weights(run)))
    Stage(name="train/student", outputs=("train/student/best.pt",)).run(folder, dict)
    outputs = tuple(f"export/{name}" for name in (ARTEFACT, "contract.json", "golden.npz"))
    Stage(name="export", outputs=outputs).run(folder, dict)

    def baseline() -> dict:
        predictions = {"majority": np.zeros(NUM_TEST, np.int64)}
        asked = {}
        if run.incumbent:
            predictions["incumbent"] = given(run, run.incumbent[1])
            asked = {"incumbent": {"artefact": "champion", "sha256": run.incumbent[0]}}
        write_arrays(folder / "predictions/baseline.npz", predictions)
        return {"best": "majority", **asked}

    def evaluate() -> dict:
        said = given(run, run.num_wrong)
        if run.kind is TaskKind.CLASSIFICATION:
            said = np.eye(len(run.classes), dtype=np.float32)[said]
        arrays = {"label": run.truth, "index": np.arange(NUM_TEST), "student": said}
        write_arrays(folder / "predictions/test_logits.npz", arrays)
        return {"test_fingerprint": run.test}

    def verdict() -> dict:
        write_text(folder / "report.html", "<p>report")
        write_text(folder / "report.md", "report")
        outcome = {"name": "p95_latency_ms", "artefact": ARTEFACT, "outcome": run.verdict}
        scoring = scoring_of(run.task)
        value = scoring.value(scoring.marks(given(run, run.num_wrong), Truth(labels=run.truth)))
        return {
            "verdict": run.verdict,
            "name": "pets",
            "chosen": {"artefact": ARTEFACT if run.verdict == "pass" else None},
            "artefacts": {ARTEFACT: sha256(folder / "export" / ARTEFACT)},
            "test_fingerprint": run.test,
            "metric": scoring.metric,
            "models": {"student": {"artefact": ARTEFACT, scoring.metric: value}},
            "checks": [outcome],
        }

    def statistics() -> dict:
        task = run.task
        labels = answers.argmax(axis=1) if run.kind is TaskKind.CLASSIFICATION else answers
        labels = answers > 0 if run.kind is TaskKind.MULTI_LABEL else labels
        truth = Truth(labels=labels)
        said = output_statistics(answers, truth, task, scoring_of(task), confidence=0.95)
        return reference(input_statistics([images]), {ARTEFACT: said}, labels, task)

    Stage(name="baseline", outputs=("predictions/baseline.npz",)).run(folder, baseline)
    Stage(name="evaluate", outputs=("predictions/test_logits.npz",)).run(folder, evaluate)
    Stage(name="reference").run(folder, statistics)
    inputs = (folder / "evaluate.json", folder / "baseline.json", folder / "export.json")
    Stage(name="verdict", inputs=inputs, outputs=("report.html", "report.md")).run(folder, verdict)


def rewrite_json(path: Path, **changes: object) -> None:
    """Edit a JSON file by hand."""
    write_json(path, json.loads(path.read_text()) | changes)
