"""Small models, and a bundle of them, for tests of targets."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from distill.budget import Budget
from distill.deployment.measurement import Effort, Measurement
from distill.deployment.portable import Portable
from distill.deployment.targets.carried import CarriedTarget

MEASUREMENT = Measurement(
    confidence=0.95,
    effort=Effort(processes=2, rounds=3, cold_starts=1, warm_up_seconds=0, max_seconds=5),
)


def run_by_hand(folder, python=sys.executable):
    """Run the bundle from elsewhere, with a PYTHONPATH that must not get in the way."""
    return subprocess.run(
        ["sh", folder / "run.sh"],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHON": str(python), "PYTHONPATH": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )


def make_model(path, seed):
    weights = np.random.default_rng(seed).standard_normal((8, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weights"], ["logits"])],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.fixture
def artefacts(tmp_path):
    return [make_model(tmp_path / name, seed) for seed, name in enumerate(("a.onnx", "b.onnx"))]


@pytest.fixture
def inputs(rng):
    return rng.standard_normal((16, 8)).astype(np.float32)


@pytest.fixture
def written(tmp_path, artefacts, inputs):
    folder = tmp_path / "bundle"
    Portable().write(folder, artefacts, inputs, MEASUREMENT, Budget(size_bytes=1000))
    return folder


def carried(results):
    return CarriedTarget(name="board", results=str(results))
