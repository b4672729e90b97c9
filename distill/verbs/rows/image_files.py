"""Images and labels that a user names: a folder, or a CSV or Parquet file."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.contract import Contract
from distill.decode import ImageFormat
from distill.errors import UserError
from distill.image_sources import encoded_images, image_files
from distill.tasks import as_names, class_numbers

Sources = tuple[Sequence[bytes | Path], list[str]]


def format_of(contract: Contract) -> ImageFormat:
    """Say what images must be brought to for a model.

    Raises:
        UserError: it takes a table.
    """
    takes = contract.input
    if takes is None:
        raise UserError("Expected a model of images but this one takes the columns of a table.")
    return ImageFormat(height=takes.height, width=takes.width, channels=takes.channels)


def read_sources(path: Path, column: str) -> Sources:
    """List the encoded images of an input and a name for each.

    Args:
        path: a folder, a .csv or a .parquet file.
        column: of the file: image paths, relative to it, or in Parquet image bytes.

    Raises:
        UserError: it is something else, or has no such column.
    """
    if path.is_dir():
        files = image_files(path)
        return files, [str(file.relative_to(path)) for file in files]
    readers: dict[str, Callable[[Path, str], Sources]] = {".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in readers or not path.is_file():
        found = "" if path.exists() else ", which is not there"
        raise UserError(
            "Expected `input` to be a folder of images, a .csv or a .parquet file but got "
            f"{path}{found}. Mend `input=`."
        )
    return readers[path.suffix.lower()](path, column)


def _csv(path: Path, column: str) -> Sources:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or column not in rows[0]:
        found = ", ".join(rows[0]) if rows else "no rows"
        raise UserError(f"Expected a column `{column}` in {path} but found {found}. Set `column=`.")
    named = [row[column] for row in rows]
    return [path.parent / name if name else b"" for name in named], _names(named)


def _parquet(path: Path, column: str) -> Sources:
    values = _column(path, column)
    sources = encoded_images(values, path)
    by_path = any(isinstance(source, Path) for source in sources)
    return sources, _names(values.to_pylist() if by_path else [None] * len(values))


def read_labels(path: Path, column: str, classes: Sequence[str]) -> NDArray[np.int64]:
    """Read labels from a Parquet file, [N]: class names, or numbers of classes.

    Raises:
        UserError: there is no such column, or a label is no class.
    """
    labels = as_names(_column(path, column).to_pylist())
    return class_numbers(labels, classes, str(path))


def _column(path: Path, column: str) -> pa.ChunkedArray:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"Expected a Parquet file at {path} but {error}") from error
    if column not in table.column_names:
        found = ", ".join(table.column_names)
        raise UserError(f"Expected a column `{column}` in {path} but found {found}. Set `column=`.")
    return table[column]


def _names(named: Sequence[str | None]) -> list[str]:
    """Call each image as the file does, or by its row."""
    return [name or f"row {row}" for row, name in enumerate(named)]
