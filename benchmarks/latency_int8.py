"""int8 of a finished export: what `quantize=auto` chose, how fast it is, what it costs on test."""

from pathlib import Path

import numpy as np
from common import check

from distill.deployment.measurement import Effort, Measurement
from distill.deployment.targets.local import LocalTarget
from distill.files import read_json, to_json
from distill.runtime import OnnxModel
from distill.statistics.metrics import compare_paired
from distill.training.data.sources import parquet_images

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def rows(runs: list[Path], root: str) -> tuple[list[dict], list[dict]]:
    """Measure what the export of each run folder, with `quantize=auto`, has left.

    Args:
        runs: run folders of students of CIFAR-10.
        root: folder of the data's train.parquet and test.parquet.
    """
    test = parquet_images(root=root, classes=list(CLASSES), validation_fraction=0.1, seed=0).test
    found, checks = [], []
    for run in runs:
        row, own = _one(run, test.inputs, test.labels)
        found.append(row)
        checks += own
    return found, checks


def _one(run: Path, images: np.ndarray, labels: np.ndarray) -> tuple[dict, list[dict]]:
    quantized, exported = read_json(run / "quantize.json"), read_json(run / "export.json")
    final = exported["quantized"]
    artefact = final["artefact"]
    float32 = run / "export" / "model.onnx"
    row = {
        "subject": f"quantize=auto, {run.name}",
        "outcome": quantized["outcome"],
        "after_repair": final["outcome"]
        if final["checkpoint"] != quantized["checkpoint"]
        else None,
        "why": final["why"],
        "candidates": quantized["candidates"],
    }
    right = OnnxModel(float32).predict(images).argmax(1) == labels
    row["float32_accuracy"] = float(right.mean())
    if artefact is None:  # float32 won, and is what ships
        return row, []
    small = run / "export" / artefact
    effort = Effort(cold_starts=0, processes=9, rounds=100, max_seconds=120.0)
    request = Measurement(confidence=0.95, effort=effort, golden=False)
    report = LocalTarget(name="cpu_1thread").measure([float32, small], images[:64], request)
    ratio = report.artefacts[1].ratio_to_first
    assert ratio is not None
    answers = OnnxModel(small).predict(images).argmax(1) == labels
    drop = compare_paired(right, answers, confidence=0.95)
    row |= {
        "artefact_accuracy": float(answers.mean()),
        "drop": to_json(drop),
        "ratio": to_json(ratio),
        "noise_floor": to_json(report.noise_floor),
        "p50_ms": [to_json(found.p50_latency_ms) for found in report.artefacts],
        "size_bytes": [found.size_bytes for found in report.artefacts],
        "problems": report.problems,
    }
    return row, [
        check(f"{run.name}: auto, time over float32", ratio.interval[1], 1.0, at_most=True),
        check(f"{run.name}: times float32", 1 / ratio.estimate, 1.8),
        check(f"{run.name}: accuracy lost on test", drop.estimate, 0.005, at_most=True),
    ]
