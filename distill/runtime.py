"""The only onnxruntime session factory: one ONNX file, explicit threads, checked inputs.

A model takes one array, or columns by name, [B, length] each; those are given as records, a
structured array with a field for each column, of so many values where there are several.

Travels to devices beside `latency.py`, so it needs only the standard library, numpy and
onnxruntime, in Python 3.9 syntax, and knows nothing of the rest of the project.
"""

from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

import numpy as np
import onnxruntime

EMBEDDING = "embedding"  # an output, behind the answers: penultimate features, [B, D] float32


class ModelError(ValueError):
    """An ONNX file that cannot be used as asked; the command line prints it without a traceback."""

    exit_code = 1


def open_session(
    path: Path, *, num_threads: int = 1, spin: bool = True
) -> onnxruntime.InferenceSession:
    """Load an ONNX file, whatever its inputs are; arguments as of `OnnxModel`.

    Raises:
        ModelError: the file is missing, truncated or no ONNX model.
    """
    if not path.is_file():
        raise ModelError("Expected an ONNX file at %s but there is none." % path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base for these
        reason = str(error).splitlines()[0]
        raise ModelError(
            "Expected an ONNX model at %s but onnxruntime cannot load it (%s). "
            "The file is truncated or something else: export it again." % (path, reason)
        ) from error


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
        self.session = open_session(self.path, num_threads=num_threads, spin=spin)
        inputs = self.session.get_inputs()
        flat = [i for i in inputs if len(i.shape) == 2 and isinstance(i.shape[1], int)]
        self.columns: Dict[str, str] = {i.name: i.type for i in flat}
        self.lengths: Dict[str, int] = {i.name: i.shape[1] for i in flat}
        if len(inputs) != 1 and len(flat) != len(inputs):
            raise ModelError(
                "Expected one input in %s, or columns [batch, length], but found %s."
                % (self.path, ", ".join("%s %s" % (i.name, list(i.shape)) for i in inputs))
            )
        self.input_name: str = inputs[0].name
        self.input_shape: Tuple[Optional[int], ...] = tuple(
            d if isinstance(d, int) else None for d in inputs[0].shape
        )
        self.input_type: str = inputs[0].type
        self.output_names: List[str] = [o.name for o in self.session.get_outputs()]
        self.answer_names = answers_among(self.output_names)
        self.metadata: Dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)

    def __call__(self, batch: Union[np.ndarray, Dict[str, np.ndarray]]) -> np.ndarray:
        """Run one batch, all answers to it, and return the first. The session checks shapes.

        Args:
            batch: an array, or what `prepared` makes of records.
        """
        feeds = batch if isinstance(batch, dict) else self.prepared(batch)
        return self.session.run(self.answer_names, feeds)[0]  # type: ignore[return-value]

    def prepared(self, batch: np.ndarray) -> Dict[str, np.ndarray]:
        """Lay a batch out as the session takes it."""
        if batch.dtype.names is None:
            return {self.input_name: batch}
        packed, count = np.ascontiguousarray, len(batch)
        return {name: packed(batch[name]).reshape(count, -1) for name in self.columns}

    def predict(self, inputs: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Run many samples in batches, [N, ...] to [N, C].

        Raises:
            ModelError: the model takes another shape or type, or it fails.
        """
        return self._run(self.answer_names[0], inputs, batch_size)

    @property
    def has_embedding(self) -> bool:
        """Whether it gives its penultimate features beside its answers."""
        return EMBEDDING in self.output_names[1:]

    def embed(self, inputs: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Give the penultimate features of many samples, [N, ...] to [N, D], where it has them.

        Raises:
            ModelError: it has none, takes another shape or type, or fails.
        """
        if not self.has_embedding:
            raise ModelError(
                "Expected an output `%s` of %s but it has %s. Export it with `embedding=true`."
                % (EMBEDDING, self.path, ", ".join(self.output_names))
            )
        return self._run(EMBEDDING, inputs, batch_size)

    def _run(self, name: str, inputs: np.ndarray, batch_size: int) -> np.ndarray:
        self._check(inputs)
        if self.input_shape[0] is not None:
            batch_size = self.input_shape[0]
        starts = range(0, len(inputs), batch_size)
        try:
            outputs = [
                np.asarray(self.session.run([name], self.prepared(inputs[i : i + batch_size]))[0])
                for i in starts
            ]
        except Exception as error:
            raise ModelError("%s fails: %s" % (self.path, str(error).splitlines()[0])) from error
        return np.concatenate(outputs)

    def _check(self, inputs: np.ndarray) -> None:
        if self.columns and (inputs.dtype.names is not None or len(self.columns) > 1):
            for name, kind in self.columns.items():
                expected, found = layout(kind, self.lengths[name]), layout_in(inputs, name)
                if found != expected:
                    raise ModelError(
                        "Expected the column `%s` as %s in what %s is given but got %s."
                        % (name, expected, self.path, found)
                    )
            return
        shape = self.input_shape[1:]
        matches = len(shape) == inputs.ndim - 1 and all(
            e is None or e == f for e, f in zip(shape, inputs.shape[1:])
        )
        if not matches or self.input_type != tensor_type(inputs.dtype):
            raise ModelError(
                "Expected input %s %s in %s but got %s %s."
                % (self.input_type, list(self.input_shape), self.path, inputs.dtype, inputs.shape)
            )


def answers_among(output_names: List[str]) -> List[str]:
    """Leave out the embedding: who asks for answers gets none. The first output is one always."""
    return [name for at, name in enumerate(output_names) if at == 0 or name != EMBEDDING]


def layout(kind: str, *lengths: int) -> str:
    """Say of which type and length a column is."""
    return "%s of length %s" % (kind, "x".join(map(str, lengths)))


def layout_in(inputs: np.ndarray, name: str) -> str:
    """Say of which one of the fields of records is, if there is such a field."""
    if inputs.dtype.names is None:
        return "an array, %s %s" % (inputs.dtype, list(inputs.shape))
    if name not in inputs.dtype.names:
        return "none"
    own = inputs.dtype[name]
    return layout(tensor_type(own.base), *(own.shape or (1,)))


def tensor_type(dtype: np.dtype) -> str:
    """Name a NumPy type as onnxruntime does."""
    names = {"float32": "float", "float64": "double", "float16": "float16"}
    if dtype.kind == "U":
        return "tensor(string)"
    return "tensor(%s)" % names.get(dtype.name, dtype.name)
