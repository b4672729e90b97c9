"""Tables as data: columns, labels, three splits without leakage, encoded for training.

Knows nothing of training. What a model takes in use are raw columns; what it learns from are
encoded rows (`encoding`), fitted on the training rows alone.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.errors import UsageError, UserError, nearest
from distill.tables.columns import NO_DATE, Column, Kind, Records
from distill.tables.encoding import Encoder, fit_encoder
from distill.tables.table_files import (
    column_of,
    guess_columns,
    is_number,
    raw_records,
    raw_values,
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

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TableData(Data):
    """A table.

    Attributes:
        numbered: categories whose values lie in the file as numbers.
    """

    numbered: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is to be told by what, and which rows learn, choose and report.

    The test set is drawn with a seed of its own that `seed` does not move. Groups and times are
    no inputs unless `columns` names them.

    Attributes:
        label: the column to be told, or several.
        task: see `TaskKind`; None guesses by the label.
        columns: that a model takes; None takes all that can say anything.
        kinds: of columns whose kind would be guessed wrong.
        unavailable: columns that are not known yet when the model is asked.
        group: a column whose equal rows depend on each other, and stay in one split where neither
            time nor a test set of its own splits them.
        time: a column by which the latest rows are the test set, and those before validate.
        test_fraction: of the rows, where there is no table of its own.
        validation_fraction: of the other rows.
        seed: of the validation rows.
        date_format: of dates that are not ISO, as of `strptime`.
        max_categories: of a column of text; rarer ones count as unseen.
        class_weights: how often rows of each class are shown in training: `balanced` shows all
            classes alike, names give each its weight; None shows each row once.
        quantiles: levels at which numbers are told, ascending; None tells the numbers themselves.
    """

    label: str | Sequence[str]
    task: str | None = None
    columns: Sequence[str] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    unavailable: Sequence[str] = ()
    group: str | None = None
    time: str | None = None
    test_fraction: float = 0.2
    validation_fraction: float = 0.15
    seed: int = 0
    date_format: str | None = None
    max_categories: int = 1000
    class_weights: str | Mapping[str, float] | None = None
    quantiles: Sequence[float] | None = None

    @property
    def labels(self) -> list[str]:
        """Names of the columns to be told."""
        return [self.label] if isinstance(self.label, str) else list(self.label)


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
    codes, dates = _declared(own, Kind.CATEGORY), _dates(own)
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
    columns, left_out = _choose(whole, choice)
    times, groups = _times(whole, choice), _groups(whole, choice)

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
    remarks = () if groups is None else shared_groups(groups[train], groups[test])
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


def _declared(choice: Choice, kind: Kind) -> list[str]:
    return [name for name, own in choice.kinds.items() if own == kind]


def _dates(choice: Choice) -> list[str]:
    """Name the columns whose dates a format tells: as numbers, those of digits would lose zeros."""
    times = [choice.time] if choice.time else []
    return [*_declared(choice, Kind.DATE), *times] if choice.date_format else []


def _times(whole: pa.Table, choice: Choice) -> NDArray[np.int64] | None:
    """Read the column by which rows are split, [N]; None where there is none.

    Raises:
        UserError: a row has no date: as the smallest number it would be the oldest row.
    """
    if choice.time is None:
        return None
    moment = Column(name=choice.time, kind=Kind.DATE)
    values = column_of(whole, choice.time, "`data.time`")
    times = raw_values(values, moment, date_format=choice.date_format)
    _refuse_gaps(times == NO_DATE, choice.time, "a date", "`data.time`", "Fill them in")
    return times


def _groups(whole: pa.Table, choice: Choice) -> NDArray[Any] | None:
    """Number the column whose equal rows stay together, [N]; None where there is none.

    Raises:
        UserError: a row has no group: together, such rows would be one large group.
    """
    if choice.group is None:
        return None
    values = column_of(whole, choice.group, "`data.group`")
    groups = np.asarray(values.to_numpy())
    missing = values.is_null(nan_is_null=True).to_numpy()
    if groups.dtype == object:  # text
        missing = missing | (groups == "")
    advice = "Give each a group of its own where it stands alone"
    _refuse_gaps(missing, choice.group, "a group", "`data.group`", advice)
    return np.unique(groups, return_inverse=True)[1]


def _refuse_gaps(
    missing: NDArray[np.bool_], name: str, what: str, setting: str, advice: str
) -> None:
    rows = np.flatnonzero(missing)
    if len(rows):
        raise UserError(
            f"Expected {what} in every row of `{name}` ({setting}) but {len(rows):,} have none, "
            f"the first in row {rows[0]:,}. {advice}, or leave those rows out."
        )


def _choose(whole: pa.Table, choice: Choice) -> tuple[list[Column], dict[str, str]]:
    """Choose the columns that a model takes; say of the others why not.

    Raises:
        UsageError: one that is declared unavailable is asked for.
        UserError: none is left, or one is not there.
    """
    asked, unavailable = choice.columns, choice.unavailable
    for name in unavailable:
        column_of(whole, name, "`data.unavailable`")
    for name in asked or ():
        column_of(whole, name, "`data.columns`")
    both = sorted(set(asked or ()) & {*unavailable, *choice.labels})
    if both:
        where = "is the label" if both[0] in choice.labels else "is in `data.unavailable`"
        raise UsageError(
            f"Expected columns that are known when a model is asked but `{both[0]}` of "
            f"`data.columns` {where}. A model that learns from it fails in use: take it out."
        )
    apart = {*choice.labels, choice.group, choice.time, *unavailable}
    wanted = list(asked or [name for name in whole.column_names if name not in apart])
    _check_kinds(choice, whole.column_names, wanted)
    by_format = {name: str(Kind.DATE) for name in _dates(choice) if name in wanted}
    columns, left_out = guess_columns(whole.select(wanted), {**by_format, **choice.kinds})
    if asked and left_out:
        name, why = next(iter(left_out.items()))
        raise UserError(
            f"Expected columns that say something in `data.columns` but `{name}` does not: {why}. "
            f"Leave it out, or name its kind, such as `+data.kinds.{name}=category`."
        )
    for name, why in left_out.items():
        log.info("column `%s` is left out: %s", name, why)
    if not columns:
        raise UserError(
            "Expected columns to learn from but none is left: "
            + "; ".join(f"`{name}`: {why}" for name, why in left_out.items())
        )
    return columns, left_out | {name: "declared unavailable" for name in unavailable}


def _check_kinds(choice: Choice, known: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse the kind of a column that is no input.

    Raises:
        UsageError: says what the column is.
    """
    for name in choice.kinds:
        if name in wanted or name not in known:
            continue
        if name in choice.labels:
            what = "is the label: whether it is classes or numbers is for `data.task` to say"
        elif name in (choice.time, choice.group):
            what = f"is `data.{'time' if name == choice.time else 'group'}`, and read as such"
        else:
            what = "is no input, by `data.columns` or `data.unavailable`"
        raise UsageError(
            f"Expected `data.kinds` to name columns that the model takes but `{name}` {what}. "
            f"Leave `data.kinds.{name}` out."
        )


def _with_units(task: Task, labels: NDArray[Any]) -> Task:
    """Add the mean and spread of numbers over the training labels."""
    if task.kind is not TaskKind.REGRESSION:
        return task
    mean, scale = labels.mean(axis=0, dtype=np.float64), labels.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 0, scale, 1)
    return dataclasses.replace(task, mean=tuple(map(float, mean)), scale=tuple(map(float, scale)))
