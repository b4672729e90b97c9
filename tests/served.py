"""Small models with contracts, and the service around them in a thread; for the tests of it."""

import asyncio
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from registry_runs import make_run

from distill.contract import HASH_KEY, Contract, TableInput, save_contract, write_golden
from distill.production.serving.application import make_application
from distill.production.serving.batcher import Batcher, Batching
from distill.production.serving.catalogue import Catalogue, FileSource
from distill.production.serving.editions import Loading, artefact_at
from distill.production.serving.guard import Limits
from distill.production.serving.listening import Listening, open_socket, url_of
from distill.production.serving.log import MemoryLog
from distill.production.serving.recording import Recorder
from distill.production.serving.server import make_server
from distill.production.serving.service import Service
from distill.production.serving.telemetry import Telemetry
from distill.runtime import OnnxModel
from distill.tables.columns import Column, Kind, make_records
from distill.tasks import Task, TaskKind

COLUMNS = (
    Column(name="age", kind=Kind.NUMBER),
    Column(name="member", kind=Kind.BOOLEAN),
    Column(name="city", kind=Kind.CATEGORY),
    Column(name="since", kind=Kind.DATE),
)
CITIES = {"Bern": 1.0, "Oslo": 2.0}
ROW = {"age": 40, "member": True, "city": "Oslo", "since": "1970-01-02"}


def write_onnx(path, nodes, inputs, outputs, *, constants=None, metadata=None):
    """Write a graph; inputs and outputs as (name, type, shape)."""
    constants = constants or {}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    helper.set_model_props(model, metadata or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def table_task(kind=TaskKind.CLASSIFICATION, quantiles=()):
    """What the table's model is asked for: two outputs, or one number by three quantiles."""
    if quantiles:
        return Task(
            kind=kind, outputs=("price",), mean=(0.0,), scale=(1.0,), quantiles=tuple(quantiles)
        )
    if kind is TaskKind.REGRESSION:
        return Task(kind=kind, outputs=("price", "rent"), mean=(0.0, 0.0), scale=(1.0, 1.0))
    return Task(kind=kind, outputs=("no", "yes"))


def make_table(folder, task=None):
    """Write a model of columns: it answers (sum of encoded columns) times a weight per output.

    Encoded are the age, membership as 0 or 1 with 0 for a gap, the city's number with 0 for one
    that is not known, and days since 1970.
    """
    task = task or table_task()
    width = len(task.answers)
    weights = np.linspace(-0.01, 0.01, width).astype(np.float32)[None]
    nodes = [
        helper.make_node("IsNaN", ["member"], ["gap"]),
        helper.make_node("Where", ["gap", "zero", "member"], ["filled"]),
        helper.make_node(
            "LabelEncoder", ["city"], ["code"], domain="ai.onnx.ml", default_float=0.0,
            keys_strings=list(CITIES), values_floats=list(CITIES.values()),
        ),
        helper.make_node("Cast", ["code"], ["code64"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["since"], ["ms"], to=TensorProto.DOUBLE),
        helper.make_node("Div", ["ms", "day"], ["days"]),
        helper.make_node("Sum", ["age", "filled", "code64", "days"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["sum32"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["sum32", "weights"], ["logits"]),
    ]  # fmt: skip
    types = (TensorProto.DOUBLE, TensorProto.DOUBLE, TensorProto.STRING, TensorProto.INT64)
    given = {
        "inputs": [(c.name, t, ["batch", 1]) for c, t in zip(COLUMNS, types, strict=True)],
        "outputs": [("logits", TensorProto.FLOAT, ["batch", width])],
        "constants": {"zero": np.float64(0), "day": np.float64(86_400_000), "weights": weights},
    }
    path = write_onnx(folder / "model.onnx", nodes, **given)
    rows = make_records(
        {
            "age": np.array([20.0, 30.0, 40.0]),
            "member": np.array([0.0, 1.0, np.nan]),
            "city": np.array(["Bern", "Oslo", ""]),
            "since": np.array([0, 86_400_000, 2 * 86_400_000]),
        }
    )
    answers = OnnxModel(path).predict(rows)
    contract = Contract(
        input=None,
        normalization=None,
        table=TableInput(columns=COLUMNS, categories={"city": list(CITIES)}),
        task=task,
        output="logits",
        classes=task.answers,
        provenance={},
        golden_sha256=write_golden(folder, rows, {"model.onnx": answers}),
    )
    save_contract(contract, folder)
    write_onnx(path, nodes, **given, metadata={HASH_KEY: contract.sha256})
    return folder


EVERY_TYPE = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "BYTES": (TensorProto.STRING, object),
}


def make_echo(path, datatypes=tuple(EVERY_TYPE)):
    """Write a bare model that gives back each of its inputs, [N, 3] of a type each."""
    nodes = [helper.make_node("Identity", [f"in_{t}"], [f"out_{t}"]) for t in datatypes]
    return write_onnx(
        path,
        nodes,
        [(f"in_{t}", EVERY_TYPE[t][0], ["batch", 3]) for t in datatypes],
        [(f"out_{t}", EVERY_TYPE[t][0], ["batch", 3]) for t in datatypes],
    )


def make_service(path, *, log=None, batching=None, **settings):
    """Put a service around a file or folder."""
    telemetry = Telemetry()
    loading = Loading(batching=batching or Batching(), on_batch=telemetry.on_batch)
    catalogue = Catalogue.open(FileSource(artefact=artefact_at(Path(path), "pets")), loading)
    return Service(
        catalogue=catalogue,
        recorder=Recorder(log=log or MemoryLog()),
        telemetry=telemetry,
        **{"deadline_ms": 30_000.0, **settings},
    )


def with_run(service, run, batching=None):
    """Put another function in the place of the model; it is given feeds and returns outputs."""
    catalogue = service.catalogue
    batcher = Batcher(run, batching or Batching(), on_batch=service.telemetry.on_batch)
    catalogue.current = replace(catalogue.current, batcher=batcher)
    catalogue.warm = [catalogue.current]
    return service


@contextmanager
def running(service, limits=None, listening=None, more=lambda application: None):
    """Run a service on a free port; yields a client that knows the address."""
    listening = listening or Listening(port=0)
    bound = open_socket(listening)
    server = make_server(make_application(service, limits or Limits(), more), listening)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
    thread.start()
    try:
        until = time.monotonic() + 60
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        assert server.started
        with httpx.Client(base_url=url_of(bound), timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(60)
        bound.close()
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def pets(tmp_path_factory):
    """An export folder: images [2, 2, 1] to three classes."""
    return make_run(tmp_path_factory.mktemp("pets") / "run") / "export"


@pytest.fixture(scope="session")
def people_table(tmp_path_factory):
    """An export folder: four columns to two classes."""
    return make_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="session")
def echo(tmp_path_factory):
    """A bare file that gives back what it is given, of every type."""
    return make_echo(tmp_path_factory.mktemp("echo") / "echo.onnx")
