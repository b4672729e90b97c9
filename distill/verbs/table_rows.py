"""Rows of a table for a model that is exported: read, and held against what it was trained on."""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from distill.columns import Records
from distill.contract import TableInput
from distill.table_files import raw_records, read_table


def read_rows(cfg: DictConfig, takes: TableInput) -> tuple[Records, dict[str, int]]:
    """Read the rows of `input=`, and count what the model has never seen.

    Returns:
        The records, and by category how many rows hold a value that training did not.

    Raises:
        UserError: it is no table, or lacks a column.
    """
    table = read_table(Path(cfg.input), delimiter=cfg.delimiter, encoding=cfg.encoding)
    records = raw_records(table, takes.columns, date_format=cfg.date_format)
    unseen = {
        name: int((~np.isin(records[name], np.array(values, np.str_))).sum())
        for name, values in takes.categories.items()
    }
    return records, {name: count for name, count in unseen.items() if count}
