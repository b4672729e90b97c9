"""The encoding of a table as an ONNX graph, put before an exported network.

What comes out takes raw columns by name, [B, 1] each, and computes what `encoding` does: one path
from a row to an answer, in training, serving and on a device. Knows nothing of networks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from distill.columns import NO_DATE, Kind
from distill.encoding import DAY_MS, LARGEST, YEAR_DAYS, Encoded, Encoder
from distill.files import write_bytes

ML_DOMAIN, ML_OPSET = "ai.onnx.ml", 4
TYPES = {
    Kind.NUMBER: TensorProto.DOUBLE,
    Kind.BOOLEAN: TensorProto.DOUBLE,
    Kind.CATEGORY: TensorProto.STRING,
    Kind.DATE: TensorProto.INT64,
}
OUTPUT = "encoded"
PREFIX = "table/"


def prepend_encoder(encoder: Encoder, path: Path) -> None:
    """Put an encoder before the single input of an ONNX file, in place.

    Args:
        encoder: of the rows that the network was trained on.
        path: of a network that takes encoded rows, [B, F] float32.
    """
    network = onnx.load(path)
    (opset,) = (entry.version for entry in network.opset_import if not entry.domain)
    front = encoder_graph(encoder, opset, network.ir_version)
    domains = {entry.domain for entry in network.opset_import}
    if ML_DOMAIN not in domains:
        network.opset_import.append(helper.make_opsetid(ML_DOMAIN, ML_OPSET))
    whole = compose.merge_models(front, network, io_map=[(OUTPUT, network.graph.input[0].name)])
    versions = {entry.domain: entry.version for entry in whole.opset_import}
    del whole.opset_import[:]  # merging and preparing leave some of them twice
    whole.opset_import.extend(helper.make_opsetid(*pair) for pair in versions.items())
    onnx.checker.check_model(whole)
    write_bytes(path, whole.SerializeToString())


def encoder_graph(encoder: Encoder, opset: int, ir_version: int) -> onnx.ModelProto:
    """Build a model that encodes: raw columns in by name, `encoded` out, [B, F] float32."""
    build = _Builder()
    numbers, dates = encoder.of_kind(Kind.NUMBER, Kind.BOOLEAN), encoder.of_kind(Kind.DATE)
    figures, gaps = [], []
    for group, make in ((numbers, build.numbers), (dates, build.dates)):
        if group:
            made, gap = make(group)
            figures += made
            with_gaps = [i for i, own in enumerate(group) if own.has_gaps]
            if with_gaps:
                gaps.append(build.to_float(build.columns_of(gap, with_gaps)))
    codes = []
    for own in encoder.of_kind(Kind.CATEGORY):
        code = build.code(own)
        if own.is_one_hot:
            figures.append(build.one_hot(code, len(own.values)))
        else:
            codes.append(build.to_float(code))
    build.add("Concat", [*figures, *gaps, *codes], output=OUTPUT, axis=1)
    inputs = [
        helper.make_tensor_value_info(own.column.name, TYPES[own.column.kind], ["batch", 1])
        for own in encoder.columns
    ]
    width = encoder.layout.num_features
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", width])
    graph = helper.make_graph(build.nodes, "table", inputs, [output], build.constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


class _Builder:
    """Nodes and constants of a graph under construction; methods return the names of values."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        *,
        output: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node with one output."""
        output = output or f"{PREFIX}{op.lower()}_{len(self.nodes)}"
        name = f"node/{output}"
        node = helper.make_node(op, inputs, [output], name=name, domain=domain, **attributes)
        self.nodes.append(node)
        return output

    def constant(self, values: Any, dtype: Any) -> str:
        """Add a constant."""
        name = f"{PREFIX}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def side_by_side(self, group: Sequence[Encoded]) -> str:
        """Put columns of one type beside each other, [B, len(group)]."""
        names = [own.column.name for own in group]
        return self.add("Concat", names, axis=1) if len(names) > 1 else names[0]

    def to_float(self, value: str) -> str:
        """Cast to float32."""
        return self.add("Cast", [value], to=TensorProto.FLOAT)

    def columns_of(self, value: str, positions: Sequence[int]) -> str:
        """Select columns."""
        return self.add("Gather", [value, self.constant(positions, np.int64)], axis=1)

    def numbers(self, group: Sequence[Encoded]) -> tuple[list[str], str]:
        """Standardise numbers; return them, and where the gaps are."""
        values = self.side_by_side(group)
        gap = self.add("IsNaN", [values])
        filled = self.fill(gap, self.standardised(values, group), np.float64)
        return [self.to_float(filled)], gap

    def dates(self, group: Sequence[Encoded]) -> tuple[list[str], str]:
        """Take dates apart; return their figures, date by date, and where the gaps are."""
        values = self.side_by_side(group)
        gap = self.add("Equal", [values, self.constant(NO_DATE, np.int64)])
        values = self.fill(gap, values, np.int64)
        wide = self.add("Cast", [values], to=TensorProto.DOUBLE)
        days = self.add("Div", [wide, self.constant(DAY_MS, np.float64)])
        parts = [self.to_float(self.standardised(wide, group))]
        years = self.add("Div", [days, self.constant(YEAR_DAYS, np.float64)])
        parts += self.circle(years)
        shifted = self.add("Add", [self.add("Floor", [days]), self.constant(3, np.float64)])
        weekday = self.add("Mod", [shifted, self.constant(7, np.float64)], fmod=1)
        negative = self.add("Less", [weekday, self.constant(0, np.float64)])
        raised = self.add("Add", [weekday, self.constant(7, np.float64)])
        weekday = self.add("Where", [negative, raised, weekday])
        parts += [
            self.to_float(self.add("Equal", [weekday, self.constant(day, np.float64)]))
            for day in range(7)
        ]
        parts += self.circle(days) if any(own.has_time for own in group) else []
        parts = [self.fill(gap, part, np.float32) for part in parts]
        # [B, dates * parts], in the order of the encoded row
        wanted = [
            part * len(group) + number
            for number, own in enumerate(group)
            for part in range(len(own.figure_names))
        ]
        return [self.columns_of(self.add("Concat", parts, axis=1), wanted)], gap

    def circle(self, turns: str) -> list[str]:
        """Sine and cosine of a number of turns."""
        rest = self.add("Sub", [turns, self.add("Floor", [turns])])
        angle = self.to_float(self.add("Mul", [rest, self.constant(2 * np.pi, np.float64)]))
        return [self.add("Sin", [angle]), self.add("Cos", [angle])]

    def standardised(self, values: str, group: Sequence[Encoded]) -> str:
        """Take away the mean, divide by the scale, cut what is far out."""
        means = self.constant([own.mean for own in group], np.float64)
        scales = self.constant([own.scale for own in group], np.float64)
        z = self.add("Div", [self.add("Sub", [values, means]), scales])
        ends = [self.constant(end, np.float64) for end in (-LARGEST, LARGEST)]
        return self.add("Clip", [z, *ends])

    def fill(self, gap: str, values: str, dtype: Any) -> str:
        """Put 0 where there is a gap."""
        return self.add("Where", [gap, self.constant(0, dtype), values])

    def code(self, own: Encoded) -> str:
        """Number the values of a category."""
        return self.add(
            "LabelEncoder",
            [own.column.name],
            domain=ML_DOMAIN,
            keys_strings=list(own.values),
            values_int64s=list(range(1, len(own.values) + 1)),
            default_int64=0,
        )

    def one_hot(self, code: str, count: int) -> str:
        """Give each of the codes 1 to `count` a column, [B, count]."""
        return self.to_float(
            self.add("Equal", [code, self.constant(range(1, count + 1), np.int64)])
        )
