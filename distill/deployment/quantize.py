"""int8 by static quantisation with onnxruntime: 8-bit unsigned activations, signed weights.

QDQ format, weights per channel: the form that x86 and ARM both run fast and exactly alike. Knows
nothing of accuracy or latency: whether int8 is worth it is measured afterwards on the artefact.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from distill.files import write_bytes


@dataclass(frozen=True, kw_only=True)
class StaticQuantizer:
    """Static int8 quantisation.

    Attributes:
        num_calibration_samples: training images whose activations set the ranges (min and max).
        batch_size: of the calibration runs.
    """

    num_calibration_samples: int = 512
    batch_size: int = 32

    def __call__(self, source: Path, target: Path, images: NDArray[np.uint8]) -> None:
        """Quantise `source` into `target`, calibrated on images [N, H, W, C].

        The preprocessing ahead of the first convolution stays in float: uint8 pixels need no
        second quantisation.
        """
        with tempfile.TemporaryDirectory() as folder:
            prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            graph = onnx.load(prepared).graph
            quantize_static(
                str(prepared),
                str(quantized),
                _Batches(
                    graph.input[0].name, images[: self.num_calibration_samples], self.batch_size
                ),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=_preprocessing_nodes(graph),
            )
            write_bytes(target, quantized.read_bytes())


class _Batches(CalibrationDataReader):
    def __init__(self, name: str, images: NDArray[np.uint8], batch_size: int) -> None:
        starts = range(0, len(images), batch_size)
        self._feeds: Iterator[dict[str, NDArray[np.uint8]]] = (
            {name: images[start : start + batch_size]} for start in starts
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return next(self._feeds, None)


def _preprocessing_nodes(graph: onnx.GraphProto) -> list[str]:
    """Name the nodes between the input and the first layers that hold weights."""
    reached, names = {graph.input[0].name}, []
    for node in graph.node:  # in topological order, as the ONNX format demands
        if node.op_type in ("Conv", "Gemm", "MatMul") or not reached & set(node.input):
            continue
        names.append(node.name)
        reached |= set(node.output)
    return names
