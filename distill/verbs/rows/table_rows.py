"""Rows of a table for a model that is exported: read, and held against what it was trained on."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from omegaconf import DictConfig

from distill.contract import Contract, TableInput
from distill.errors import UsageError, UserError, nearest
from distill.tables.columns import Column, Kind, Records
from distill.tables.table_files import (
    column_of,
    raw_records,
    raw_values,
    read_table,
    refuse_long,
)
from distill.tables.texts import kind_of_texts
from distill.tasks import TaskKind, class_name, class_numbers

log = logging.getLogger(__name__)

_ADVICE = (
    "The model was trained on numbers there. Mend it, or leave the cell empty: a gap is filled in."
)
OPTIONS = ("delimiter", "encoding", "date_format", "resample", "fill")


def read_rows(
    cfg: DictConfig,
    path: Path,
    takes: TableInput,
    *,
    texts: Sequence[str] = (),
    codes: Sequence[str] = (),
) -> tuple[pa.Table, Records]:
    """Read a table, and of its rows what a model takes.

    Args:
        cfg: of the verb: how the table is written.
        path: of the table.
        takes: what the model takes; its categories are texts in CSV, as they are to training, and
            so are dates that a format tells.
        texts: further columns that are texts.
        codes: columns beside the model's, of which 007 is not 7; see `read_table`.

    Raises:
        UserError: it is no table, or lacks a column.
    """
    is_text = {Kind.CATEGORY, Kind.DATE} if cfg.date_format else {Kind.CATEGORY}
    own = [column.name for column in takes.columns if column.kind in is_text]
    with options_by_their_names():
        table = read_table(
            path, delimiter=cfg.delimiter, encoding=cfg.encoding, texts=[*own, *texts],
            codes={*codes}.difference(column.name for column in takes.columns),
        )  # fmt: skip
        records = raw_records(
            table, takes.columns,
            date_format=cfg.date_format, spellings=takes.spellings, advice=_ADVICE,
        )  # fmt: skip
    return table, records


def kept_names(asked: Any) -> list[str]:
    """Name the columns that `keep` says, one or several, some of which YAML took for numbers."""
    several = isinstance(asked, Sequence) and not isinstance(asked, str)
    return [str(name) for name in (asked if several else [asked])]


def kept_columns(table: pa.Table, names: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    """Take columns along, to stand beside the answers.

    Args:
        table: the rows.
        names: of the columns.

    Raises:
        UsageError: the table has no such column, or it is called as the place in the input is.
    """
    for name in names:
        if name not in table.column_names:
            raise UsageError(
                f"Expected `keep` to name columns of the table but it has no `{name}`. "
                f"{nearest(name, table.column_names)}"
            )
        if name == "index":
            raise UsageError(
                "Expected `keep` without `index`, which is the place in the input. Rename that "
                "column."
            )
    return {name: table[name] for name in names}


def count_unseen(records: Records, takes: TableInput) -> dict[str, int]:
    """Count by category how many rows hold a value that training did not, and say so."""
    counts = {
        name: int((~np.isin(records[name], np.array(values, np.str_))).sum())
        for name, values in takes.categories.items()
    }
    unseen = {name: count for name, count in counts.items() if count}
    for name, count in unseen.items():
        log.warning(
            "column `%s`: %d of %d rows hold a value that training has not seen; the model takes "
            "them for unknown", name, count, len(records),
        )  # fmt: skip
    return unseen


def text_labels(contract: Contract, names: Sequence[str]) -> list[str]:
    """Name the columns of labels that are texts, whatever they look like: classes such as 007."""
    is_text = contract.asks.kind is TaskKind.CLASSIFICATION and (
        kind_of_texts(contract.asks.outputs) is None
    )
    return list(names) if is_text else []


def labels_of(table: pa.Table, contract: Contract, names: Sequence[str]) -> NDArray[Any]:
    """Read the labels of rows; see `TaskKind`.

    Args:
        table: the rows.
        contract: of the model that is asked about them.
        names: of the label's column, of class names or numbers, or of one for each output.

    Raises:
        UserError: a column is missing, or its values are none that the task has.
    """
    task = contract.asks
    columns = {name: column_of(table, name, "`label_column`") for name in names}
    for name, values in columns.items():
        num_gaps = int(values.is_null(nan_is_null=True).to_numpy().sum())
        if num_gaps:
            raise UserError(
                f"Expected a label in every row but `{name}` has {num_gaps:,} gaps. Leave those "
                "rows out."
            )
    wanted = 1 if task.kind is TaskKind.CLASSIFICATION else len(task.outputs)
    if len(columns) != wanted:
        raise UserError(
            f"Expected `label_column` to name {wanted} columns of labels but got {len(columns)}: "
            f"{', '.join(columns)}. Name one for each of {', '.join(task.outputs[:10])}."
        )
    if task.kind is TaskKind.CLASSIFICATION:
        ((name, values),) = columns.items()
        if pa.types.is_string(values.type):
            refuse_long(values, name)
        texts = np.array([class_name(value) for value in values.to_pylist()], np.str_)
        return class_numbers(texts, task.outputs, f"`{name}`")
    advice = (
        "Mend it: the model tells numbers."
        if task.kind is TaskKind.REGRESSION
        else "Write yes and no as 1 and 0."
    )
    numbers = [
        raw_values(v, Column(name=n, kind=Kind.NUMBER), advice=advice) for n, v in columns.items()
    ]
    labels = np.stack(numbers, axis=1).astype(np.float32)
    if task.kind is TaskKind.MULTI_LABEL and not np.isin(labels, (0, 1)).all():
        raise UserError(f"Expected 0 and 1 in the labels {', '.join(names)} but got others.")
    return labels


@contextmanager
def options_by_their_names() -> Iterator[None]:
    """Name options as a verb without `data` has them, where a message of training's names them."""
    try:
        yield
    except UserError as error:
        pattern = rf"`data\.({'|'.join(OPTIONS)})\b"
        raise type(error)(re.sub(pattern, r"`\1", str(error))) from error
