"""What quantisation asks of an ONNX graph: which nodes hold weights, which prepare or end.

Knows nothing of ranges, accuracy or time.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVES = ("Flatten", "Gather", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
ENDS = ("Add", "Cast", "Mul", "Sub", "TopK", *MOVES)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A node that holds weights.

    Attributes:
        name: of the node.
        depthwise: whether it is a convolution of each channel on its own.
    """

    name: str
    depthwise: bool


def layers(graph: onnx.GraphProto) -> list[Layer]:
    """List the nodes that hold weights, from input to output."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return [
        Layer(name=node.name, depthwise=_is_depthwise(node, shapes[node.input[1]]))
        for node in graph.node  # in topological order, as the ONNX format demands
        if node.op_type in WEIGHTED and node.input[1] in shapes
    ]


def _is_depthwise(node: onnx.NodeProto, weight_shape: list[int]) -> bool:
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return node.op_type == "Conv" and groups > 1 and weight_shape[1] == 1


def preprocessing_nodes(graph: onnx.GraphProto) -> list[str]:
    """Name the nodes between the inputs and the first layers that hold weights."""
    reached, names = {entry.name for entry in graph.input}, []
    for node in graph.node:
        if node.op_type in WEIGHTED or not reached & set(node.input):
            continue
        names.append(node.name)
        reached |= set(node.output)
    return names


def ending_nodes(graph: onnx.GraphProto) -> list[str]:
    """Name the sums, products, sorts and moves that end in the first output.

    They bring answers to units that 8 bits do not hold: 20 degrees above 273.15, or beside 10^6.
    """
    makers = {output: node for node in graph.node for output in node.output}
    found, values = dict[str, None](), [graph.output[0].name]
    while values:
        node = makers.get(values.pop())
        if node is not None and node.op_type in ENDS and node.name not in found:
            found[node.name] = None
            values += node.input
    return list(found)


def around(graph: onnx.GraphProto) -> list[str]:
    """Name the nodes before and behind the layers, which stay in float."""
    return [*preprocessing_nodes(graph), *ending_nodes(graph), *head_nodes(graph)]


def answers(graph: onnx.GraphProto) -> list[str]:
    """Name the values that matrix products give to nodes of the ending and of a head alone.

    There is no need to round them: a product in int8 can give floats. (A convolution cannot.)
    """
    last = {*ending_nodes(graph), *head_nodes(graph)}
    read_elsewhere = {name for node in graph.node if node.name not in last for name in node.input}
    read = {name for node in graph.node if node.name in last for name in node.input}
    products = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    return [node.output[0] for node in products if node.output[0] in read - read_elsewhere]


def head_nodes(graph: onnx.GraphProto) -> list[str]:
    """Name the nodes that the first output does not need.

    They are a head's: its probabilities are not worth rounding.
    """
    needed, names = {graph.output[0].name}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
        else:
            names.append(node.name)
    return names[::-1]


def with_followers(graph: onnx.GraphProto, names: Sequence[str]) -> list[str]:
    """Add to nodes in float what only they feed, up to the next layers: their activations.

    An activation in int8 behind a layer in float would quantise what the int8 layer never had to:
    its values before they are cut at zero.
    """
    constants = {tensor.name for tensor in graph.initializer}
    kept, outputs, found = set(names), set[str](), []
    for node in graph.node:
        fed_by = [name for name in node.input if name and name not in constants]
        follows = node.op_type not in WEIGHTED and fed_by and outputs.issuperset(fed_by)
        if node.name in kept or follows:
            outputs |= set(node.output)
            found.append(node.name)
    return found


def float_tensors(graph: onnx.GraphProto, *, outside: Sequence[str]) -> list[onnx.ValueInfoProto]:
    """List the float activations that nodes read or write, those of the nodes `outside` left out.

    Their types must have been inferred.
    """
    left_out, constants = set(outside), {tensor.name for tensor in graph.initializer}
    infos = {info.name: info for info in (*graph.value_info, *graph.output, *graph.input)}
    names = {
        name: None  # a dictionary keeps the order
        for node in graph.node
        if node.name not in left_out
        for name in (*node.input, *node.output)
    }
    return [
        infos[name]
        for name in names
        if name in infos
        and name not in constants
        and infos[name].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]


def skip_half(graph: onnx.GraphProto) -> None:
    """Pass values from float to float as they are, where they are rounded to half between.

    Half precision ends at 65504.
    """
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        half = makers.get(node.input[0]) if _casts_to(node, onnx.TensorProto.FLOAT) else None
        if half is not None and _casts_to(half, onnx.TensorProto.FLOAT16):
            node.input[0] = half.input[0]
    read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    for node in list(graph.node):
        if _casts_to(node, onnx.TensorProto.FLOAT16) and node.output[0] not in read:
            graph.node.remove(node)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == kind for a in node.attribute)


def structure(path: Path) -> str:
    """Hash a model without the values of its constants, but with their types and shapes.

    Two files of one structure run the same operators on the same shapes, so they take the same
    time: int8 of other ranges is not measured twice.
    """
    model = onnx.load(path)
    del model.metadata_props[:]
    for tensor in model.graph.initializer:
        kept = (tensor.name, tensor.data_type, list(tensor.dims))
        tensor.Clear()
        tensor.name, tensor.data_type = kept[:2]
        tensor.dims.extend(kept[2])
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
