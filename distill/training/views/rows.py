"""Views and mixing of the encoded rows of a table, float32 [B, F].

What a row shows stays possible: a one-hot group has its one, a code is one that was seen, a gap has
the figure 0, and a date's season and weekday are some row's. So only measures, the standardised
figures of numbers and of dates' times, are ever changed or blended; all else is taken whole.
Everything is a pure function of (seed, sample index, view number), as of images.

Where a measure lies the rows' layout says, which `bound` hands over. Knows nothing of labels.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from distill.errors import UsageError, UserError
from distill.tables.encoding import LARGEST, Layout, Place
from distill.training.views.base import check_probability
from distill.training.views.hashing import uniforms
from distill.training.views.mixing import (
    DrawnPartners,
    Shares,
    check_alpha,
    check_shapes,
    draw_beta,
)

TableRows = NDArray[np.float32]

LEAST_DRAW = 2.0**-54  # stands for a draw of 0, which no normal deviate has


@dataclass(frozen=True, kw_only=True)
class _OfRows:
    """What is shared: the layout, and where the measures are.

    Attributes:
        layout: of the rows; `for_rows` gives it.
    """

    INSTEAD: ClassVar[str] = ""  # what to choose for a table without measures, if there must be any

    layout: Layout | None = None

    def for_rows(self, layout: Layout) -> Self:
        """Return the same, knowing the layout.

        Raises:
            UsageError: there is nothing in such rows to change.
        """
        if self.INSTEAD and all(place.measure is None for place in layout.places):
            raise UsageError(
                f"Expected a column of numbers or dates for {type(self).__name__} but the table "
                f"has none. Choose {self.INSTEAD}."
            )
        return dataclasses.replace(self, layout=layout)

    @property
    def places(self) -> tuple[Place, ...]:
        """Where each column lies.

        Raises:
            ValueError: nobody has given the layout.
        """
        if self.layout is None:
            raise ValueError(f"Expected a layout: {type(self).__name__}.for_rows gives one.")
        return self.layout.places

    @cached_property
    def measures(self) -> NDArray[np.int64]:
        """Positions of all measures, [M]."""
        return np.array([own.measure for own in self.places if own.measure is not None], np.int64)

    def is_gap(self, rows: TableRows) -> NDArray[np.bool_]:
        """Tell which measures are gaps, [B, M]."""
        which, marks = self._gaps
        found = np.zeros((len(rows), len(self.measures)), bool)
        found[:, which] = rows[:, marks] > 0
        return found

    @cached_property
    def _gaps(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of the measures may be gaps, and where that is marked."""
        marks = [own.gap for own in self.places if own.measure is not None]
        found = [(number, mark) for number, mark in enumerate(marks) if mark is not None]
        which, where = np.array(found, np.int64).reshape(-1, 2).T
        return which, where


@dataclass(frozen=True, kw_only=True)
class NoiseRows(_OfRows):
    """Add Gaussian noise to every measure.

    A measure stays within the encoder's limits, and a gap a gap.

    Attributes:
        std: standard deviation of the noise, above 0; that of a measure over training is 1.
        seed: two runs with the same seed see the same rows.

    Raises:
        UserError: the standard deviation is not above 0.
    """

    INSTEAD: ClassVar[str] = "`views=none`"
    STREAM: ClassVar[int] = 2**20  # one for each measure, where those of images have 64 in all

    std: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.std < np.inf:
            raise UserError(
                f"Expected `std` above 0 but got {self.std}. Set `views=none` for no noise."
            )

    def __call__(self, rows: TableRows, indices: NDArray[np.int64], view: int) -> TableRows:
        """Make the view of each row, [B, F] to the same."""
        count = len(self.measures)
        draws = uniforms(self.seed, indices, view, stream=self.STREAM, count=count)
        noise = self.std * ndtri(np.maximum(draws, LEAST_DRAW)).T
        noise[self.is_gap(rows)] = 0
        shown = rows.copy()
        shown[:, self.measures] = np.clip(rows[:, self.measures] + noise, -LARGEST, LARGEST)
        return shown


@dataclass(frozen=True, kw_only=True)
class MixUpRows(DrawnPartners, _OfRows):
    """Blend each row's measures with its partner's: share * own + (1 - share) * partner's.

    After Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018). All that is no measure,
    and a measure that is a gap in either row, is taken whole from the row with the larger share,
    of equal shares the own. The share is drawn from Beta(alpha, alpha) and rounded to 1/256.

    Attributes:
        alpha: above 0; small values mix little, 1 draws any share alike.
        probability: share of the rows that are mixed at all.
        seed: two runs with the same seed see the same rows.

    Raises:
        UserError: alpha or the probability is outside its limits.
    """

    INSTEAD: ClassVar[str] = "`mixing=swap_columns`, or `mixing=none`"
    STREAM: ClassVar[int] = 448

    alpha: float = 0.4
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_probability(self.probability)

    def mix(
        self, rows: TableRows, partner_rows: TableRows, indices: NDArray[np.int64], view: int
    ) -> tuple[TableRows, Shares]:
        """Return the mixed rows and the share of each one's own label, [B]."""
        check_shapes(rows, partner_rows)
        draws = uniforms(self.seed, indices, view, stream=self.STREAM + 1, count=2)
        steps = draw_beta(self.alpha, draws[0], levels=256)
        steps[draws[1] >= self.probability] = 256
        shares = (steps / 256).astype(np.float32)
        share, at = shares[:, None], self.measures
        mixed = np.where(share >= 0.5, rows, partner_rows)
        blended = share * rows[:, at] + (1 - share) * partner_rows[:, at]
        whole = self.is_gap(rows) | self.is_gap(partner_rows)
        mixed[:, at] = np.where(whole, mixed[:, at], blended)
        return mixed, shares


@dataclass(frozen=True, kw_only=True)
class SwapColumns(DrawnPartners, _OfRows):
    """Take each column, by chance, from a row's partner: all its figures, its gap and its code.

    CutMix of rows, as in Somepalli et al., "SAINT: Improved Neural Networks for Tabular Data via
    Row Attention and Contrastive Pre-Training" (2021). The share of the label is that of the
    columns kept.

    Attributes:
        probability: of each column, to be the partner's.
        seed: two runs with the same seed see the same rows.

    Raises:
        UserError: the probability is outside its limits.
    """

    STREAM: ClassVar[int] = 2**21  # the partner's, and one for each column

    probability: float = 0.15

    def __post_init__(self) -> None:
        check_probability(self.probability)

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """The number of the column that each position is of, [F]."""
        positions = [place.positions for place in self.places]
        owners = np.empty(sum(map(len, positions)), np.int64)
        for number, own in enumerate(positions):
            owners[list(own)] = number
        return owners

    def mix(
        self, rows: TableRows, partner_rows: TableRows, indices: NDArray[np.int64], view: int
    ) -> tuple[TableRows, Shares]:
        """Return the mixed rows and the share of each one's own label, [B]."""
        check_shapes(rows, partner_rows)
        count = len(self.places)
        draws = uniforms(self.seed, indices, view, stream=self.STREAM + 1, count=count)
        swapped = (draws < self.probability).T
        mixed = np.where(swapped[:, self.owners], partner_rows, rows)
        return mixed, (1 - swapped.mean(axis=1)).astype(np.float32)
