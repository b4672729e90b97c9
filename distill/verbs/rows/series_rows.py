"""Rows of series for a model that is exported: the windows that it forecasts from."""

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from distill.contract import SeriesInput
from distill.errors import UsageError
from distill.files import to_json
from distill.tables.table_files import read_table
from distill.verbs.rows.table_rows import options_by_their_names

if TYPE_CHECKING:
    from distill.training.data.histories import Questions


def read_windows(cfg: DictConfig, takes: SeriesInput) -> "Questions":
    """Read the windows of `input=`: of each series the last, or all.

    Raises:
        UserError: it is no table, a column or moment is not as training takes it, or no series can
            be forecast.
    """
    from distill.training.data.histories import read_questions
    from distill.training.data.pools import SeriesChoice

    if cfg.origins not in ("last", "all"):
        raise UsageError(f"Expected `origins` to be last or all but got {cfg.origins}.")
    given = to_json(takes)
    anchor = given.pop("anchor")
    for name in ("resample", "fill", "date_format"):
        given[name] = cfg[name] or given[name]
    with options_by_their_names():
        table = read_table(
            Path(cfg.input), delimiter=cfg.delimiter, encoding=cfg.encoding,
            codes=[takes.series] if takes.series else [],
            texts=[takes.time] if given["date_format"] else [],
        )  # fmt: skip
        every = cfg.origins == "all"
        return read_questions(table, SeriesChoice(**given), anchor=anchor, every=every)
