"""A live torch model as teacher, its features within reach."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from distill.training.taps import Taps
from distill.training.teachers.base import Teacher, TeacherOutput


class Answers(nn.Module):
    """A teacher as a plain model, images to logits, for whoever exports or runs it alone."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, image: Tensor) -> Tensor:
        """Map [B, H, W, C] uint8 to logits."""
        index = torch.zeros(image.shape[0], dtype=torch.int64, device=image.device)
        return self.teacher(image, index).logits


class TorchTeacher(Teacher):
    """A torch model that maps [B, H, W, C] uint8 to logits, preprocessing inside.

    Args:
        model: frozen here, its parameters no longer want gradients.
        classes: names in the order of its logits.
    """

    computes_in_torch = True

    def __init__(self, model: nn.Module, classes: Sequence[str] | None = None) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.classes = tuple(classes) if classes is not None else None
        self._taps, self._names = None, ()
        self.train()

    def tap(self, names: Sequence[str]) -> None:
        """Gather the features of these modules of the model's network."""
        network = getattr(self.model, "network", self.model)
        self._taps, self._names = Taps(network, names, "teacher"), names

    @property
    def fingerprint(self) -> str:
        """Hash of the weights, names and shapes included, and of the size images are brought to."""
        digest = hashlib.sha256()
        size = getattr(self.model, "input_size", None)
        if size is not None:  # no weight tells
            digest.update(f"input_size {tuple(size)}".encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def folded(self) -> Teacher:
        """Fold batch norm into the convolutions before it, where the model can be traced."""
        try:
            model = fuse(self.model)
        except Exception:  # tracing fails in as many ways as there are models
            return self
        return TorchTeacher(model.to(memory_format=torch.channels_last), self.classes)

    @torch.no_grad()
    def forward(self, image: Tensor, index: Tensor) -> TeacherOutput:
        """Answer a batch; the samples' indices are not needed."""
        logits = self.model(image)
        features = self._taps.take(self._names) if self._taps else None
        return TeacherOutput(logits=logits, features=features)
