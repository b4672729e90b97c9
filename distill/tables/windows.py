"""Windows of a series to the figures that a network learns from, and its answers back to units.

A record is one forecast origin, an array in each field, all raw and float64: the value [window],
which is the first field; each covariate observed up to now [window]; each covariate known ahead
[window + horizon]. Pure NumPy; the same is built into the exported file, from the figures kept
here. With level = the window's last value and spread = max(its standard deviation, floor):

- the value becomes (value - level) / spread: a network sees shapes, not heights, and what it
  learnt at one height holds at another (after RevIN: Kim et al., "Reversible Instance
  Normalization for Accurate Time-Series Forecasting against Distribution Shift", 2022, which takes
  away the mean; the last value is Zeng et al.'s, "Are Transformers Effective for Time Series
  Forecasting?", 2022);
- a covariate becomes clip((x - mean) / scale, -LARGEST, LARGEST), a gap 0; mean and scale are of
  training;
- a network learns (label - level) / spread, and answers level + spread * output.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.tables.columns import Column, Kind, Records
from distill.tables.encoding import LARGEST, Layout

FLOOR_SHARE = (
    0.05  # of the training windows that vary at all, those with less spread than the floor
)


@dataclass(frozen=True, kw_only=True)
class Covariate:
    """A further column, and its figures over training.

    Attributes:
        name: of the field.
        is_known: ahead, over window and horizon; else observed, over the window alone.
        mean: gaps left out.
        scale: standard deviation, gaps left out; 1 where it is always the same.
    """

    name: str
    is_known: bool
    mean: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Encodes records; see the module.

    Attributes:
        value: name of the field that is forecast.
        window: steps looked back, the present one included.
        horizon: steps ahead that are forecast.
        floor: of the spread, in the value's units: a window that hardly varies is not blown up.
        covariates: the observed, then the known.
    """

    value: str
    window: int
    horizon: int
    floor: float
    covariates: tuple[Covariate, ...] = ()

    @property
    def widths(self) -> dict[str, int]:
        """Length of every field of a record, in order."""
        ahead = self.window + self.horizon
        own = {one.name: ahead if one.is_known else self.window for one in self.covariates}
        return {self.value: self.window, **own}

    @property
    def takes(self) -> tuple[Column, ...]:
        """What a model takes: every field of a record."""
        return tuple(
            Column(name=name, kind=Kind.NUMBER, length=width) for name, width in self.widths.items()
        )

    @property
    def parts(self) -> dict[str, slice]:
        """Where each field lies in an encoded record."""
        ends = np.cumsum([0, *self.widths.values()]).tolist()
        return {name: slice(*ends[at : at + 2]) for at, name in enumerate(self.widths)}

    @property
    def layout(self) -> Layout:
        """Names of the figures: `sales[-1]` is one step back, `price[+2]` two ahead."""
        names = [
            f"{name}[{step:+d}]" if step else f"{name}[0]"
            for name, width in self.widths.items()
            for step in range(1 - self.window, 1 - self.window + width)
        ]
        return Layout(names=tuple(names), cardinalities=(), fields=tuple(self.widths.items()))

    def level_and_spread(self, rows: Records) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute what is taken away from each window, and what it is divided by, [N, 1] each."""
        values = rows[self.value]
        return values[:, -1:], np.maximum(values.std(axis=1, keepdims=True), self.floor)

    def __call__(self, rows: Records) -> NDArray[np.float32]:
        """Encode records.

        Args:
            rows: raw, [N].

        Returns:
            [N, F], field after field, each from its earliest step to its latest; see `parts`.
        """
        encoded = np.empty((len(rows), sum(self.widths.values())), np.float32)
        level, spread = self.level_and_spread(rows)
        encoded[:, self.parts[self.value]] = (rows[self.value] - level) / spread
        for own in self.covariates:
            scaled = np.clip((rows[own.name] - own.mean) / own.scale, -LARGEST, LARGEST)
            encoded[:, self.parts[own.name]] = np.nan_to_num(scaled, nan=0.0)
        return encoded

    def scaled(self, rows: Records, labels: NDArray) -> NDArray[np.float32]:
        """Bring labels [N, horizon] from the value's units to those in which a network learns.

        Answers of several quantiles for each step likewise.
        """
        level, spread = self.level_and_spread(rows)
        return ((labels - level) / spread).astype(np.float32)

    def in_units(self, rows: Records, outputs: NDArray) -> NDArray[np.float32]:
        """Bring outputs of a network, [N, horizon] or more, back to the value's units."""
        level, spread = self.level_and_spread(rows)
        return (level + spread * outputs).astype(np.float32)


def fit_windows(
    rows: Records, *, horizon: int, observed: Iterable[str] = (), known: Iterable[str] = ()
) -> Windows:
    """Fit floor, means and scales on training records.

    The floor is a low quantile of the spreads of those windows that vary, so that where series of
    different size are learnt together, it follows the small ones.

    Args:
        rows: of training; the first field is the value.
        horizon: steps ahead.
        observed: fields that are covariates observed up to now.
        known: fields that are covariates known ahead.
    """
    value = next(iter(rows.dtype.names or ()))
    spreads = rows[value].std(axis=1)
    varied = spreads[spreads > 1e-12 * np.abs(rows[value]).max(axis=1)]
    covariates = [_fit(rows[name], name, False) for name in observed]
    covariates += [_fit(rows[name], name, True) for name in known]
    return Windows(
        value=value,
        window=rows[value].shape[1],
        horizon=horizon,
        floor=float(np.quantile(varied, FLOOR_SHARE)) if len(varied) else 1.0,
        covariates=tuple(covariates),
    )


def _fit(values: NDArray[np.float64], name: str, is_known: bool) -> Covariate:
    present = values[~np.isnan(values)]
    spread = float(present.std()) if len(present) else 0.0
    return Covariate(
        name=name,
        is_known=is_known,
        mean=float(present.mean()) if len(present) else 0.0,
        scale=spread if spread > 0 else 1.0,
    )
