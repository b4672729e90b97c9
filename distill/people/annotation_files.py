"""Files of annotations and of predictions as tables: CSV, Parquet, Label Studio's JSON export.

Knows how the files look; which samples and classes they name is `annotations`' business.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.errors import UserError
from distill.people.label_studio import read_export
from distill.sample_names import INDEX, NAMES, Names, index_in, names_in

_TEXT = dict.fromkeys((*NAMES, "annotator", "label", "counts"), pa.string())


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A file as it is, one row for each answer, or for each sample where answers are counted.

    Attributes:
        index: of the samples, [A]; None where they are named alone.
        names: of the samples, by column.
        labels: class names or numbers [A], or counts by class [A, C]; or whatever was asked for.
        annotators: who, [A].
        seconds: each answer took, [A].
        num_left_out: answers that were cancelled or are empty.
    """

    index: NDArray[np.int64] | None
    names: Names
    labels: Any
    annotators: Sequence[str] | None = None
    seconds: Sequence[float] | None = None
    num_left_out: int = 0


def read_rows(path: Path) -> Rows:
    """Read a file of annotations, by its suffix.

    Raises:
        UserError: it is missing, damaged, or lacks a column.
    """
    return _read(path, _tables(_answers) | {".json": _label_studio})


def read_column(path: Path, column: str) -> Rows:
    """Read a column of a CSV or Parquet file that names its samples, as the rows' labels.

    Raises:
        UserError: the file is missing or damaged, or lacks a column.
    """

    def taken(table: pa.Table, path: Path) -> Rows:
        samples = _samples(table, path)
        _column(table, column, path)
        return Rows(**samples, labels=_values(table[column]))

    return _read(path, _tables(taken, column))


def _read(path: Path, readers: Mapping[str, Callable[[Path], Rows]]) -> Rows:
    if path.suffix.lower() not in readers or not path.is_file():
        raise UserError(f"Expected a file ({', '.join(readers)}) at {path} but there is none.")
    try:
        return readers[path.suffix.lower()](path)
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"Expected a table in {path} but it is damaged or something else: {reason} Make it "
            "again."
        ) from error


def _tables(
    rows: Callable[[pa.Table, Path], Rows], *text: str
) -> dict[str, Callable[[Path], Rows]]:
    """Read tables; in CSV files columns of names stay text: a class may be called 3."""
    options = pa_csv.ConvertOptions(column_types=_TEXT | dict.fromkeys(text, pa.string()))
    return {
        ".parquet": lambda path: rows(pq.read_table(path), path),
        ".csv": lambda path: rows(pa_csv.read_csv(path, convert_options=options), path),
    }


def _answers(table: pa.Table, path: Path) -> Rows:
    samples = _samples(table, path)
    if "counts" in table.column_names:
        listed = table["counts"].to_pylist()
        counts = [json.loads(row) if isinstance(row, str) else row for row in listed]
        numbers = np.array(counts)
        if numbers.dtype.kind not in "iu":
            raise ValueError("column `counts` has no lists of whole numbers of one length.")
        return Rows(**samples, labels=numbers)
    _column(table, "label", path)
    annotators = seconds = None
    if "annotator" in table.column_names:
        _column(table, "annotator", path)
        annotators = list(map(str, table["annotator"].to_pylist()))
    if "seconds" in table.column_names and not table["seconds"].null_count:
        seconds = table["seconds"].to_pylist()
    labels = _values(table["label"])
    return Rows(**samples, labels=labels, annotators=annotators, seconds=seconds)


def _label_studio(path: Path) -> Rows:
    export = read_export(path, (INDEX, "path"), "baseline annotate")
    given = export.answers
    if not given:
        raise UserError(
            f"Expected answers in {path} but none of its {export.num_tasks} tasks has any."
        )
    seconds = [own.seconds for own in given if own.seconds is not None]
    return Rows(
        index=np.array([int(own.key) for own in given]) if export.by == INDEX else None,
        names={
            name: [str(own.data.get(name)) for own in given]
            for name in NAMES
            if name in given[0].data
        },
        labels=[own.choice for own in given],
        annotators=[own.annotator for own in given],
        seconds=seconds if len(seconds) == len(given) else None,
        num_left_out=export.num_left_out,
    )


def _samples(table: pa.Table, path: Path) -> dict[str, Any]:
    """Read what names the samples."""
    index, names = index_in(table), names_in(table)
    if (index is None and not names) or not len(table):
        raise UserError(
            f"Expected rows with a column `index`, `path` or `name` in {path} but found "
            f"{len(table)} with {', '.join(table.column_names[:10])}. Name each row's sample."
        )
    return {"index": index, "names": names}


def _column(table: pa.Table, name: str, path: Path) -> None:
    if name not in table.column_names or table[name].null_count:
        raise UserError(
            f"Expected a full column `{name}` in {path} but found "
            f"{', '.join(table.column_names[:10])}"
            + (f" with {table[name].null_count} empty" if name in table.column_names else "")
            + ". Name it so, and fill it."
        )


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    return np.asarray(column.to_pylist())


def listed(names: Sequence[Any] | NDArray[Any]) -> str:
    """Name the first few of many, for a message."""
    shown = ", ".join(str(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} others" if len(names) > 5 else "")
