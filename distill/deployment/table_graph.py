"""The encoding of a table as an ONNX graph, put before an exported network.

What comes out takes raw columns by name, [B, 1] each, and computes what `encoding` does: one path
from a row to an answer, in training, serving and on a device. Knows nothing of networks.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from distill.deployment.graph_builder import (
    UNITS,
    GraphBuilder,
    extend,
    opset_of,
    put_before,
    release_output,
    save_checked,
)
from distill.tables.columns import NO_DATE, Kind
from distill.tables.encoding import DAY_MS, YEAR_DAYS, Encoded, Encoder
from distill.tasks import Task

ML_DOMAIN, ML_OPSET = "ai.onnx.ml", 4
TYPES = {
    Kind.NUMBER: TensorProto.DOUBLE,
    Kind.BOOLEAN: TensorProto.DOUBLE,
    Kind.CATEGORY: TensorProto.STRING,
    Kind.DATE: TensorProto.INT64,
}
PREFIX = "table/"
OUTPUT = "table/encoded"


def prepend_encoder(encoder: Encoder, path: Path) -> None:
    """Put an encoder before the single input of an ONNX file, in place.

    Args:
        encoder: of the rows that the network was trained on.
        path: of a network that takes encoded rows, [B, F] float32.

    Raises:
        UserError: a column is called as an output.
    """
    network = onnx.load(path)
    front = encoder_graph(encoder, opset_of(network), network.ir_version)
    save_checked(put_before(front, network), path)


def in_units(task: Task, path: Path) -> None:
    """Bring the first output of an ONNX file to the labels' own units, in place.

    It keeps its name; what else is computed of it still sees the network's own. The quantiles of
    each number are put in order.

    Args:
        task: of numbers.
        path: of a network whose first output is [B, D], or [B, D * Q] of quantiles, standardised,
            float32.
    """
    network = onnx.load(path)
    build, name = GraphBuilder(UNITS), network.graph.output[0].name
    answer = build.ascending(release_output(network.graph), task)
    scale, mean = (
        build.constant(task.of_answers(own), np.float32) for own in (task.scale, task.mean)
    )
    build.add("Add", [build.add("Mul", [answer, scale]), mean], output=name)
    extend(network.graph, build)
    save_checked(network, path)


def encoder_graph(encoder: Encoder, opset: int, ir_version: int) -> onnx.ModelProto:
    """Build a model that encodes: raw columns in by name, encoded rows out, [B, F] float32."""
    build = _TableBuilder(PREFIX)
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


class _TableBuilder(GraphBuilder):
    """The encodings of each kind of column."""

    def numbers(self, group: Sequence[Encoded]) -> tuple[list[str], str]:
        """Standardise numbers; return them, and where the gaps are."""
        values = self.side_by_side([own.column.name for own in group])
        gap = self.add("IsNaN", [values])
        filled = self.fill(gap, self.standardised(values, *_figures(group)), np.float64)
        return [self.to_float(filled)], gap

    def dates(self, group: Sequence[Encoded]) -> tuple[list[str], str]:
        """Take dates apart; return their figures, date by date, and where the gaps are."""
        values = self.side_by_side([own.column.name for own in group])
        gap = self.add("Equal", [values, self.constant(NO_DATE, np.int64)])
        values = self.fill(gap, values, np.int64)
        wide = self.to_double(values)
        days = self.add("Div", [wide, self.constant(DAY_MS, np.float64)])
        parts = [self.to_float(self.standardised(wide, *_figures(group)))]
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


def _figures(group: Sequence[Encoded]) -> tuple[list[float], list[float]]:
    return [own.mean for own in group], [own.scale for own in group]
