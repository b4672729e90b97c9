"""Exports as `export` leaves them, small, and what is written of them for other systems."""

import numpy as np
import onnx
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from serving_schemas import ModelConfig

from distill.contract import (
    HASH_KEY,
    Contract,
    ImageInput,
    Normalization,
    TableInput,
    save_contract,
    write_golden,
)
from distill.deployment.deploy.kserve import KServe
from distill.deployment.deploy.model import read_model, write_files
from distill.deployment.deploy.triton import Triton
from distill.runtime import OnnxModel
from distill.tables.columns import Column, Kind

CLASSES = ("cat", "dog", "größer als")
COLUMNS = (  # names as people give them
    Column(name='the "size"\\n', kind=Kind.NUMBER),
    Column(name="straße", kind=Kind.CATEGORY),
    Column(name="since\tthen", kind=Kind.DATE),
)
OF_KIND = {Kind.NUMBER: (TensorProto.DOUBLE, "f8"), Kind.CATEGORY: (TensorProto.STRING, "U4")}


def image_graph(batch, num_outputs):
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    taken = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 4, 6, 1])
    weights = np.random.default_rng(0).normal(size=(24, num_outputs)).astype(np.float32)
    return nodes, [taken], numpy_helper.from_array(weights, "weights")


def table_graph(batch, num_outputs):
    nodes, taken, numbers = [], [], []
    for index, column in enumerate(COLUMNS):
        kind = OF_KIND.get(column.kind, (TensorProto.INT64, "i8"))[0]
        taken.append(helper.make_tensor_value_info(column.name, kind, [batch, 1]))
        raw = column.name
        if column.kind is Kind.CATEGORY:
            raw = "code"
            nodes.append(
                helper.make_node(
                    "LabelEncoder", [column.name], [raw], domain="ai.onnx.ml",
                    keys_strings=["a"], values_int64s=[1], default_int64=0,
                )
            )  # fmt: skip
        numbers.append(f"number{index}")
        nodes.append(helper.make_node("Cast", [raw], numbers[-1:], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Concat", numbers, ["row"], axis=1))
    nodes.append(helper.make_node("MatMul", ["row", "weights"], ["logits"]))
    weights = np.ones((len(COLUMNS), num_outputs), np.float32)
    return nodes, taken, numpy_helper.from_array(weights, "weights")


def exported(folder, *, table=False, batch="batch", classes=CLASSES, task=None, data="digits"):
    """A model beside its contract and golden samples, as an export leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes, taken, weights = (table_graph if table else image_graph)(batch, len(classes))
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, len(classes)])
    graph = helper.make_graph(nodes, "g", taken, [given], [weights])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path = folder / "model.onnx"
    onnx.save(proto, path)
    num_golden = 1 if batch == 1 else 2
    golden = np.zeros((num_golden, 4, 6, 1), np.uint8)
    if table:
        types = [(c.name, OF_KIND.get(c.kind, (0, "i8"))[1]) for c in COLUMNS]
        golden = np.ones(num_golden, types)
    contract = Contract(
        input=None if table else ImageInput(name="image", height=4, width=6, channels=1),
        normalization=None if table else Normalization(mean=(0.0,), std=(1.0,)),
        table=TableInput(columns=COLUMNS, categories={"straße": ["a"]}) if table else None,
        task=task,
        output="logits",
        classes=classes,
        provenance={"data": {"name": data, "sha256": "0"}},
        golden_sha256=write_golden(folder, golden, {path.name: OnnxModel(path).predict(golden)}),
    )
    save_contract(contract, folder)
    proto.metadata_props.add(key=HASH_KEY, value=contract.sha256)
    onnx.save(proto, path)
    return path


def kserve_of(**options):
    options = {"storage_uri": "gs://bucket/digits/3", "repository": Triton(), **options}
    return KServe(**options)


def parsed(text):
    return text_format.Parse(text, ModelConfig())


def written(path, deployment, folder):
    """Write files; return what config.pbtxt says, and the folder of the model."""
    write_files(folder, deployment.files(read_model(path)))
    (config,) = folder.rglob("config.pbtxt")
    return parsed(config.read_text()), config.parent
