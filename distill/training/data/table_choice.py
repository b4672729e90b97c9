"""What of a table is told by what: its columns, and those by which rows are split.

Knows nothing of splits or training.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.errors import UsageError, UserError, kind_advice
from distill.tables.columns import NO_DATE, Column, Kind
from distill.tables.table_files import column_of, guess_columns, raw_values

log = logging.getLogger(__name__)


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


def declared(choice: Choice, kind: Kind) -> list[str]:
    """Name the columns whose kind is told."""
    return [name for name, own in choice.kinds.items() if own == kind]


def date_columns(choice: Choice) -> list[str]:
    """Name the columns whose dates a format tells: as numbers, those of digits would lose zeros."""
    times = [choice.time] if choice.time else []
    return [*declared(choice, Kind.DATE), *times] if choice.date_format else []


def times_of(whole: pa.Table, choice: Choice) -> NDArray[np.int64] | None:
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


def groups_of(whole: pa.Table, choice: Choice) -> NDArray[Any] | None:
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


def choose(whole: pa.Table, choice: Choice) -> tuple[list[Column], dict[str, str]]:
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
    if choice.date_format and not date_columns(choice):
        raise UsageError(
            f"Expected a column whose dates are written as {choice.date_format} but none is named. "
            "Name it: `data.time=` splits the rows by it, `+data.kinds.since=date` learns from it; "
            "or leave out `data.date_format`."
        )
    by_format = {name: str(Kind.DATE) for name in date_columns(choice) if name in wanted}
    columns, left_out = guess_columns(whole.select(wanted), {**by_format, **choice.kinds})
    if asked and left_out:
        name, why = next(iter(left_out.items()))
        raise UserError(
            f"Expected columns that say something in `data.columns` but `{name}` does not: {why}. "
            f"Leave it out, or name its kind, such as `{kind_advice(name)}`."
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
