"""What the weights of a network from elsewhere leave open: how its images were normalised.

Wrong ones cost a teacher points that nobody misses, so the usual ones are held against the labels.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from distill.errors import UserError
from distill.statistics.metrics import compare_paired
from distill.training.fit import predict_logits
from distill.training.teachers.classes import class_columns

if TYPE_CHECKING:
    from distill.training.data.images import ImageData

log = logging.getLogger(__name__)

OWN = "this data's"
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
NUM_ASKED = 1000
CONFIDENCE = 0.95

Normalization = tuple[list[float], list[float]]


def is_open(member: DictConfig, content: dict[str, Any], model: Any) -> bool:
    """Tell whether nobody says how a network wants its images normalised.

    Args:
        member: of the configuration.
        content: of its checkpoint; a whole model of ours, and so a run's, says it itself.
        model: built; torchvision's pretrained networks say it, too.
    """
    configured = member.get("mean") is not None or member.get("std") is not None
    is_whole = "mean" in content.get("state_dict", content)
    return not (configured or is_whole or hasattr(model.network, "normalization"))


def check_normalization(
    data: "ImageData", model: Any, classes: Sequence[str], setting: str
) -> None:
    """Ask a network about training images under the usual normalisations, and keep the data's.

    Args:
        data: with labels.
        model: an `ImageClassifier` that normalises as the data does.
        classes: of the model.
        setting: of the configuration that has its `mean` and `std`.

    Raises:
        UserError: it agrees clearly more often with the labels under another one.
    """
    channels = data.image_shape[2]
    choices: dict[str, Normalization] = {OWN: data.channel_statistics}
    if channels == 3:
        choices["ImageNet's"] = IMAGENET
    choices["pixels / 255"] = ([0.0] * channels, [1.0] * channels)
    rows = sample(len(data.train), NUM_ASKED)
    inputs, labels = data.train.inputs[rows], data.train.labels[rows]
    columns = class_columns(classes, data.classes, drop_classes=True)
    right: dict[str, NDArray[np.bool_]] = {}
    for name, values in choices.items():
        model.set_normalization(*values)
        logits = predict_logits(model, inputs)
        logits = logits if columns is None else logits[:, columns]
        right[name] = logits.argmax(axis=1) == labels
    model.set_normalization(*choices[OWN])
    shares = {name: float(own.mean()) for name, own in right.items()}
    said = ", ".join(f"{100 * share:.1f} % with {name}" for name, share in shares.items())
    best = max(shares, key=lambda name: shares[name])
    confidence = 1 - (1 - CONFIDENCE) / (len(choices) - 1)
    chance = np.bincount(labels).max() / len(labels)
    clear = compare_paired(right[best], right[OWN], confidence=confidence).interval[0] > 0
    if clear and shares[best] > chance:
        raise UserError(
            "Expected to know how the teacher's images were normalised but its checkpoint does "
            "not say, and another mean and std suit it clearly better than this data's: of "
            f"{len(rows)} training images it says what their label says on {said}. Set "
            f"{_settings(setting, choices[best])}, or, to keep this data's, "
            f"{_settings(setting, choices[OWN])}."
        )
    log.info(
        "the teacher's checkpoint does not say how images were normalised; mean and std are this "
        "data's (it agrees with the labels on %s, of %d training images)",
        said,
        len(rows),
    )


def sample(count: int, most: int) -> NDArray[np.int64]:
    """Choose rows at equal distances, for rows may lie class by class."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def _settings(setting: str, values: Normalization) -> str:
    mean, std = ("[" + ",".join(f"{value:.4g}" for value in own) + "]" for own in values)
    return f"`{setting}.mean={mean} {setting}.std={std}`"
