"""What graphs before and behind an exported network are built of, and how they are joined to it.

Knows nothing of how tables and series are encoded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from distill.errors import UserError
from distill.files import write_bytes
from distill.tables.encoding import LARGEST
from distill.tasks import Task

UNITS = "units/"  # names of what is behind a network


class GraphBuilder:
    """Nodes and constants of a graph under construction; methods return the names of values.

    Args:
        prefix: of the names of all values, so that they are no columns'.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
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
        output = output or f"{self.prefix}{op.lower()}_{len(self.nodes)}"
        name = f"node/{output}"
        node = helper.make_node(op, inputs, [output], name=name, domain=domain, **attributes)
        self.nodes.append(node)
        return output

    def constant(self, values: Any, dtype: Any) -> str:
        """Add a constant."""
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def side_by_side(self, names: Sequence[str]) -> str:
        """Put values of one type beside each other, [B, sum of their lengths]."""
        return self.add("Concat", names, axis=1) if len(names) > 1 else names[0]

    def to_float(self, value: str, *, output: str = "") -> str:
        """Cast to float32."""
        return self.add("Cast", [value], output=output, to=TensorProto.FLOAT)

    def to_double(self, value: str) -> str:
        """Cast to float64."""
        return self.add("Cast", [value], to=TensorProto.DOUBLE)

    def columns_of(self, value: str, positions: Sequence[int]) -> str:
        """Select columns."""
        return self.add("Gather", [value, self.constant(positions, np.int64)], axis=1)

    def standardised(self, values: str, means: Sequence[float], scales: Sequence[float]) -> str:
        """Take away the mean of each column, divide by its scale, cut what is far out."""
        centred = self.add("Sub", [values, self.constant(means, np.float64)])
        z = self.add("Div", [centred, self.constant(scales, np.float64)])
        ends = [self.constant(end, np.float64) for end in (-LARGEST, LARGEST)]
        return self.add("Clip", [z, *ends])

    def ascending(self, answer: str, task: Task) -> str:
        """Sort the quantiles of each number, as `Task.ascending` does."""
        num_numbers, num_levels = len(task.outputs), len(task.quantiles)
        if num_levels < 2:
            return answer
        shape, most = [0, num_numbers, num_levels], self.constant([num_levels], np.int64)
        by_number = self.add("Reshape", [answer, self.constant(shape, np.int64)])
        ordered = self.add("TopK", [by_number, most], axis=2, largest=0, sorted=1)
        self.nodes[-1].output.append(f"{ordered}_places")
        flat = self.constant([0, num_numbers * num_levels], np.int64)
        return self.add("Reshape", [ordered, flat])

    def fill(self, gap: str, values: str, dtype: Any) -> str:
        """Put 0 where there is a gap."""
        return self.add("Where", [gap, self.constant(0, dtype), values])


def opset_of(model: onnx.ModelProto) -> int:
    """Say which version of the standard operators a model is of."""
    (opset,) = (entry.version for entry in model.opset_import if not entry.domain)
    return opset


def put_before(front: onnx.ModelProto, network: onnx.ModelProto) -> onnx.ModelProto:
    """Join two models: the first output of `front` becomes the single input of `network`.

    Returns:
        A model that takes what `front` takes, and gives its other outputs, then the network's.

    Raises:
        UserError: an input is called as an output of the network.
    """
    taken = {entry.name for entry in front.graph.input}
    for entry in network.graph.output:
        if entry.name in taken:
            raise UserError(
                f"Expected no column called `{entry.name}`: the exported file has an output of "
                "that name. Rename the column."
            )
    if taken & {name for node in network.graph.node for name in (*node.input, *node.output)}:
        network = compose.add_prefix(network, "network/", rename_outputs=False)
    joint = (front.graph.output[0].name, network.graph.input[0].name)
    whole = compose.merge_models(front, network, io_map=[joint])
    versions = {entry.domain: entry.version for entry in whole.opset_import}
    del whole.opset_import[:]  # merging and preparing leave some of them twice
    whole.opset_import.extend(helper.make_opsetid(*pair) for pair in versions.items())
    return whole


def release_output(graph: onnx.GraphProto) -> str:
    """Give the value of the first output another name, and return that; who reads it still does.

    The output's own name is then free for what is computed of the value.
    """
    inner = f"{UNITS}answer"
    rename(graph, graph.output[0].name, inner)
    return inner


def extend(graph: onnx.GraphProto, build: GraphBuilder) -> None:
    """Put what was built behind a graph."""
    graph.node.extend(build.nodes)
    graph.initializer.extend(build.constants)


def save_checked(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, if it is a valid one."""
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a value another name wherever nodes make or read it, and where its shape is told."""
    for told in graph.value_info:
        if told.name == old:
            told.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name == old:
                    names[at] = new
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                rename(inner, old, new)
