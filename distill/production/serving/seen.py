"""Which rows hold a value that a model's training has never seen, as far as its contract says.

That is a category it does not know (a gap among them, where training had none), or another number
than 0 and 1 where it takes yes or no. A contract says nothing of ranges, nor of gaps in numbers:
whether those drift is for `monitor` to see.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distill.contract import Contract
from distill.tables.columns import Kind


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What training has seen of a table's columns; nothing is new to a model without one.

    Attributes:
        categories: by column of texts its values.
        booleans: columns of yes or no.
    """

    categories: Mapping[str, frozenset[str]] = field(default_factory=dict)
    booleans: tuple[str, ...] = ()

    @staticmethod
    def of(contract: Contract | None) -> "Seen":
        """Read it off a contract."""
        table = None if contract is None else contract.table
        if table is None:
            return Seen()
        return Seen(
            categories={name: frozenset(map(str, v)) for name, v in table.categories.items()},
            booleans=tuple(own.name for own in table.columns if own.kind is Kind.BOOLEAN),
        )

    def odd_rows(self, feeds: Mapping[str, NDArray], num_rows: int) -> frozenset[int]:
        """Find the rows of a request that hold something new.

        Args:
            feeds: by name, [N, length] each; what is of another kind than here is left alone.
            num_rows: N, or 1 where the inputs have no rows in common.
        """
        odd = np.zeros(num_rows, bool)
        for name, values in feeds.items():
            new = self._new(name, values)
            if new is not None and new.any():
                odd |= new.reshape(num_rows, -1).any(axis=1)
        return frozenset(np.flatnonzero(odd).tolist())

    def _new(self, name: str, values: NDArray) -> NDArray[np.bool_] | None:
        if name in self.categories and values.dtype.kind == "O":
            known = self.categories[name]
            given = (value not in known for value in values.ravel())
            return np.fromiter(given, bool, values.size)
        if name in self.booleans and values.dtype.kind == "f":
            return ~(np.isnan(values) | (values == 0) | (values == 1))
        return None
