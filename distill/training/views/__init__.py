"""Replayable augmentation: a view is a pure function of (seed, sample index, view number).

Works on whole batches in NumPy, of uint8 images or of the encoded rows of a table, and holds no
random state, so the same view can be made again years later, in another order, by another worker or
on another machine. `geometry`, `color` and `erasing` change one image, `mixing` two, `transform`
runs torchvision's transforms; `rows` changes and mixes rows. Knows nothing of labels, models or
where samples come from.
"""

from distill.training.views.base import Compose, Images, Unchanged, Views, bound
from distill.training.views.color import ColorJitter
from distill.training.views.erasing import RandomErasing
from distill.training.views.geometry import RandomResizedCrop, ShiftFlip
from distill.training.views.hashing import random_bits
from distill.training.views.mixing import CutMix, Mixing, MixUp
from distill.training.views.rows import MixUpRows, NoiseRows, SwapColumns
from distill.training.views.transform import TransformViews

VERSION = 1  # raised whenever what a view shows changes: labels stored of another are refused

__all__ = [
    "VERSION",
    "ColorJitter",
    "Compose",
    "CutMix",
    "Images",
    "MixUp",
    "MixUpRows",
    "Mixing",
    "NoiseRows",
    "RandomErasing",
    "RandomResizedCrop",
    "ShiftFlip",
    "SwapColumns",
    "TransformViews",
    "Unchanged",
    "Views",
    "bound",
    "random_bits",
]
