"""Raw rows as pandas reads them: what an estimator that was fitted on a DataFrame asks for.

Knows nothing of estimators.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from distill.tables.columns import Column, Kind, is_missing
from distill.training.data.records import RecordsByIndex
from distill.training.data.tables import TableData


class Frames:
    """Makes DataFrames of samples, found by their indices.

    Numbers are float64 and gaps NaN; booleans are bool, with gaps objects; texts are objects with
    NaN for a gap, and numbers where the file has numbers; dates are datetime64 with NaT.

    Args:
        data: of a table.
        names: of the columns, in order.
    """

    def __init__(self, data: TableData, names: Sequence[str]) -> None:
        assert data.encoder is not None
        known = {column.name: column for column in data.encoder.takes}
        self.columns = [known[name] for name in names]
        self._numbered = frozenset(data.numbered)
        parts = [data.train, data.validation, data.test, data.unlabelled]
        records = [part.records for part in parts if part is not None and part.records is not None]
        self._with_gaps = frozenset(
            own.name
            for own in self.columns
            if any(is_missing(own, r[own.name]).any() for r in records)
        )
        self._records = RecordsByIndex(data)

    def __call__(self, index: NDArray[np.int64]) -> Any:
        """Make a DataFrame of some samples, [B]."""
        records = self._records(index)
        return pd.DataFrame({own.name: self._read(own, records[own.name]) for own in self.columns})

    def _read(self, column: Column, values: NDArray[Any]) -> Any:
        gap = is_missing(column, values)
        if column.kind is Kind.DATE:
            as_pandas_does = pd.to_datetime(["1970-01-01"]).dtype  # its unit is its version's own
            return pd.Series(values.view("datetime64[ms]")).astype(as_pandas_does)
        if column.kind is Kind.NUMBER:
            return values
        if column.kind is Kind.BOOLEAN:
            if column.name not in self._with_gaps:
                return values == 1
            return pd.Series((values == 1).astype(object)).mask(gap, np.nan)
        if column.name in self._numbered:
            return np.where(gap, "nan", values).astype(np.float64)
        texts = values.astype(object)
        texts[gap] = np.nan
        return pd.Series(texts, dtype=object)
