"""The row of a sample, found by its index. Knows nothing of what the rows hold."""

import numpy as np
from numpy.typing import NDArray


class Lookup:
    """Finds samples by their indices, whatever these are.

    Args:
        indices: of the samples, in the order of the rows, [N], each once.
    """

    def __init__(self, indices: NDArray[np.int64]) -> None:
        self._rows = np.argsort(indices)
        self._sorted = indices[self._rows]

    def __call__(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the row of each sample, [B]; -1 of one that is not there."""
        if not len(self._sorted):
            return np.full(len(wanted), -1)
        place = np.searchsorted(self._sorted, wanted).clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[place] == wanted, self._rows[place], -1)
