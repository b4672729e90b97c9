"""Replayable augmentation: a view is a pure function of (seed, sample index, view number).

Works on whole batches of uint8 images in NumPy and holds no random state, so the same view can be
made again years later, in another order, by another worker or on another machine. `geometry`,
`color` and `erasing` change one image, `mixing` two, `transform` runs torchvision's transforms.
Knows nothing of labels, models or where images come from.
"""

from distill.training.views.base import Compose, Images, Unchanged, Views
from distill.training.views.color import ColorJitter
from distill.training.views.erasing import RandomErasing
from distill.training.views.geometry import RandomResizedCrop, ShiftFlip
from distill.training.views.hashing import random_bits
from distill.training.views.mixing import CutMix, Mixing, MixUp
from distill.training.views.transform import TransformViews

VERSION = 1  # raised whenever a view's pixels change: stored labels of another version are refused

__all__ = [
    "VERSION",
    "ColorJitter",
    "Compose",
    "CutMix",
    "Images",
    "MixUp",
    "Mixing",
    "RandomErasing",
    "RandomResizedCrop",
    "ShiftFlip",
    "TransformViews",
    "Unchanged",
    "Views",
    "random_bits",
]
