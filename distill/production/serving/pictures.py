"""A picture that somebody sends, to the pixels that a model takes; never more than memory bears.

What a file claims about its size is looked at before a pixel is decoded. Decoding is training's
own (`distill.decode`). Knows nothing of HTTP.
"""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distill.contract import ImageInput
from distill.decode import ImageFormat, decode_image
from distill.production.serving.refusals import Kind, RefusedError, malformed

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_PIXELS = 40_000_000  # of the file, and of what it is resized to on the way


def read_picture(data: bytes, takes: ImageInput) -> NDArray[np.uint8]:
    """Decode a picture and bring it to a model's format, [1, H, W, C].

    Raises:
        RefusedError: it is no picture, is truncated, or has too many pixels.
    """
    if not data:
        raise malformed("Expected a picture as the body, or as the file of a form, but got none.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what we look at ourselves, and odd metadata
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
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
            return decode_image(data, wanted)[None]
    except Exception as error:  # likewise
        raise malformed(
            f"Expected a whole picture but it is truncated or damaged ({str(error)[:80]})."
        ) from error


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
