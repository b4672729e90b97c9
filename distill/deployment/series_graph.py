"""The encoding of windows as an ONNX graph around an exported network, and the way back to units.

What comes out takes raw windows by name, [B, length] each, computes what `windows` does, and
answers in the value's own units: one path from a window to a forecast, in training, serving and on
a device. Knows nothing of networks.
"""

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
from distill.tables.windows import Windows
from distill.tasks import Task

PREFIX = "series/"
ENCODED, LEVEL, SPREAD = "series/encoded", "series/level", "series/spread"


def wrap_windows(windows: Windows, path: Path, task: Task | None = None) -> None:
    """Put windows before the single input of an ONNX file, units behind its first output, in place.

    Outputs keep their names; what else is computed of the first one still sees the network's own.
    The quantiles of each step are put in order.

    Args:
        windows: of the records that the network was trained on.
        path: of a network that takes encoded windows, [B, F] float32, and whose first output is
            [B, horizon], or [B, horizon * Q] of quantiles, in its own units; see `Windows`.
        task: where it asks for quantiles.

    Raises:
        UserError: a field is called as an output.
    """
    network = onnx.load(path)
    front = windows_graph(windows, opset_of(network), network.ir_version)
    whole = put_before(front, network)
    graph = whole.graph
    del graph.output[: len(front.graph.output) - 1]  # level and spread
    build, name = GraphBuilder(UNITS), graph.output[0].name
    answer = release_output(graph)
    answer = answer if task is None else build.ascending(answer, task)
    scaled = build.add("Mul", [SPREAD, build.to_double(answer)])
    build.to_float(build.add("Add", [LEVEL, scaled]), output=name)
    extend(graph, build)
    save_checked(whole, path)


def windows_graph(windows: Windows, opset: int, ir_version: int) -> onnx.ModelProto:
    """Build a model that encodes.

    Raw fields in by name, [B, length] double; out come the encoded records, [B, F] float32, then
    level and spread of each window, [B, 1] double.
    """
    build = GraphBuilder(PREFIX)
    value = windows.value
    level = build.add("Gather", [value, build.constant([windows.window - 1], np.int64)],
                      output=LEVEL, axis=1)  # fmt: skip
    spread = _spread(build, value, windows.floor)
    parts = [build.add("Div", [build.add("Sub", [value, level]), spread])]
    if windows.covariates:
        parts.append(_covariates(build, windows))
    build.to_float(build.side_by_side(parts), output=ENCODED)
    inputs = [_double(name, width) for name, width in windows.widths.items()]
    encoded = helper.make_tensor_value_info(
        ENCODED, TensorProto.FLOAT, ["batch", sum(windows.widths.values())]
    )
    outputs = [encoded, _double(LEVEL, 1), _double(SPREAD, 1)]
    graph = helper.make_graph(build.nodes, "series", inputs, outputs, build.constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )


def _double(name: str, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["batch", width])


def _spread(build: GraphBuilder, value: str, floor: float) -> str:
    """Compute the standard deviation of each window, or the floor where that is more."""
    along = build.constant([1], np.int64)
    centred = build.add("Sub", [value, build.add("ReduceMean", [value, along], keepdims=1)])
    squares = build.add("Mul", [centred, centred])
    deviation = build.add("Sqrt", [build.add("ReduceMean", [squares, along], keepdims=1)])
    return build.add("Max", [deviation, build.constant(floor, np.float64)], output=SPREAD)


def _covariates(build: GraphBuilder, windows: Windows) -> str:
    """Standardise all covariates at once, gaps 0."""
    owners = [own for own in windows.covariates for _ in range(windows.widths[own.name])]
    values = build.side_by_side([own.name for own in windows.covariates])
    z = build.standardised(values, [o.mean for o in owners], [o.scale for o in owners])
    return build.fill(build.add("IsNaN", [values]), z, np.float64)
