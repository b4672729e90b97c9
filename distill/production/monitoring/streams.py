"""Labelled rows of the log as a stream that a simulation can live through.

Knows contracts and logged rows; knows nothing of policies.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distill.columns import Column, Kind, Records, is_missing
from distill.errors import UserError
from distill.production.logged_inputs import stacked
from distill.production.monitoring.observation import DAY
from distill.production.monitoring.simulation import Stream
from distill.production.monitoring.world import World
from distill.production.prediction_log.observed import Labelled
from distill.production.teacher_answers import TeacherAnswers

MAX_VALUES = 20  # of a category, that get a column of their own


def stream_of(
    world: World, rows: Sequence[Labelled], teacher: TeacherAnswers | None, first: float
) -> Stream:
    """Put labelled rows in the order of time, as numbers.

    Args:
        world: of the model that answered them.
        rows: whose inputs were kept.
        teacher: what it says of them; None, or not of all of them, leaves it out.
        first: the moment at which day 0 begins; UTC, in seconds since 1970.

    Raises:
        UserError: no row has an input.
    """
    known = sorted((row for row in rows if row.input is not None), key=lambda row: row.time)
    if not known:
        raise UserError(
            "Expected labelled rows whose inputs are in the log but found none: there is nothing "
            "to train on. `serve` keeps inputs with `log.inputs=keep`, and labels come by "
            "/feedback or /review."
        )
    table = world.contract.table
    columns = None if table is None else table.columns
    inputs = stacked([row.input for row in known if row.input is not None], columns)
    classes = None
    if teacher is not None:
        logits = teacher.logits_of([row.id for row in known])
        if not np.isnan(logits).any():
            classes = logits.argmax(axis=1)
    return Stream(
        days=np.array([int((row.time - first) // DAY) for row in known]).clip(0),
        inputs=as_numbers(inputs, columns),
        labels=np.array([row.truth for row in known]),
        teacher=classes,
    )


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
