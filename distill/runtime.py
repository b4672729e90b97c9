"""The only onnxruntime session factory: one ONNX file, explicit threads, checked inputs.

A model takes one array, or columns by name, [B, 1] each; those are given as records, a structured
array with a field for each column.

Travels to devices beside `latency.py`, so it needs only the standard library, numpy and
onnxruntime, in Python 3.9 syntax, and knows nothing of the rest of the project.
"""

from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

import numpy as np
import onnxruntime


class ModelError(ValueError):
    """An ONNX file that cannot be used as asked; the command line prints it without a traceback."""

    exit_code = 1


class OnnxModel:
    """An ONNX model, called with one array: its single input, or records of its columns.

    Args:
        path: the file.
        num_threads: for one operator; never left to the runtime, which ignores CPU affinity.
        spin: whether idle threads burn their CPU waiting; as the deployment will.

    Raises:
        ModelError: the file is missing, truncated or no ONNX model, or has several inputs that are
            no columns.
    """

    def __init__(self, path: Union[str, Path], *, num_threads: int = 1, spin: bool = True) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelError("Expected an ONNX file at %s but there is none." % self.path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        try:
            self.session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no common base for these
            reason = str(error).splitlines()[0]
            raise ModelError(
                "Expected an ONNX model at %s but onnxruntime cannot load it (%s). "
                "The file is truncated or something else: export it again." % (self.path, reason)
            ) from error
        inputs = self.session.get_inputs()
        self.columns: Dict[str, str] = {i.name: i.type for i in inputs if list(i.shape[1:]) == [1]}
        if len(inputs) != 1 and len(self.columns) != len(inputs):
            names = ", ".join(i.name for i in inputs)
            raise ModelError(
                "Expected one input in %s, or columns [batch, 1], but found %s."
                % (self.path, names)
            )
        self.input_name: str = inputs[0].name
        self.input_shape: Tuple[Optional[int], ...] = tuple(
            d if isinstance(d, int) else None for d in inputs[0].shape
        )
        self.input_type: str = inputs[0].type
        self.output_names: List[str] = [o.name for o in self.session.get_outputs()]
        self.metadata: Dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)

    def __call__(self, batch: Union[np.ndarray, Dict[str, np.ndarray]]) -> np.ndarray:
        """Run one batch, all outputs of it, and return the first. The session checks shapes.

        Args:
            batch: an array, or what `prepared` makes of records.
        """
        feeds = batch if isinstance(batch, dict) else self.prepared(batch)
        return self.session.run(None, feeds)[0]  # type: ignore[return-value]

    def prepared(self, batch: np.ndarray) -> Dict[str, np.ndarray]:
        """Lay a batch out as the session takes it."""
        if batch.dtype.names is None:
            return {self.input_name: batch}
        return {name: np.ascontiguousarray(batch[name])[:, None] for name in self.columns}

    def predict(self, inputs: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Run many samples in batches, [N, ...] to [N, C].

        Raises:
            ModelError: the model takes another shape or type, or it fails.
        """
        self._check(inputs)
        if self.input_shape[0] is not None:
            batch_size = self.input_shape[0]
        try:
            outputs = [self(inputs[i : i + batch_size]) for i in range(0, len(inputs), batch_size)]
        except Exception as error:
            raise ModelError("%s fails: %s" % (self.path, str(error).splitlines()[0])) from error
        return np.concatenate(outputs)

    def _check(self, inputs: np.ndarray) -> None:
        if inputs.dtype.names is not None:
            for name, kind in self.columns.items():
                own = inputs.dtype[name] if name in inputs.dtype.names else None
                if own is None or tensor_type(own) != kind:
                    raise ModelError(
                        "Expected the column `%s` as %s in what %s is given but got %s."
                        % (name, kind, self.path, "none" if own is None else own)
                    )
            if self.columns:
                return
        expected = self.input_shape[1:]
        matches = len(expected) == inputs.ndim - 1 and all(
            e is None or e == f for e, f in zip(expected, inputs.shape[1:])
        )
        if not matches or self.input_type != tensor_type(inputs.dtype):
            raise ModelError(
                "Expected input %s %s in %s but got %s %s."
                % (self.input_type, list(self.input_shape), self.path, inputs.dtype, inputs.shape)
            )


def tensor_type(dtype: np.dtype) -> str:
    """Name a NumPy type as onnxruntime does."""
    names = {"float32": "float", "float64": "double", "float16": "float16"}
    if dtype.kind == "U":
        return "tensor(string)"
    return "tensor(%s)" % names.get(dtype.name, dtype.name)
