"""Any ONNX file as teacher, whatever framework it comes from; here, an image classifier.

Brings images into the form the file wants and reads its answers; how a session is made is the
runtime's business, which classes the data has is its owner's.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from torch import Tensor, nn

from distill.contract import classes_of
from distill.errors import UserError
from distill.files import sha256, sha256_json
from distill.runtime import ModelError, OnnxModel
from distill.tasks import TaskKind
from distill.training.channels import Written, per_channel
from distill.training.teachers.base import Teacher, TeacherOutput
from distill.training.teachers.outputs import check_width, to_outputs

_TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}


@dataclass(frozen=True, kw_only=True)
class _Input:
    """What the file takes; a size is None where it takes any."""

    dtype: Any
    channels_first: bool
    channels: int
    height: int | None
    width: int | None


class OnnxFile(Teacher):
    """An ONNX file that maps a batch to logits [B, C], its first output; runs on the CPU.

    What it is given of a batch is its subclass's business. A fixed batch size is filled up. Numbers
    [B, D], or [B] where there is one, stay in the file's own units.

    Args:
        path: the file.
        classes: names in the order of its outputs; None reads the contract beside the file, and
            without one nobody knows them.
        outputs_probabilities: whether the outputs are probabilities, not logits (`to_outputs`).
        kind: of answers.

    Raises:
        UserError: the file is missing or damaged, or the contract beside it is another file's.
    """

    def __init__(
        self,
        path: str | Path,
        classes: Sequence[str] | None,
        *,
        outputs_probabilities: bool | None,
        kind: TaskKind = TaskKind.CLASSIFICATION,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.outputs_probabilities, self._kind = outputs_probabilities, kind
        self._opened: tuple[int, OnnxModel] | None = None
        known = classes_of(self.path, self._model.metadata) if classes is None else classes
        self.classes = None if known is None else tuple(known)
        self._sha256 = [sha256(path) for path in weights_files(self.path)]
        self.train()

    @property
    def _model(self) -> OnnxModel:
        """The session, opened anew in every process: it neither travels nor survives a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = (
                    os.getpid(),
                    OnnxModel(self.path, num_threads=torch.get_num_threads()),
                )
            except ModelError as error:
                raise UserError(str(error)) from error
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def given(self, image: Tensor, index: NDArray[np.int64]) -> NDArray[Any]:
        """Bring a batch of samples into the form that the file wants, [B, ...]."""
        raise NotImplementedError

    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch."""
        indices = index.cpu().numpy()
        batch = self.given(image.cpu(), indices)
        size = self._model.input_shape[0]
        if size is not None and len(batch) % size:
            filling = np.repeat(batch[-1:], size - len(batch) % size, axis=0)
            batch = np.concatenate([batch, filling])
        try:
            answers = self._model.predict(batch)
        except ModelError as error:
            raise UserError(str(error)) from error
        except ValueError as error:  # outputs without a batch cannot be put together
            raise UserError(
                f"Expected the first output of {self.path} to be logits [batch, classes] but "
                f"{error}. Export the model with its logits as first output."
            ) from error
        if self._kind is TaskKind.REGRESSION and answers.ndim == 1:
            answers = answers[:, None]
        if answers.ndim != 2 or len(answers) != len(batch) or answers.dtype.kind != "f":
            raise UserError(
                f"Expected the first output of {self.path} to be float logits [batch, classes] but "
                f"got {answers.dtype} {answers.shape} for a batch of {len(batch)}. Export the "
                "model with its logits as first output."
            )
        check_width(answers.shape[1], self.classes, str(self.path))
        logits = to_outputs(
            answers[: len(image)],
            indices,
            str(self.path),
            kind=self._kind,
            outputs_probabilities=self.outputs_probabilities,
        )
        return TeacherOutput(logits=torch.from_numpy(logits).to(image.device))


class OnnxTeacher(OnnxFile):
    """An ONNX file over images.

    The file's one input is uint8, and is given the images as they are, or float, and is given
    (pixel / 255 - mean) / std; NHWC or NCHW, told by which side has 1 or 3 channels. Where its
    height and width are fixed and others, images are resized to them (bilinear, antialiased, both
    sides on their own).

    Args:
        path: see `OnnxFile`.
        classes: likewise.
        mean: per channel, or one number for all, in units of 0..1; of a float input alone.
        std: as `mean`.
        outputs_probabilities: see `OnnxFile`.

    Raises:
        UserError: the file is missing, damaged or no image classifier, `mean` and `std` are
            missing or out of place, or the contract beside it is another file's.
    """

    def __init__(
        self,
        path: str | Path,
        classes: Sequence[str] | None = None,
        *,
        mean: Written = None,
        std: Written = None,
        outputs_probabilities: bool | None = None,
    ) -> None:
        super().__init__(path, classes, outputs_probabilities=outputs_probabilities)
        self._input = _read_input(self._model)
        self._normalization = _read_normalization(self._input, mean, std, self.path)

    @property
    def fingerprint(self) -> str:
        """Hash of the file, of the weights beside it, and of how it is used."""
        return sha256_json([self._sha256, self._normalization, bool(self.outputs_probabilities)])

    def given(self, image: Tensor, index: NDArray[np.int64]) -> NDArray[Any]:
        """Bring uint8 images [B, H, W, C] into the form that the file wants."""
        wanted = self._input
        if image.shape[3] != wanted.channels:
            raise UserError(
                f"Expected images of {wanted.channels} channels for {self.path} but the data has "
                f"{image.shape[3]}. Read the data with as many channels, or choose another teacher."
            )
        x = image.float()
        if self._normalization is not None:
            mean, std = (torch.tensor(values) for values in self._normalization)
            x = (x / 255 - mean) / std
        x = x.permute(0, 3, 1, 2)
        size = (wanted.height or x.shape[2], wanted.width or x.shape[3])
        if size != tuple(x.shape[2:]):
            x = nn.functional.interpolate(
                x, size=size, mode="bilinear", antialias=True, align_corners=False
            )
        if wanted.dtype is np.uint8:
            x = x.round().clamp(0, 255)
        x = x if wanted.channels_first else x.permute(0, 2, 3, 1)
        return np.ascontiguousarray(x.numpy(), dtype=wanted.dtype)


def _read_input(model: OnnxModel) -> _Input:
    shape = model.input_shape
    if model.input_type not in _TYPES or len(shape) != 4:
        raise UserError(
            f"Expected {model.path} to take images, uint8 or float of four dimensions, but it "
            f"takes {model.input_type} {list(shape)}. Name an image classifier."
        )
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
        raise UserError(
            f"Expected {model.path} to take images with 1 or 3 channels, either [batch, channels, "
            f"height, width] or [batch, height, width, channels], but it takes {list(shape)}. "
            "Export it with a fixed number of channels."
        )
    channels, height, width = shape[1:] if first else (shape[3], *shape[1:3])
    assert channels is not None
    return _Input(
        dtype=_TYPES[model.input_type],
        channels_first=first,
        channels=channels,
        height=height,
        width=width,
    )


def _read_normalization(
    wanted: _Input, mean: Written, std: Written, path: Path
) -> tuple[list[float], list[float]] | None:
    if wanted.dtype is np.uint8:
        if mean is not None or std is not None:
            raise UserError(
                f"Expected no `teacher.mean` and `teacher.std` for {path}, which takes uint8 "
                "images and normalises them itself. Set both to null."
            )
        return None
    return per_channel(mean, std, wanted.channels, f"{path}, which takes floats")


def weights_files(path: Path) -> list[Path]:
    """Name an ONNX file, and those beside it that hold its weights, whatever they are called."""
    try:
        weights = onnx.load(path, load_external_data=False).graph.initializer
    except (DecodeError, OSError):  # who opens it says what is wrong with it
        return [path]
    beside = {ExternalDataInfo(w).location for w in weights if uses_external_data(w)}
    return [path, *(path.parent / name for name in sorted(beside))]
