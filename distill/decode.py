"""Bytes to arrays: the one image decoder of training, calibration, prediction and serving.

Knows nothing of labels or models.
"""

import io
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from distill.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # whatever a file is called: others start programs

_CHUNK = 64  # images a thread decodes before it is scheduled again

Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """What every decoded image looks like.

    Attributes:
        height: in pixels; None takes the first image's and refuses others.
        width: as `height`.
        channels: 1 (gray) or 3 (RGB).
    """

    height: int | None = None
    width: int | None = None
    channels: int = 3

    def __post_init__(self) -> None:
        """Refuse what Pillow would not decode."""
        if self.channels not in (1, 3):
            raise UserError(f"Expected `channels` to be 1 or 3 but got {self.channels}.")


@dataclass(kw_only=True)
class Decoded:
    """Decoded images and what could not be decoded."""

    images: NDArray[np.uint8]  # [N, H, W, C]
    positions: NDArray[np.int64]  # [N], where in the input each image stood
    skipped: list[str] = field(default_factory=list)


def decode_image(data: bytes | Path, image_format: ImageFormat) -> NDArray[np.uint8]:
    """Decode one image and bring it to the format, [H, W, C] uint8.

    The shorter side is resized (bilinear, antialiased) to cover the target, then the centre is cut
    out: proportions are kept.

    Raises:
        OSError: the bytes are truncated or no image.
    """
    try:
        stream = io.BytesIO(data) if isinstance(data, bytes) else data
        source = Image.open(stream, formats=FORMATS)
        with source as image:
            image = image.convert("L" if image_format.channels == 1 else "RGB")
    except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from error
    if image_format.height is not None and image_format.width is not None:
        image = _cover(image, image_format.height, image_format.width)
    pixels = np.asarray(image, np.uint8)
    return pixels[:, :, None] if image_format.channels == 1 else pixels


def decode_images(
    sources: Sequence[bytes | Path],
    image_format: ImageFormat,
    *,
    names: Sequence[str] | None = None,
    skip_corrupt: bool = False,
    skip_option: str | None = None,
    progress: Progress | None = None,
    scratch: Path | None = None,
) -> Decoded:
    """Decode many images into one array, in order.

    Args:
        sources: encoded images, or their paths.
        image_format: what they are brought to.
        names: what to call each in a message; paths name themselves.
        skip_corrupt: leave out what cannot be decoded, and count it, rather than stop.
        skip_option: by which a user sets that, for the message; None where there is none.
        progress: called now and then with (done, total).
        scratch: a folder on whose disk the pixels are kept, for more images than memory holds; the
            file has no name there and goes with the process. None keeps them in memory.

    Raises:
        UserError: an image is corrupt (and not skipped) or of another size than the first.
    """

    def name(position: int) -> str:
        return names[position] if names is not None else str(sources[position])

    def attempt(source: bytes | Path) -> NDArray[np.uint8] | str:
        try:
            return decode_image(source, image_format)
        except OSError as error:
            return str(error)

    def attempt_all(start: int) -> list[NDArray[np.uint8] | str]:
        return [attempt(source) for source in sources[start : start + _CHUNK]]

    images: NDArray[np.uint8] | None = None
    positions: list[int] = []
    skipped: list[str] = []
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the GIL
        chunks = pool.map(attempt_all, range(0, len(sources), _CHUNK))
        for position, result in enumerate(chain.from_iterable(chunks)):
            if progress is not None and position % _CHUNK == 0:
                progress(position, len(sources))
            if isinstance(result, str):
                if not skip_corrupt:
                    pool.shutdown(cancel_futures=True)
                    skip = f", or set `{skip_option}=true` to go on without it" * bool(skip_option)
                    raise UserError(
                        f"Expected an image but {name(position)} cannot be decoded ({result}). "
                        f"Mend or remove it{skip}."
                    )
                skipped.append(name(position))
                continue
            if images is None:
                images = _allocate((len(sources), *result.shape), scratch)
            if result.shape != images.shape[1:]:
                pool.shutdown(cancel_futures=True)
                raise UserError(
                    f"Expected images of one size but {name(position)} is "
                    f"{result.shape[0]}x{result.shape[1]} and others are "
                    f"{images.shape[1]}x{images.shape[2]}. Set `data.image_size=[height,width]`."
                )
            images[len(positions)] = result
            positions.append(position)
    if images is None:
        raise UserError(f"Expected at least one readable image but none of {len(sources)} is.")
    if progress is not None:
        progress(len(sources), len(sources))
    return Decoded(
        images=images[: len(positions)], positions=np.array(positions, np.int64), skipped=skipped
    )


def _allocate(shape: tuple[int, ...], scratch: Path | None) -> NDArray[np.uint8]:
    if scratch is None:
        return np.empty(shape, np.uint8)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as file:  # the mapping outlives the open file
        os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))  # a full disk shows here
        return np.memmap(file, np.uint8, "r+", shape=shape)


def _cover(image: Image.Image, height: int, width: int) -> Image.Image:
    if image.size == (width, height):
        return image
    scale = max(width / image.width, height / image.height)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return image.crop((left, top, left + width, top + height))
