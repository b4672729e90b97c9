"""Raw records found by the index of a sample, in whichever split it is."""

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.tables.columns import Records
from distill.training.data.splits import Data, Split
from distill.training.lookup import Lookup


class RecordsByIndex:
    """Finds the records of a table or a series, whose samples have one numbering in all splits.

    Args:
        data: of which the records of all splits are kept, not copied.
    """

    def __init__(self, data: Data) -> None:
        splits = (data.train, data.validation, data.test, data.unlabelled, data.old_test)
        self._name = data.name
        self._parts = [_part(own) for own in splits if own is not None]
        self.dtype = self._parts[0][1].dtype

    def __call__(self, index: NDArray[np.int64]) -> Records:
        """Find the records of some samples, [B].

        Raises:
            UserError: no split has one of them.
        """
        found = np.zeros(len(index), self.dtype)
        known = np.zeros(len(index), np.bool_)
        for lookup, records in self._parts:
            rows = lookup(index)
            here = rows >= 0
            found[here] = records[rows[here]]
            known |= here
        if not known.all():
            raise UserError(
                f"Expected samples of {self._name} but {(~known).sum()} of {len(index)} are in "
                f"none of its splits, such as index {index[~known][0]}. Ask about the data's own."
            )
        return found


def _part(split: Split) -> tuple[Lookup, Records]:
    assert split.records is not None
    return Lookup(split.indices), split.records
