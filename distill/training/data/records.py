"""Raw records found by the index of a sample, in whichever split it is."""

import numpy as np
from numpy.typing import NDArray

from distill.columns import Records
from distill.errors import UserError
from distill.training.data.splits import Data


class RecordsByIndex:
    """Finds the records of a table or a series, whose samples have one numbering in all splits.

    Args:
        data: of which the records of all splits are kept, not copied.
    """

    def __init__(self, data: Data) -> None:
        splits = (data.train, data.validation, data.test, data.unlabelled, data.old_test)
        self._name = data.name
        self._parts = [_Part(own.indices, own.records) for own in splits if own is not None]
        self.dtype = self._parts[0].records.dtype

    def __call__(self, index: NDArray[np.int64]) -> Records:
        """Find the records of some samples, [B].

        Raises:
            UserError: no split has one of them.
        """
        found = np.zeros(len(index), self.dtype)
        known = np.zeros(len(index), np.bool_)
        for part in self._parts:
            known |= part.fill(found, index)
        if not known.all():
            raise UserError(
                f"Expected samples of {self._name} but {(~known).sum()} of {len(index)} are in "
                f"none of its splits, such as index {index[~known][0]}. Ask about the data's own."
            )
        return found


class _Part:
    """The records of a split, by index."""

    def __init__(self, indices: NDArray[np.int64], records: Records | None) -> None:
        assert records is not None
        self.records, self._order = records, np.argsort(indices)
        self._sorted = indices[self._order]

    def fill(self, found: Records, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Fill in those samples that are here; return which they are."""
        place = np.minimum(np.searchsorted(self._sorted, index), len(self._sorted) - 1)
        here = self._sorted[place] == index
        found[here] = self.records[self._order[place[here]]]
        return here
