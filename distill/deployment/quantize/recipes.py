"""Ways to make a float32 ONNX file smaller: static int8, dynamic int8, float16.

Each recipe writes one whole file that takes and gives what the float32 file does; preprocessing
ahead of the first layer, and units behind the last, stay in float. Knows nothing of accuracy or
latency: whether a recipe is worth it is measured on its file.
"""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from distill.deployment.quantize.calibration import METHODS, Activations, tensors_data
from distill.deployment.quantize.graph import (
    answers,
    around,
    layers,
    preprocessing_nodes,
    skip_half,
    with_followers,
)
from distill.errors import UsageError, UserError, nearest
from distill.files import write_bytes

INT8, FLOAT16 = "int8", "float16"


class Source:
    """One float32 file from which any number of recipes make theirs: prepared and calibrated once.

    Args:
        path: the float32 ONNX file.
        images: training images, uint8 [N, H, W, C], to calibrate on.
        folder: for what is prepared; it must outlive the source.
    """

    def __init__(self, path: Path, images: NDArray[np.uint8], folder: Path) -> None:
        self.path, self._images = path, images
        self.prepared = folder / "prepared.onnx"
        with quiet():
            quant_pre_process(str(path), str(self.prepared), skip_symbolic_shape=True)
        self.graph = onnx.load(self.prepared).graph
        self._activations: dict[tuple[int, int], Activations] = {}

    def activations(self, num_samples: int, batch_size: int) -> Activations:
        """What the model's tensors hold on the first `num_samples` images."""
        found = self._activations.get((num_samples, batch_size))
        if found is None:
            found = Activations(self.prepared, self._images[:num_samples], batch_size=batch_size)
            self._activations[num_samples, batch_size] = found
        return found


class Recipe(Protocol):
    """A way to make a smaller file.

    Attributes:
        precision: `int8` or `float16`.
    """

    precision: ClassVar[str]

    @property
    def num_calibration_samples(self) -> int:
        """How many images it looks at."""
        ...

    def make(self, source: Source, target: Path) -> None:
        """Write the file, whole or not at all."""
        ...


@dataclass(frozen=True, kw_only=True)
class StaticInt8:
    """int8 with ranges fixed beforehand: QDQ, unsigned activations, signed weights per channel.

    The form that x86 and ARM both run fast and exactly alike (signed activations are 2 to 4 times
    slower on x86).

    Attributes:
        num_calibration_samples: training images whose activations set the ranges.
        batch_size: of the calibration runs.
        calibration: `minmax`, `percentile` or `entropy`.
        percentile: kept of the values, where `calibration` is `percentile`.
        reduce_range: seven bits for weights; x86 without VNNI saturates with eight.
        depthwise: whether depthwise convolutions become int8 too.
        op_types: the only operators that do; None for all that can.
        keep_first: whether the first layer stays in float.
        keep_last: whether the last one does.
        exclude: names of further nodes that stay in float.

    Raises:
        UsageError: `calibration` or `percentile` is none that there is.
    """

    num_calibration_samples: int = 512
    batch_size: int = 32
    calibration: str = "minmax"
    percentile: float = 99.99
    reduce_range: bool = False
    depthwise: bool = True
    op_types: Sequence[str] | None = None
    keep_first: bool = False
    keep_last: bool = False
    exclude: Sequence[str] = ()
    precision: ClassVar[str] = INT8

    def __post_init__(self) -> None:
        if self.calibration not in METHODS:
            raise UsageError(
                f"Expected `calibration` to be one of {', '.join(METHODS)} but got "
                f"{self.calibration!r}."
            )
        if not 50 < self.percentile <= 100:
            raise UsageError(
                f"Expected `percentile` above 50 and at most 100 but got {self.percentile}."
            )

    def make(self, source: Source, target: Path) -> None:
        """Write the file, see `Recipe`.

        Raises:
            UserError: a node to exclude is not in the model.
        """
        activations = source.activations(self.num_calibration_samples, self.batch_size)
        ranges = METHODS[self.calibration](activations, self.percentile)
        possible = sorted({*QLinearOpsRegistry, *QDQRegistry})
        with quiet():
            quantizer = _Quantizer(
                answers(source.graph),
                load_model_with_shape_infer(source.prepared),
                per_channel=True,
                reduce_range=self.reduce_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=tensors_data(ranges),
                nodes_to_quantize=[],
                nodes_to_exclude=self.stays_in_float(source.graph),
                op_types_to_quantize=list(self.op_types or possible),
                extra_options={},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        write_bytes(target, quantizer.model.model.SerializeToString())

    def stays_in_float(self, graph: onnx.GraphProto) -> list[str]:
        """Name the nodes that are not quantised, activations with their layers.

        Raises:
            UserError: one to exclude is not in the graph.
        """
        names = {node.name for node in graph.node}
        for name in self.exclude:
            if name not in names:
                raise UserError(
                    f"Expected `exclude` to name nodes of the model but got {name}. "
                    f"{nearest(name, names)}"
                )
        weighted = layers(graph)
        ends = [weighted[0]] * self.keep_first + [weighted[-1]] * self.keep_last
        depthwise = [layer for layer in weighted if layer.depthwise and not self.depthwise]
        kept = [layer.name for layer in (*ends, *depthwise)]
        return [*around(graph), *with_followers(graph, [*kept, *self.exclude])]


@dataclass(frozen=True, kw_only=True)
class DynamicInt8:
    """int8 weights, activations quantised at each call by the range they happen to have.

    Attributes:
        op_types: the only operators that become int8; None for all that can.
    """

    op_types: Sequence[str] | None = None
    precision: ClassVar[str] = INT8

    @property
    def num_calibration_samples(self) -> int:
        """None: it looks at no image."""
        return 0

    def make(self, source: Source, target: Path) -> None:
        """Write the file, see `Recipe`."""
        with tempfile.TemporaryDirectory() as folder, quiet():
            quantized = Path(folder) / "int8.onnx"
            quantize_dynamic(
                str(source.prepared),
                str(quantized),
                op_types_to_quantize=list(self.op_types or ()) or None,
                weight_type=QuantType.QUInt8,  # onnxruntime's ConvInteger takes no signed weights
                nodes_to_exclude=preprocessing_nodes(source.graph),
            )
            write_bytes(target, quantized.read_bytes())


@dataclass(frozen=True, kw_only=True)
class Float16:
    """Half precision inside, the same types outside; for runtimes that compute in it."""

    precision: ClassVar[str] = FLOAT16

    @property
    def num_calibration_samples(self) -> int:
        """None: it looks at no image."""
        return 0

    def make(self, source: Source, target: Path) -> None:
        """Write the file, see `Recipe`.

        Raises:
            UserError: a weight is too large for half precision.
        """
        model = onnx.load(source.prepared)
        largest, in_float = float(np.finfo(np.float16).max), around(model.graph)
        rounded = {i for n in model.graph.node if n.name not in in_float for i in n.input}
        for tensor in (t for t in model.graph.initializer if t.name in rounded):
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.size and np.abs(values).max() > largest:
                raise UserError(
                    f"Expected weights up to {largest:g} for float16 but {tensor.name} holds "
                    f"{np.abs(values).max():.4g}. Ship float32, or train with weight decay."
                )
        with quiet():
            model = convert_float_to_float16(model, keep_io_types=True, node_block_list=in_float)
        skip_half(model.graph)
        converted = ONNXModel(model)
        converted.topological_sort()  # the converter puts its casts at the end
        write_bytes(target, converted.model.SerializeToString())


class _Quantizer(QDQQuantizer):
    """Leaves some values in float, in whichever node they occur."""

    def __init__(self, in_float: Sequence[str], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_float = frozenset(in_float)

    def quantize_activation_tensor(self, tensor_name: str) -> None:
        if tensor_name not in self._in_float:
            super().quantize_activation_tensor(tensor_name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the converters' advice to their own users off stderr."""
    root = logging.getLogger()  # they log on the root logger
    level = root.level
    root.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # float16: what is smaller than its smallest becomes that
        try:
            yield
        finally:
            root.setLevel(level)
