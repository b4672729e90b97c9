"""Models to serve, and services that serve them, each a process of its own that is ended."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import onnx
from common import HERE
from onnx import TensorProto, helper, numpy_helper

SIDE, NUM_CLASSES = 8, 10


def make_model(path: Path, *, seed: int = 0, width: int = 32, breaks: bool = False) -> Path:
    """Write a small network of random weights, [B, 8, 8, 1] uint8 to [B, 10].

    Args:
        path: of the file.
        seed: of the weights.
        width: channels; more take longer.
        breaks: whether it answers NaN wherever the first pixel is 13.
    """
    rng = np.random.default_rng(seed)
    constants = {
        "first": rng.normal(size=(width, 1, 3, 3)).astype(np.float32) / 3,
        "second": rng.normal(size=(2 * width, width, 3, 3)).astype(np.float32) / width,
        "last": rng.normal(size=(2 * width, NUM_CLASSES)).astype(np.float32) / width,
        "thirteen": np.uint8(13),
        "nan": np.float32(np.nan),
        "start": np.array([0, 0, 0]),
        "end": np.array([1, 1, 1]),
        "axes": np.array([1, 2, 3]),
        "flat": np.array([-1, 1]),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first"], ["one"], pads=[1] * 4),
        helper.make_node("Relu", ["one"], ["two"]),
        helper.make_node("Conv", ["two", "second"], ["three"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["three"], ["four"]),
        helper.make_node("GlobalAveragePool", ["four"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "last"], ["answer" if breaks else "logits"]),
    ]
    if breaks:
        nodes += [
            helper.make_node("Slice", ["image", "start", "end", "axes"], ["pixel"]),
            helper.make_node("Reshape", ["pixel", "flat"], ["corner"]),
            helper.make_node("Equal", ["corner", "thirteen"], ["unlucky"]),
            helper.make_node("Where", ["unlucky", "nan", "answer"], ["logits"]),
        ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", NUM_CLASSES])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items() if n in used],
    )
    opsets = [helper.make_opsetid("", 17)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def body(seed: int = 0, corner: int | None = None) -> bytes:
    """Write a request of the Open Inference Protocol, in JSON."""
    image = np.random.default_rng(seed).integers(0, 13, SIDE * SIDE)
    image[0] = image[0] if corner is None else corner
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": [1, SIDE, SIDE, 1],
        "data": image.tolist(),
    }
    return json.dumps({"inputs": [tensor]}).encode()


@dataclass(frozen=True, kw_only=True)
class Running:
    """A service that answers.

    Attributes:
        url: that is asked.
        status: where it says how it is; None of others than ours.
        process: of it.
    """

    url: str
    status: str | None
    process: subprocess.Popen


@contextmanager
def ours(model: Path, *settings: str, log: str = "null") -> Iterator[Running]:
    """Run `serve`."""
    port = free_port()
    command = [sys.executable, "-m", "distill", "serve", f"artefact={model}", "name=subject"]
    command += [f"port={port}", f"log.url={log}", *settings]
    root = f"http://127.0.0.1:{port}"
    with _process(command, f"{root}/v2/health/ready") as process:
        yield Running(
            url=f"{root}/v2/models/subject/infer", status=f"{root}/status", process=process
        )


@contextmanager
def following(model: str, *settings: str) -> Iterator[Running]:
    """Run `serve` on a registry, whose champion it follows."""
    port = free_port()
    command = [sys.executable, "-m", "distill", "serve", f"port={port}", *settings]
    root = f"http://127.0.0.1:{port}"
    with _process(command, f"{root}/v2/health/ready") as process:
        yield Running(
            url=f"{root}/v2/models/{model}/infer", status=f"{root}/status", process=process
        )


@contextmanager
def other(script: str, interpreter: str, model: Path, *more: str) -> Iterator[Running]:
    """Run another service of this folder."""
    port = free_port()
    command = [interpreter, str(HERE / script), str(model), str(port), *more]
    root = f"http://127.0.0.1:{port}"
    with _process(command, f"{root}/health") as process:
        yield Running(url=f"{root}/predict", status=None, process=process)


@contextmanager
def _process(command: Sequence[str], ready: str) -> Iterator[subprocess.Popen]:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )
        try:
            end = time.monotonic() + 120
            while not _answers(ready):
                if process.poll() is not None or time.monotonic() > end:
                    said.seek(0)
                    raise RuntimeError(f"{command} does not answer: {said.read()!r}")
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            with contextlib.suppress(ProcessLookupError):  # and what it may have left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def read(url: str) -> dict:
    """Read a JSON document."""
    with urlopen(url, timeout=30) as response:
        return json.load(response)


def free_port() -> int:
    """Find one."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def until_ready(where: Running) -> None:
    """Wait for the challenger."""
    assert where.status is not None
    end = time.monotonic() + 60
    while not (read(where.status)["experiment"] or {}).get("is_ready"):
        if time.monotonic() > end:
            raise RuntimeError("the challenger does not start")
        time.sleep(0.1)
