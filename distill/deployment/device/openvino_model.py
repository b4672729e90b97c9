"""OpenVINO as a second runtime, called like `OnnxModel`. Needs the `openvino` extra."""

import sys
from pathlib import Path
from typing import List, Union

import numpy as np

from distill.runtime import ModelError

# Its import reports its use to the internet; without this package it takes its own silent stub.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
try:
    import openvino
except ImportError:
    openvino = None


class OpenVinoModel:
    """An ONNX model with one input, run by OpenVINO on the CPU.

    Args:
        path: the ONNX file.
        num_threads: for one inference.
        spin: not OpenVINO's to choose; accepted because the plan gives it.
        precision: `f32`, or `bf16` where the processor has it: faster, and less exact.

    Raises:
        ModelError: OpenVINO is not installed, or cannot read the file.
    """

    def __init__(
        self,
        path: Union[str, Path],
        *,
        num_threads: int = 1,
        spin: bool = True,
        precision: str = "f32",
    ) -> None:
        if openvino is None:
            raise ModelError(
                "Expected OpenVINO for `runtime=openvino` but it is not installed. "
                "Install the extra: `pip install distill[openvino]`."
            )
        options = {
            "INFERENCE_NUM_THREADS": num_threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": precision,
            "ENABLE_CPU_PINNING": False,  # the process is pinned already
        }
        try:
            compiled = openvino.Core().compile_model(str(path), "CPU", options)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]
            raise ModelError("OpenVINO cannot read %s: %s" % (path, reason)) from error
        self._request = compiled.create_infer_request()
        self._names = [entry.any_name for entry in compiled.inputs]

    def prepared(self, batch: np.ndarray) -> List[np.ndarray]:
        """Lay a batch out as the model takes it: an array, or the columns of records."""
        if batch.dtype.names is None:
            return [batch]
        packed, count = np.ascontiguousarray, len(batch)
        return [packed(batch[name]).reshape(count, -1) for name in self._names]

    def __call__(self, batch: Union[np.ndarray, List[np.ndarray]]) -> np.ndarray:
        """Run one batch, or what `prepared` makes of it, and return the first output."""
        inputs = batch if isinstance(batch, list) else self.prepared(batch)
        return self._request.infer(inputs, share_inputs=True, share_outputs=True)[0]

    def predict(self, inputs: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Run many samples in batches, [N, ...] to [N, C]."""
        starts = range(0, len(inputs), batch_size)
        return np.concatenate([np.array(self(inputs[i : i + batch_size])) for i in starts])
