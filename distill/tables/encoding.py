"""Raw columns to the numbers that a network or an estimator reads, and back to what they mean.

Fitted on training rows, then a pure function; the same is built into the exported file, from the
figures kept here. Knows nothing of files and of networks.

Encoded rows are float32 [N, F], all finite, in three parts:

- figures: numbers standardised, booleans as 0 and 1, dates as below; a gap is 0, the mean. Of a
  category with few values one figure for each, which is 1; a gap is a value of its own;
- gaps: 1 where a number, boolean or date that had gaps in training has one, else 0;
- codes: of a category with many values its place among those seen in training, from 1; 0 for any
  other.

A date becomes its standardised time, sine and cosine of the time of year, seven figures of which
the weekday's is 1, and sine and cosine of the time of day where it has one. All in UTC.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.tables.columns import NO_DATE, Column, Kind, Records, is_missing

DAY_MS = 86_400_000
YEAR_DAYS = 365.2425
MAX_ONE_HOT = 16  # values of a category that have a figure each; of more, codes
LARGEST = 10.0  # a standardised figure beyond is cut: one outlier would drown all else
CHUNK = 65_536  # rows encoded at once: on the way, every figure takes 8 bytes


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """How one column is encoded.

    Attributes:
        column: which.
        mean: of a number, or of a date in milliseconds.
        scale: its standard deviation; both are 0 and 1 for booleans and categories.
        has_gaps: whether there were any in training.
        has_time: of a date, whether there was a time of day.
        values: of a category, those seen in training, the commonest first.
    """

    column: Column
    mean: float = 0.0
    scale: float = 1.0
    has_gaps: bool = False
    has_time: bool = False
    values: tuple[str, ...] = ()

    @property
    def is_one_hot(self) -> bool:
        """Whether each of its values has a figure."""
        return self.column.kind is Kind.CATEGORY and len(self.values) <= MAX_ONE_HOT

    @property
    def figure_names(self) -> tuple[str, ...]:
        """What its figures are."""
        name = self.column.name
        if self.column.kind is Kind.CATEGORY:
            return tuple(f"{name}={value}" for value in self.values) if self.is_one_hot else ()
        if self.column.kind is not Kind.DATE:
            return (name,)
        parts = ["", ".year_sin", ".year_cos", *(f".weekday_{day}" for day in range(7))]
        parts += [".day_sin", ".day_cos"] if self.has_time else []
        return tuple(name + part for part in parts)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one column lies in an encoded row.

    Attributes:
        name: of the column.
        positions: of all that it became: figures, gap and code.
        measure: position of its standardised figure, a number's or that of a date's time; None of
            booleans and categories.
        gap: position that marks its gaps; None where there were none in training.
    """

    name: str
    positions: tuple[int, ...]
    measure: int | None
    gap: int | None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What lies where in an encoded row.

    Attributes:
        names: of the figures and the gaps, in order.
        cardinalities: of each code, its number of values, the unseen one included.
        fields: of an encoded window of a series, name and width of each field in order, the value
            first (see `windows`); empty of a row of a table, which has no time.
        places: of an encoded row of a table, where each column lies, in the order of the table;
            every position is of one column. Empty of a window.
    """

    names: tuple[str, ...]
    cardinalities: tuple[int, ...]
    fields: tuple[tuple[str, int], ...] = ()
    places: tuple[Place, ...] = ()

    @property
    def num_features(self) -> int:
        """Length of an encoded row."""
        return len(self.names) + len(self.cardinalities)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Encodes rows; see the module.

    Attributes:
        columns: how each is encoded, in the order of the table.
    """

    columns: tuple[Encoded, ...]

    def of_kind(self, *kinds: Kind) -> list[Encoded]:
        """Those of some kinds, in order."""
        return [own for own in self.columns if own.column.kind in kinds]

    @property
    def categories(self) -> dict[str, list[str]]:
        """By column of texts the values that were seen in training."""
        return {own.column.name: list(own.values) for own in self.of_kind(Kind.CATEGORY)}

    @property
    def takes(self) -> tuple[Column, ...]:
        """What a model takes."""
        return tuple(own.column for own in self.columns)

    @property
    def layout(self) -> Layout:
        """What lies where."""
        figured = [*self.measured, *self.of_kind(Kind.CATEGORY)]
        figures = [name for own in figured for name in own.figure_names]
        gapped = [own for own in self.measured if own.has_gaps]
        coded = [own for own in self.of_kind(Kind.CATEGORY) if not own.is_one_hot]
        owners = [own.column.name for own in figured for _ in own.figure_names]
        positions: dict[str, list[int]] = {}
        for at, name in enumerate(owners + [own.column.name for own in (*gapped, *coded)]):
            positions.setdefault(name, []).append(at)
        return Layout(
            names=(*figures, *(f"{own.column.name}.gap" for own in gapped)),
            cardinalities=tuple(len(own.values) + 1 for own in coded),
            places=tuple(_place(own, positions[own.column.name]) for own in self.columns),
        )

    @property
    def measured(self) -> list[Encoded]:
        """Numbers and booleans, then dates."""
        return [*self.of_kind(Kind.NUMBER, Kind.BOOLEAN), *self.of_kind(Kind.DATE)]

    def __call__(self, rows: Records) -> NDArray[np.float32]:
        """Encode rows.

        Args:
            rows: raw, [N].

        Returns:
            [N, F], see the module.
        """
        encoded = np.empty((len(rows), self.layout.num_features), np.float32)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            for at, values in enumerate(self._features(part)):
                encoded[start : start + CHUNK, at] = values
        return encoded

    def _features(self, rows: Records) -> list[NDArray]:
        figures, gaps, codes = [], [], []
        for own in self.measured:
            values = rows[own.column.name]
            gap = is_missing(own.column, values)
            made = _date(own, values) if own.column.kind is Kind.DATE else [_number(own, values)]
            figures += [np.where(gap, 0, figure) for figure in made]
            gaps += [gap] if own.has_gaps else []
        for own in self.of_kind(Kind.CATEGORY):
            code = codes_of(own.values, rows[own.column.name])
            if own.is_one_hot:
                figures += [code == number for number in range(1, len(own.values) + 1)]
            else:
                codes.append(code)
        return [*figures, *gaps, *codes]


def fit_encoder(columns: Sequence[Column], rows: Records, *, max_categories: int = 1000) -> Encoder:
    """Fit an encoder on training rows.

    Args:
        columns: to encode.
        rows: training rows, raw.
        max_categories: of a column; rarer ones count as unseen.
    """
    return Encoder(columns=tuple(_fit(own, rows[own.name], max_categories) for own in columns))


def codes_of(values: Sequence[str], raw: NDArray[np.str_]) -> NDArray[np.int64]:
    """Number text by its place in `values`, from 1; 0 for what is not among them."""
    order = np.argsort(np.asarray(values, np.str_), kind="stable")
    known = np.asarray(values, np.str_)[order]
    if not len(known):
        return np.zeros(len(raw), np.int64)
    place = np.minimum(np.searchsorted(known, raw), len(known) - 1)
    return np.where(known[place] == raw, order[place] + 1, 0)


def _fit(column: Column, values: NDArray, max_categories: int) -> Encoded:
    gap = is_missing(column, values)
    if column.kind is Kind.CATEGORY:
        names, counts = np.unique(values, return_counts=True)
        commonest = np.lexsort((names, -counts))[:max_categories]
        return Encoded(column=column, values=tuple(map(str, names[commonest])))
    has_gaps = bool(gap.any())
    if column.kind is Kind.BOOLEAN:
        return Encoded(column=column, has_gaps=has_gaps)
    present = values[~gap].astype(np.float64)
    spread = float(present.std()) if len(present) else 0.0
    return Encoded(
        column=column,
        mean=float(present.mean()) if len(present) else 0.0,
        scale=spread if spread > 0 else 1.0,
        has_gaps=has_gaps,
        has_time=column.kind is Kind.DATE and bool((values[~gap] % DAY_MS != 0).any()),
    )


def _place(own: Encoded, positions: list[int]) -> Place:
    is_measured = own.column.kind in (Kind.NUMBER, Kind.DATE)
    return Place(
        name=own.column.name,
        positions=tuple(positions),
        measure=positions[0] if is_measured else None,
        gap=positions[-1] if own.has_gaps else None,
    )


def _number(own: Encoded, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip((values - own.mean) / own.scale, -LARGEST, LARGEST)


def _date(own: Encoded, values: NDArray[np.int64]) -> list[NDArray]:
    values = np.where(values == NO_DATE, 0, values)
    days = values / DAY_MS
    of_year = 2 * np.pi * np.mod(days / YEAR_DAYS, 1)
    weekday = np.mod(np.floor(days) + 3, 7)  # 1970 began on a Thursday; Monday is 0
    figures = [_number(own, values.astype(np.float64)), np.sin(of_year), np.cos(of_year)]
    figures += [weekday == day for day in range(7)]
    if own.has_time:
        of_day = 2 * np.pi * np.mod(days, 1)
        figures += [np.sin(of_day), np.cos(of_day)]
    return figures
