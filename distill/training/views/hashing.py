"""Random numbers without a generator: a hash of (seed, sample index, view number, stream).

Each view draws from streams of its own, so that two steps with the same seed decide independently.
Knows nothing of images.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

STREAMS_PER_VIEW = 64  # a class owns those from its `STREAM` on, a multiple; one of rows 2**20

_STEPS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0xA0761D6478BD642F)  # odd: seed, view, stream


def random_bits(
    seed: int, indices: NDArray[np.int64], view: int, stream: int = 0
) -> NDArray[np.uint64]:
    """Hash (seed, index, view, stream) to 64 well-mixed bits per sample, [B].

    Two rounds of the SplitMix64 finalizer (Steele et al., "Fast Splittable Pseudorandom Number
    Generators", 2014), a counter-based generator: no state, any order.
    """
    return _hash(seed, indices, view, (stream,))[0]


def uniforms(
    seed: int, indices: NDArray[np.int64], view: int, *, stream: int, count: int
) -> NDArray[np.float64]:
    """Draw `count` independent numbers in [0, 1) per sample, [count, B], each of 53 bits.

    Row k is of the stream `stream + k`.
    """
    bits = _hash(seed, indices, view, range(stream, stream + count))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(bound: int | NDArray[np.int64], draws: NDArray[np.float64]) -> NDArray[np.int64]:
    """Turn draws in [0, 1) into whole numbers from 0 to bound - 1."""
    return (draws * bound).astype(np.int64)  # the product rounds to less than any bound < 2**53


def _hash(
    seed: int, indices: NDArray[np.int64], view: int, streams: Iterable[int]
) -> NDArray[np.uint64]:
    start = seed * _STEPS[0] + view * _STEPS[1]
    keys = _mix(np.array([(start + stream * _STEPS[2]) % 2**64 for stream in streams], np.uint64))
    return _mix(keys[:, None] + indices.astype(np.uint64) * np.uint64(_STEPS[0]))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
