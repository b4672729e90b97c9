"""Labelled rows of the log as a stream that a simulation can live through.

Knows contracts and logged rows; knows nothing of policies.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.production.logged_inputs import stacked
from distill.production.monitoring.simulation import Stream
from distill.production.monitoring.world import World
from distill.production.prediction_log.labelled import Labelled
from distill.production.prediction_log.scope import DAY
from distill.production.teacher_answers import TeacherAnswers
from distill.tables.columns import Column, Kind, Records, is_missing

MAX_VALUES = 20  # of a category, that get a column of their own
MAX_NUMBERS = 1024  # of an array, that the stand-in looks at: it squares them
AT_ONCE = 256  # arrays in memory


def stream_of(
    world: World,
    rows: Labelled,
    inputs: Mapping[str, bytes],
    teacher: TeacherAnswers | None,
    first: float,
) -> Stream:
    """Put labelled rows in the order of time, as numbers.

    Args:
        world: of the model that answered them.
        rows: whose truth is known.
        inputs: by id, of those whose inputs were kept.
        teacher: what it says of them; None, or not of all of them, leaves it out.
        first: the moment at which day 0 begins; UTC, in seconds since 1970.

    Raises:
        UserError: no row has an input.
    """
    if not inputs:
        raise UserError(
            "Expected labelled rows whose inputs are in the log but found none: there is nothing "
            "to train on. `serve` keeps inputs with `log.inputs=keep`, and labels come by "
            "/feedback or /review."
        )
    rows = rows.take(np.array([name in inputs for name in rows.names], bool))
    rows = rows.take(np.argsort(rows.times, kind="stable"))
    table, names = world.contract.table, rows.names
    columns = None if table is None else table.columns
    classes = None
    if teacher is not None:
        logits = teacher.logits_of(names)
        if not np.isnan(logits).any():
            classes = logits.argmax(axis=1)
    return Stream(
        days=((rows.times - first) // DAY).astype(np.int64).clip(0),
        inputs=_numbers([inputs[name] for name in names], columns),
        labels=rows.truths,
        teacher=classes,
    )


def _numbers(inputs: Sequence[bytes], columns: Sequence[Column] | None) -> NDArray[np.float64]:
    """Write logged inputs as numbers; of a large array every so manyth, in equal distances."""
    if columns is not None:
        return as_numbers(stacked(inputs, columns), columns)
    parts = []
    for at in range(0, len(inputs), AT_ONCE):
        numbers = stacked(inputs[at : at + AT_ONCE])
        flat = numbers.reshape(len(numbers), -1)
        parts.append(as_numbers(flat[:, :: -(-flat.shape[1] // MAX_NUMBERS)], None))
    return np.concatenate(parts)


def as_numbers(inputs: NDArray, columns: Sequence[Column] | None) -> NDArray[np.float64]:
    """Write inputs as numbers, [n, D]: pixels, or columns with gaps and values apart.

    Args:
        inputs: [n, ...], or records of a table.
        columns: of the table; None of arrays.
    """
    if columns is None:
        return inputs.reshape(len(inputs), -1).astype(np.float64)
    return np.hstack([_column(column, inputs) for column in columns])


def _column(column: Column, records: Records) -> NDArray[np.float64]:
    values = records[column.name]
    values = values[:, -1] if values.ndim == 2 else values
    gaps = is_missing(column, values)
    if column.kind is Kind.CATEGORY:
        names, counts = np.unique(values, return_counts=True)
        commonest = names[np.argsort(-counts, kind="stable")[:MAX_VALUES]]
        return (values[:, None] == commonest[None]).astype(np.float64)
    numbers = values.astype(np.float64)
    middle = numbers[~gaps].mean() if (~gaps).any() else 0.0
    return np.stack([np.where(gaps, middle, numbers), gaps.astype(np.float64)], axis=1)
