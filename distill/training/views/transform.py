"""Any pipeline of torchvision's transforms, made replayable: each sample has its own seed.

The transforms draw from PyTorch's global generator, some of them from Python's or NumPy's. All
three are seeded for each sample, and afterwards are as they were before.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.errors import UserError
from distill.training.views.base import Images
from distill.training.views.hashing import random_bits


@dataclass(frozen=True, kw_only=True)
class TransformViews:
    """Apply a transform of torchvision.transforms.v2 to each image by itself.

    Slower than the views that take a whole batch: one call per image. What is replayed is the
    transform's randomness, as the installed torch and torchvision turn seeds into pixels.

    Attributes:
        transform: takes and gives a uint8 tensor [C, H, W]; no `Normalize` and no `ToDtype`, since
            each model does that itself.
        seed: two runs with the same seed see the same views.
    """

    STREAM: ClassVar[int] = 384

    transform: Callable[[Tensor], Any]
    seed: int = 0

    def __call__(self, images: Images, indices: NDArray[np.int64], view: int) -> Images:
        """Make the view of each image, [B, H, W, C] uint8 to [B, H', W', C] uint8.

        Raises:
            UserError: the transform gives something else, or images of different shapes.
        """
        tensors = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())  # [B, C, H, W]
        seeds = random_bits(self.seed, indices, view, self.STREAM).tolist()
        shown = np.empty((0,), np.uint8)
        with _generators_restored():
            for position, (tensor, seed) in enumerate(zip(tensors, seeds, strict=True)):
                _seed_generators(seed)
                image = _checked(self.transform(tensor), channels=images.shape[3])
                if position == 0:
                    shown = np.empty((len(images), *image.shape), np.uint8)
                elif image.shape != shown.shape[1:]:
                    raise UserError(
                        "Expected the `transform` to give images of one shape [H, W, C] but got "
                        f"{list(shown.shape[1:])} and {list(image.shape)}. End it with a crop or a "
                        "resize to a fixed size."
                    )
                shown[position] = image
        return shown


def _checked(image: Any, *, channels: int) -> Images:
    if (
        not isinstance(image, Tensor)
        or image.dtype != torch.uint8
        or image.ndim != 3
        or len(image) != channels
    ):
        got = type(image).__name__
        if isinstance(image, Tensor):
            got = f"{image.dtype} of shape {list(image.shape)}"
        raise UserError(
            f"Expected the `transform` to give a torch.uint8 tensor of shape [{channels}, H, W] "
            f"but got {got}. Leave `ToDtype`, `Normalize` and `ToPILImage` out of it."
        )
    return image.permute(1, 2, 0).numpy()


def _seed_generators(seed: int) -> None:
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would reseed the GPU's too
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def _generators_restored() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
