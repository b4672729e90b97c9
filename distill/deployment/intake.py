"""What any ONNX file is, looked at before anything is measured: whole, one file, loadable here.

Reads the graph with onnx; knows nothing of how the file was made.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from distill.contract import GOLDEN_FILE, Contract, contract_beside, replay_golden
from distill.errors import UserError
from distill.runtime import ModelError, OnnxModel, layout, layout_in

_NUMPY_TYPES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """An ONNX file that loads here.

    Attributes:
        path: of the file.
        input_name: of its one input.
        input_shape: None where a dimension is dynamic.
        dtype: of the input.
        columns: ONNX types of the inputs that records can give, by name.
        lengths: values in each of them, by name.
        by_name: whether records are what is given; else an array.
        opset: of the standard operators.
        contract: what it promises; None without one beside it.
    """

    path: Path
    input_name: str
    input_shape: tuple[int | None, ...]
    dtype: np.dtype
    columns: dict[str, str]
    lengths: dict[str, int]
    by_name: bool
    opset: int
    contract: Contract | None

    @property
    def form(self) -> str:
        """What the model takes, in words."""
        if not self.by_name:
            return f"{self.dtype} {_shown(self.input_shape)}"
        columns = (f"`{n}` {layout(kind, self.lengths[n])}" for n, kind in self.columns.items())
        return f"as records of {', '.join(columns)}"

    def takes(self, inputs: NDArray) -> bool:
        """Tell whether inputs, [K, ...], are of the type and shape that the model takes."""
        if inputs.dtype.names is not None:
            return bool(self.columns) and all(
                layout_in(inputs, name) == layout(kind, self.lengths[name])
                for name, kind in self.columns.items()
            )
        return (
            len(self.columns) <= 1
            and inputs.dtype == self.dtype
            and inputs.ndim == len(self.input_shape)
            and all(
                own is None or own == found
                for own, found in zip(self.input_shape[1:], inputs.shape[1:], strict=True)
            )
        )


def inspect(path: Path) -> Artefact:
    """Look at an ONNX file, and replay its golden samples where it has a contract.

    Raises:
        UserError: it is missing, damaged, in several files, too new for this onnxruntime, has
            several inputs that are no columns, or breaks the contract beside it.
    """
    if not path.is_file():
        raise UserError(f"Expected an ONNX file at {path} but there is none.")
    try:
        proto = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError) as error:
        raise UserError(
            f"Expected an ONNX model at {path} but it cannot be read ({error}). The file is "
            "truncated or something else: export it again."
        ) from error
    _refuse_external_data(path, proto)
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    try:
        model = OnnxModel(path)
    except ModelError as error:
        if "opset" in str(error).lower():
            raise UserError(
                f"Expected {path} to be of an opset that this onnxruntime knows but it is of opset "
                f"{opset}. Export it with `opset_version=20`, or install a newer onnxruntime."
            ) from error
        raise
    contract = contract_beside(path, model.metadata)
    if contract is not None:
        _check_promise(path, model, contract)
    of_table = len(model.columns) > 1 or (contract is not None and contract.table is not None)
    return Artefact(
        path=path,
        input_name=model.input_name,
        input_shape=model.input_shape,
        dtype=_dtype(
            path, model.columns.values() if of_table else [model.input_type], text=of_table
        ),
        columns=model.columns,
        lengths=model.lengths,
        by_name=of_table,
        opset=opset,
        contract=contract,
    )


def _refuse_external_data(path: Path, proto: onnx.ModelProto) -> None:
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        place = (path.parent / location).resolve()
        if not place.is_relative_to(path.parent.resolve()):
            raise UserError(
                f"Expected all weights of {path} inside it but those of `{tensor.name}` lie "
                f"outside of its folder, at {location}. Such a file can read anything on the "
                "machine; nothing was loaded. Save it as one file."
            )
        raise UserError(
            f"Expected one file with all weights but {path} keeps those of `{tensor.name}` in "
            f"{location}. What ships is measured as one file: "
            "`onnx.save(onnx.load('in.onnx'), 'out.onnx')` joins them."
        )


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Find all weights and constants, also those in branches, loops and functions."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _graph_tensors(graph)


def _dtype(path: Path, kinds: Iterable[str], *, text: bool) -> np.dtype:
    """Name the type of an input; of columns that of the last, for all have to be known."""
    dtype = None
    for kind in kinds:
        name = kind.removeprefix("tensor(").removesuffix(")")
        try:
            dtype = np.dtype("U1" if text and name == "string" else _NUMPY_TYPES.get(name, name))
        except TypeError:
            dtype = None
        # Other packages teach NumPy bfloat16.
        if dtype is None or dtype.kind not in ("biufcU" if text else "biufc"):
            raise UserError(
                f"Expected numbers that NumPy knows as input of {path} but it takes {kind}. "
                "Export it with another input type, such as float32 or uint8."
            )
    assert dtype is not None
    return dtype


def _check_promise(path: Path, model: OnnxModel, contract: Contract) -> None:
    """Hold a file against its contract: its inputs, and what it answers to the golden samples."""
    named = contract.input_names
    found = list(model.columns) if contract.table else [model.input_name]
    if set(found) != set(named):
        raise UserError(
            f"Expected {path} to take {_listed(named)}, as its contract says, but it takes "
            f"{_listed(found)}. Export it again."
        )
    golden = path.parent / GOLDEN_FILE
    if not golden.is_file():
        raise UserError(
            f"Expected the golden samples of the contract beside {path} in {golden} but there is "
            "no such file. Keep all files of an export together, or export it again."
        )
    replay_golden(path.parent, path.name)


def read_inputs(path: Path, artefact: Artefact, key: str | None) -> NDArray:
    """Read inputs to run through, from .npy, or from one array of an .npz.

    Args:
        path: of the file.
        artefact: that takes them.
        key: of the array in an .npz; None takes that of the model's input's name.

    Raises:
        UserError: the file does not hold what the model takes.
    """
    try:
        content = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"Expected `inputs` to be a .npy or .npz file of plain arrays but {path}: {error}"
        ) from error
    if isinstance(content, np.lib.npyio.NpzFile):
        name = key or artefact.input_name
        if name not in content.files:
            raise UserError(
                f"Expected an array `{name}` for the input of {artefact.path} in {path} but it "
                f"holds {', '.join(content.files)}. Say which one with `input_key=<name>`."
            )
        content = content[name]
    if len(content) == 0 or not artefact.takes(content):
        raise UserError(
            f"Expected inputs {artefact.form} for {artefact.path} "
            f"but {path} holds {content.dtype} {list(content.shape)}."
        )
    return content


def random_inputs(
    artefact: Artefact, count: int, seed: int, shape: tuple[int, ...] | None = None
) -> NDArray:
    """Draw inputs of the right type and shape, without the batch dimension where it is given.

    Raises:
        UserError: a dimension is dynamic and no shape is given, or the given one does not fit.
    """
    if artefact.by_name:
        return _random_records(artefact, count, seed)
    own = artefact.input_shape[1:]
    if shape is None:
        if any(size is None for size in own):
            raise UserError(
                f"Expected {artefact.path} to have fixed dimensions besides the batch but it takes "
                f"{_shown(artefact.input_shape)}. Say which to measure, such as "
                "`input_shape=[224,224,3]`, or give real inputs with `inputs=<file>.npy`."
            )
        shape = tuple(size for size in own if size is not None)
    elif len(shape) != len(own) or any(
        o is not None and o != s for o, s in zip(own, shape, strict=True)
    ):
        raise UserError(
            f"Expected `input_shape` to fit {_shown(artefact.input_shape)} of {artefact.path}, "
            f"without the batch, but got {list(shape)}."
        )
    rng, full = np.random.default_rng(seed), (count, *shape)
    if artefact.dtype.kind in "iu":
        return rng.integers(0, 256 if artefact.dtype == np.uint8 else 2, full).astype(
            artefact.dtype
        )
    if artefact.dtype.kind == "f":
        return rng.standard_normal(full).astype(artefact.dtype)
    raise UserError(
        f"Expected numbers as input of {artefact.path} but it takes {artefact.dtype}. Give real "
        "inputs with `inputs=<file>.npy`."
    )


def _random_records(artefact: Artefact, count: int, seed: int) -> NDArray:
    rng = np.random.default_rng(seed)
    types = {n: _dtype(artefact.path, [kind], text=True) for n, kind in artefact.columns.items()}
    records = np.zeros(count, [(n, dtype, artefact.lengths[n]) for n, dtype in types.items()])
    for name, dtype in types.items():
        if dtype.kind == "f":
            records[name] = rng.standard_normal(records[name].shape)
    return records


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _shown(shape: tuple[int | None, ...]) -> str:
    return str(["any" if size is None else size for size in shape]).replace("'", "")
