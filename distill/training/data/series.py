"""Time series as data: windows of one or many series, split by time alone.

What a model takes in use are raw windows (`Split.records`); what it learns from are encoded ones
(`Split.inputs`, see `distill.tables.windows`), fitted on the training windows; labels are float32
[N, horizon] in the value's own units. Knows nothing of training.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distill.tables.columns import Records
from distill.tables.table_files import read_table
from distill.tables.windows import Windows, fit_windows
from distill.tasks import Task, TaskKind, with_quantiles
from distill.training.data.leaks import Leak
from distill.training.data.panels import read_panel
from distill.training.data.pools import Pool, Positions, SeriesChoice, make_pool
from distill.training.data.series_leaks import find_series_leaks
from distill.training.data.splits import Data, Split
from distill.training.data.time_splits import rolling_origins, split_windows

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SeriesData(Data):
    """Windows of series; the index of a sample is its position in `pool`.

    Attributes:
        pool: all windows, those that no split has included.
    """

    pool: Pool

    @property
    def windows(self) -> Windows:
        """How records are encoded; fitted on `train`."""
        assert isinstance(self.encoder, Windows)
        return self.encoder


def series(
    *, path: str, delimiter: str | None = None, encoding: str = "utf-8", **choice: Any
) -> SeriesData:
    """Read one or many series from CSV or Parquet.

    Args:
        path: of a table with a row for each moment of each series.
        delimiter: of CSV; None reads it off the first line.
        encoding: of CSV.
        choice: see `pools.SeriesChoice`.

    Raises:
        UserError: a file, column, moment, value or split is not as it must be.
    """
    own = SeriesChoice(**choice)
    codes = [own.series] if own.series else []
    texts = [own.time] if own.date_format else []
    whole = read_table(Path(path), delimiter=delimiter, encoding=encoding, codes=codes, texts=texts)
    return series_of(whole, Path(path).stem, own)


def series_of(table: pa.Table, name: str, choice: SeriesChoice) -> SeriesData:
    """Make data of a table with a row for each moment of each series.

    Raises:
        UserError: a column, moment, value or split is not as it must be.
    """
    choice.check()
    panel, future = read_panel(table, choice.source)
    pool, num_skipped = make_pool(panel, choice)
    first, last = pool.first, pool.last
    rest, test = split_windows(first, last, choice.test_fraction, gap=choice.gap)
    train, validation = split_windows(
        first[rest], last[rest], choice.validation_fraction, gap=choice.gap
    )
    leaks = find_series_leaks(
        panel, future,
        observed=choice.observed, known=choice.known, num_steps=max(choice.horizon, choice.window),
    )  # fmt: skip
    for leak in leaks:
        log.warning("%s: %s", leak.name.replace("_", " "), leak.text)
    return data_of(
        pool, (rest[train], rest[validation], test),
        name=name, leaks=tuple(leaks), num_skipped=num_skipped,
    )  # fmt: skip


def data_of(
    pool: Pool,
    splits: tuple[Positions, Positions, Positions],
    *,
    name: str,
    leaks: tuple[Leak, ...] = (),
    num_skipped: int = 0,
) -> SeriesData:
    """Make data of some windows.

    Args:
        pool: all windows.
        splits: positions of those that train, validate and test.
        name: of the data.
        leaks: warnings about covariates.
        num_skipped: series too short for a window.
    """
    choice = pool.choice
    records = [pool.records(positions) for positions in splits]
    windows = fit_windows(
        records[0],
        horizon=choice.horizon, observed=choice.observed, known=choice.known,
    )  # fmt: skip

    naive = pool.naive_errors(splits[0])

    def part(positions: Positions, own: Records) -> Split:
        labels = pool.labels(positions)
        return Split(
            inputs=windows(own),
            labels=labels,
            indices=positions,
            records=own,
            targets=windows.scaled(own, labels),
            blocks=pool.stretches(positions),
            naive_error=naive[pool.series[positions]],
            spans=np.stack([pool.first, pool.last], axis=1)[positions],
            layout=windows.layout,
        )

    train, validation, test = map(part, splits, records)
    mean = train.labels.mean(axis=0, dtype=np.float64)
    scale = train.labels.std(axis=0, dtype=np.float64)
    task = Task(
        kind=TaskKind.REGRESSION,
        outputs=tuple(f"{choice.value}[{step:+d}]" for step in range(1, choice.horizon + 1)),
        mean=tuple(map(float, mean)),
        scale=tuple(map(float, np.where(scale > 0, scale, 1))),
        has_one_unit=True,
    )
    return SeriesData(
        name=name,
        task=with_quantiles(task, choice.quantiles),
        train=train,
        validation=validation,
        test=test,
        test_is_drawn=True,
        num_skipped=num_skipped,
        encoder=windows,
        pool=pool,
        leaks=leaks,
    )


def origins(
    data: SeriesData, *, num_origins: int, fraction: float | None = None
) -> Iterator[tuple[Positions, Positions]]:
    """Go through several forecast origins for backtesting; see `rolling_origins`.

    Args:
        data: whose windows, in all splits.
        num_origins: how many.
        fraction: of the windows, in which the origins lie; None takes `test_fraction`.

    Returns:
        For each the positions in `data.pool` of the windows whose labels were known by then, and
        of those asked from then to the next origin; `backtests` makes data of them.

    Raises:
        UserError: there are too few windows for so many origins.
    """
    choice = data.pool.choice
    for origin in rolling_origins(
        data.pool.first, data.pool.last,
        num_origins=num_origins, fraction=fraction or choice.test_fraction, gap=choice.gap,
    ):  # fmt: skip
        yield origin.train, origin.test


def backtests(
    data: SeriesData, *, num_origins: int, fraction: float | None = None
) -> Iterator[SeriesData]:
    """Make data of each forecast origin: its own training end, and windows fitted on that alone.

    Raises:
        UserError: there are too few windows for so many origins.
    """
    choice, first, last = data.pool.choice, data.pool.first, data.pool.last
    for known, test in origins(data, num_origins=num_origins, fraction=fraction):
        train, validation = split_windows(
            first[known], last[known], choice.validation_fraction, gap=choice.gap
        )
        yield data_of(data.pool, (known[train], known[validation], test), name=data.name)
