"""Tables as data: columns, labels, three splits without leakage, encoded for training.

Knows nothing of training. What a model takes in use are raw columns; what it learns from are
encoded rows (`encoding`), fitted on the training rows alone.
"""

import dataclasses
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.errors import UsageError, UserError, nearest
from distill.tables.columns import Kind, Records
from distill.tables.encoding import Encoder, fit_encoder
from distill.tables.table_files import (
    is_number,
    raw_records,
    read_table,
    text_columns,
)
from distill.tables.texts import spellings_of
from distill.tasks import Task, TaskKind, with_quantiles
from distill.training.data.class_weights import class_weights
from distill.training.data.labels import read_labels
from distill.training.data.leaks import find_leaks
from distill.training.data.splits import Data, Split
from distill.training.data.splitting import (
    shared_groups,
    split_at_random,
    split_by_group,
    split_by_time,
)
from distill.training.data.stacked_tables import below
from distill.training.data.table_choice import (
    Choice,
    choose,
    date_columns,
    declared,
    groups_of,
    times_of,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TableData(Data):
    """A table.

    Attributes:
        numbered: categories whose values lie in the file as numbers.
    """

    numbered: tuple[str, ...] = ()


def table(
    *,
    path: str,
    test_path: str | None = None,
    unlabelled: str | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    **choice: Any,
) -> TableData:
    """Read a table from CSV or Parquet.

    Args:
        path: of the table.
        test_path: of a table of its own for the test set.
        unlabelled: of a table without labels, of which the teacher tells the student's.
        delimiter: of CSV; None reads it off the first line.
        encoding: of CSV.
        choice: see `Choice`.

    Raises:
        UserError: a file, column, label, kind or split is not as it must be.
    """
    own = Choice(**choice)
    codes, dates = declared(own, Kind.CATEGORY), date_columns(own)
    codes += [own.group] if own.group else []  # 007 and 7 are two customers
    read = partial(read_table, delimiter=delimiter, encoding=encoding)
    whole = read(Path(path), codes=codes, texts=dates)
    num_first = None
    if test_path is not None:
        num_first = whole.num_rows
        test = read(Path(test_path), codes=codes, texts=text_columns(whole))
        whole = below(whole, test, test_path, codes=codes)
    data = from_table(whole, Path(path).stem, own, num_first=num_first)
    if unlabelled is None:
        return data
    if data.task.quantiles:
        raise UsageError(
            "Expected rows with labels alone for `data.quantiles` but `data.unlabelled` names a "
            "table without: a teacher's quantiles are no labels. Leave one of the two out."
        )
    assert isinstance(data.encoder, Encoder)
    more = read(Path(unlabelled), texts=[*data.encoder.categories, *dates])
    return with_unlabelled(data, more, whole.num_rows, date_format=own.date_format)


def sklearn_table(*, name: str, **choice: Any) -> TableData:
    """Take a table that ships with scikit-learn: breast_cancer, wine, iris, digits, diabetes.

    Raises:
        UserError: there is none of that name.
    """
    from sklearn import datasets

    known = ("breast_cancer", "wine", "iris", "digits", "diabetes")
    if name not in known:
        raise UserError(f"Expected a table of scikit-learn but got {name}. {nearest(name, known)}")
    loaded: Any = getattr(datasets, f"load_{name}")(as_frame=True)
    whole = pa.Table.from_pandas(loaded.frame, preserve_index=False)
    if "target_names" in loaded and name != "diabetes":
        names = [str(loaded.target_names[code]) for code in loaded.target]
        whole = whole.set_column(whole.num_columns - 1, "target", pa.array(names))
    return from_table(whole, name, Choice(label="target", **choice))


def from_table(
    whole: pa.Table, name: str, choice: Choice, *, num_first: int | None = None
) -> TableData:
    """Make data of a table.

    Args:
        whole: all rows.
        name: of the data.
        choice: see there.
        num_first: rows above those of a test set of its own; None where it is drawn.

    Raises:
        UserError: a column, label, kind or split is not as it must be.
    """
    kind = TaskKind(choice.task) if choice.task else None
    task, labels = read_labels(whole, choice.labels, kind)
    task = with_quantiles(task, choice.quantiles)
    columns, left_out = choose(whole, choice)
    times, groups = times_of(whole, choice), groups_of(whole, choice)

    def split(
        rows: NDArray[np.int64], fraction: float, seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if times is not None:
            first, second = split_by_time(times[rows], fraction)
        elif groups is not None:
            first, second = split_by_group(groups[rows], fraction, seed)
        else:
            first, second = split_at_random(labels[rows], fraction, seed)
        return rows[first], rows[second]

    rows = np.arange(whole.num_rows)
    rest, test = (
        split(rows, choice.test_fraction, 0)
        if num_first is None
        else (rows[:num_first], rows[num_first:])
    )
    train, validation = split(rest, choice.validation_fraction, choice.seed)
    records = raw_records(whole, columns, date_format=choice.date_format)
    learnt, chosen, reported = (records[own] for own in (train, validation, test))
    del records  # a large table's are a good part of memory
    encoder = fit_encoder(columns, learnt, max_categories=choice.max_categories)
    units, is_numeric = _with_units(task, labels[train]), task.kind is TaskKind.REGRESSION
    moments = None if times is None else times[train]
    leaks = find_leaks(columns, learnt, task, labels[train], times=moments)
    for leak in leaks:
        log.warning("%s: %s", leak.name.replace("_", " "), leak.text)
    splits = (train, validation, test)
    remarks = () if groups is None else shared_groups(*(groups[own] for own in splits))
    for remark in remarks:
        log.warning("%s", remark)

    def part(positions: NDArray[np.int64], own: Records) -> Split:
        return Split(
            inputs=encoder(own),
            labels=labels[positions],
            indices=positions,
            records=own,
            targets=units.standardized(labels[positions]) if is_numeric else None,
            blocks=None if groups is None else groups[positions],
            spans=None if times is None else np.stack([times, times], axis=1)[positions],
            layout=encoder.layout,
        )

    return TableData(
        name=name,
        task=units,
        train=part(train, learnt),
        validation=part(validation, chosen),
        test=part(test, reported),
        test_is_drawn=num_first is None,
        encoder=encoder,
        leaks=tuple(leaks),
        left_out=left_out,
        weights=class_weights(task, labels[train], choice.class_weights),
        numbered=tuple(
            own.name for own in columns if own.kind is Kind.CATEGORY and is_number(whole, own.name)
        ),
        remarks=remarks,
    )


def with_unlabelled(
    data: TableData, more: pa.Table, num_rows: int, *, date_format: str | None = None
) -> TableData:
    """Add rows without labels for a teacher to label, numbered from `num_rows`.

    Raises:
        UserError: a column is missing, or is of another kind.
    """
    assert isinstance(data.encoder, Encoder)
    records = raw_records(
        more, data.encoder.takes,
        date_format=date_format, spellings=spellings_of(data.encoder.categories),
    )  # fmt: skip
    labels = np.zeros((len(records), *data.train.labels.shape[1:]), data.train.labels.dtype)
    rows = Split(
        inputs=data.encoder(records),
        labels=labels,
        indices=np.arange(num_rows, num_rows + len(records)),
        records=records,
        targets=labels if data.is_numeric else None,
        layout=data.encoder.layout,
    )
    log.info("%d rows without labels, which the teacher gives", len(records))
    return dataclasses.replace(data, unlabelled=rows)


def _with_units(task: Task, labels: NDArray[Any]) -> Task:
    """Add the mean and spread of numbers over the training labels."""
    if task.kind is not TaskKind.REGRESSION:
        return task
    mean, scale = labels.mean(axis=0, dtype=np.float64), labels.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 0, scale, 1)
    return dataclasses.replace(task, mean=tuple(map(float, mean)), scale=tuple(map(float, scale)))
