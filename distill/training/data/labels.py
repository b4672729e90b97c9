"""Labels of a table: which columns they are, what task they make, and what is wrong with them."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distill.errors import UserError
from distill.tables.columns import Column, Kind
from distill.tables.table_files import column_of, raw_values
from distill.tables.values import is_text
from distill.tasks import Task, TaskKind, class_name

log = logging.getLogger(__name__)

MAX_CLASSES_OF_NUMBERS = 20  # more different whole numbers than that are taken for a quantity


def read_labels(
    table: pa.Table, names: Sequence[str], kind: TaskKind | None
) -> tuple[Task, NDArray[Any]]:
    """Read the labels of every row.

    Args:
        table: the rows.
        names: of the label's column, or of several.
        kind: of the task; None guesses: text, booleans and few different whole numbers are
            classes, several columns of 0 and 1 are labels, all else are numbers.

    Returns:
        The task, whose `mean` and `scale` are not known yet, and the labels.

    Raises:
        UserError: a column is missing, has gaps, is always the same, or of mixed type.
    """
    columns = {name: column_of(table, name, "the label, `data.label`") for name in names}
    for name, values in columns.items():
        _check(name, values)
    kind = kind or _guess(columns)
    if kind is TaskKind.CLASSIFICATION:
        if len(columns) != 1:
            raise UserError(
                f"Expected one label of a classification but got {', '.join(columns)}. Name one, "
                "or set `data.task=multi_label`."
            )
        ((name, values),) = columns.items()
        return _classes(name, values)
    advice = (
        "Mend it, or have it taken for classes: `data.task=classification`."
        if len(columns) == 1 and kind is TaskKind.REGRESSION
        else "Write yes and no as 1 and 0; other words are classes, which one column alone can be."
    )
    numbers = [
        raw_values(v, Column(name=n, kind=Kind.NUMBER), advice=advice) for n, v in columns.items()
    ]
    labels = np.stack(numbers, axis=1).astype(np.float32)
    if kind is TaskKind.MULTI_LABEL and not np.isin(labels, (0, 1)).all():
        row, column = np.argwhere(~np.isin(labels, (0, 1)))[0]
        raise UserError(
            f"Expected 0 and 1, or false and true, in the labels of a multi-label task but "
            f"`{list(columns)[column]}` has {labels[row, column]:g} in row {row:,}."
        )
    return Task(kind=kind, outputs=tuple(columns)), labels


def _check(name: str, values: pa.ChunkedArray) -> None:
    if pa.types.is_temporal(values.type) or pa.types.is_nested(values.type):
        raise UserError(
            f"Expected labels that are classes or numbers but `{name}` is of the type "
            f"{values.type}. Name another column, or write it as a number, such as days from today."
        )
    missing = values.is_null(nan_is_null=True)
    count = pc.call_function("sum", [missing]).as_py()
    if count:
        row = pc.call_function("index", [missing], pc.IndexOptions(pa.scalar(True)))
        raise UserError(
            f"Expected a label in every row but `{name}` has {count:,} gaps, the first "
            f"in row {row.as_py():,}. Leave those rows out; give them as `data.unlabelled=` to "
            "have the teacher label them."
        )
    if pc.call_function("count_distinct", [values]).as_py() == 1:
        raise UserError(
            f"Expected labels that differ but `{name}` is {values[0].as_py()!r} in all "
            f"{len(values):,} rows: there is nothing to learn. Name another column."
        )


def _guess(columns: dict[str, pa.ChunkedArray]) -> TaskKind:
    binary = [
        pa.types.is_boolean(v.type)
        or (not is_text(v) and set(v.slice(0, 100_000).unique().to_pylist()) <= {0, 1})
        for v in columns.values()
    ]
    if len(columns) > 1:
        return TaskKind.MULTI_LABEL if all(binary) else TaskKind.REGRESSION
    ((name, values),) = columns.items()
    if is_text(values):
        _refuse_mixture(name, values)
        return TaskKind.CLASSIFICATION
    if binary[0]:
        return TaskKind.CLASSIFICATION
    distinct = values.unique().to_pylist()
    whole = all(float(value).is_integer() for value in distinct)
    if whole and len(distinct) <= min(MAX_CLASSES_OF_NUMBERS, len(values) // 5):
        log.info(
            "label `%s`: %d different whole numbers are taken for classes; `data.task=regression` "
            "takes them for a quantity",
            name,
            len(distinct),
        )
        return TaskKind.CLASSIFICATION
    return TaskKind.REGRESSION


def _refuse_mixture(name: str, values: pa.ChunkedArray) -> None:
    """Refuse text that is a number here and a word there, unless the task is stated."""
    distinct = values.unique().to_pylist()
    numbers = [text for text in distinct if _is_number(text)]
    if numbers and len(numbers) < len(distinct):
        word = next(text for text in distinct if not _is_number(text))
        raise UserError(
            f"Expected labels of one type in `{name}` but it holds numbers ({numbers[0]!r}) and "
            f"words ({word!r}). Mend it, or set `data.task=classification` if these are classes."
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _classes(name: str, values: pa.ChunkedArray) -> tuple[Task, NDArray[np.int64]]:
    distinct = sorted(values.unique().to_pylist())
    if pa.types.is_floating(values.type):
        fractions = [value for value in distinct if not value.is_integer()]
        if fractions:
            raise UserError(
                f"Expected classes in `{name}` but it holds fractions, such as {fractions[0]:g}. "
                "Set `data.task=regression`."
            )
    codes = pc.call_function(
        "index_in", [values], pc.SetLookupOptions(value_set=pa.array(distinct, values.type))
    )
    task = Task(kind=TaskKind.CLASSIFICATION, outputs=tuple(map(class_name, distinct)))
    return task, codes.to_numpy().astype(np.int64)
