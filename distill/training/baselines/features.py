"""What a simple baseline reads of a sample: pixels, or a row of a table without codes as numbers.

Knows nothing of labels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from distill.tables.encoding import Layout
from distill.training.data.splits import chunks

MAX_SIDE = 32


def features_of(inputs: Any, layout: Layout | None) -> Any:
    """Turn a split's inputs into features, [N, F].

    Images become `pixels`. In rows of a table that have codes, each code becomes a figure for every
    value that it can have, 1 where it has it: the place of a category among others is no quantity.
    They then are sparse.

    Args:
        inputs: images [N, H, W, C], or encoded rows.
        layout: of such rows.
    """
    if inputs.ndim != 2:
        return pixels(inputs)
    if layout is None or not layout.cardinalities:
        return np.asarray(inputs)
    width = len(layout.names)
    codes = inputs[:, width:].astype(np.int64).T
    one_hot = [_one_hot(*own) for own in zip(codes, layout.cardinalities, strict=True)]
    return sparse.hstack([sparse.csr_array(inputs[:, :width]), *one_hot], format="csr")


def pixels(images: Any) -> NDArray[np.float32]:
    """Flatten images to [N, features] in 0..1, averaged in blocks down to `MAX_SIDE` a side."""
    height, width, channels = images.shape[1:]
    block = -(-max(height, width) // MAX_SIDE)
    rows, columns = height // block, width // block
    flat = np.empty((len(images), rows * columns * channels), np.float32)
    start = 0
    for part in chunks(images):
        cut = part[:, : rows * block, : columns * block]
        blocks = cut.reshape(len(part), rows, block, columns, block, channels)
        means = blocks.mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
        flat[start : start + len(part)] = means.reshape(len(part), -1)
        start += len(part)
    return flat


def _one_hot(codes: NDArray[np.int64], cardinality: int) -> sparse.csr_array:
    """Give each value but the unseen one, 0, a column."""
    (known,) = np.nonzero(codes)
    ones = np.ones(len(known), np.float32)
    return sparse.csr_array((ones, (known, codes[known] - 1)), (len(codes), cardinality - 1))
