"""A picture that somebody sends, to the pixels that a model takes; never more than memory bears.

What a file claims about its size is looked at before a pixel is decoded. Decoding is training's
own (`distill.decode`). Knows nothing of HTTP.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.contract import ImageInput
from distill.decode import FORMATS, ImageFormat, decode_image
from distill.production.serving.refusals import Kind, RefusedError, malformed

_GREY = ("1", "L", "LA", "La", "I", "F", "I;16")  # Pillow's modes without colour
MAX_PIXELS = 40_000_000  # of the file, and of what it is resized to on the way


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What a model is given of a picture.

    Attributes:
        pixels: [1, H, W, C].
        adapted: what was done to it that is no mere decoding, by kind: resized, greyed.
    """

    pixels: NDArray[np.uint8]
    adapted: dict[str, str]


def read_picture(data: bytes, takes: ImageInput) -> Picture:
    """Decode a picture and bring it to a model's format, as training did with its own.

    Raises:
        RefusedError: it is no picture, is truncated, or has too many pixels.
    """
    if not data:
        raise malformed("Expected a picture as the body, or as the file of a form, but got none.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what we look at ourselves, and odd metadata
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                (width, height), mode = image.size, image.mode
    except Image.DecompressionBombError as error:
        raise _too_large("far beyond", takes) from error
    except Exception as error:  # Pillow's readers raise all sorts for a damaged file
        raise malformed(
            f"Expected a picture as {', '.join(FORMATS)} but the bytes are none, or damaged."
        ) from error
    _check_size(width, height, takes)
    wanted = ImageFormat(height=takes.height, width=takes.width, channels=takes.channels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = decode_image(data, wanted)[None]
    except Exception as error:  # likewise
        raise malformed(
            f"Expected a whole picture but it is truncated or damaged ({str(error)[:80]})."
        ) from error
    adapted = {}
    if (width, height) != (takes.width, takes.height):
        adapted["resized"] = f"from {width} x {height} to {takes.width} x {takes.height}"
    if takes.channels == 1 and mode not in _GREY:
        adapted["greyed"] = f"from {mode}"
    return Picture(pixels=pixels, adapted=adapted)


def _check_size(width: int, height: int, takes: ImageInput) -> None:
    """Refuse what decoding would blow up: many pixels, or a sliver stretched to cover a square."""
    scale = max(takes.width / width, takes.height / height)
    resized = max(takes.width, width * scale) * max(takes.height, height * scale)
    if max(width * height, resized) > MAX_PIXELS:
        raise _too_large(f"{width:,} x {height:,}", takes)


def _too_large(found: str, takes: ImageInput) -> RefusedError:
    return RefusedError(
        Kind.TOO_LARGE,
        f"Expected a picture of at most {MAX_PIXELS:,} pixels, also once its shorter side covers "
        f"{takes.width} x {takes.height}, but it is {found}. Crop it or make it smaller.",
        status=413,
    )
