"""Files of predictions: which sample each row is of, and what was said of it.

Knows how the files look; knows neither the data nor the model that answered.
"""

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.errors import UserError
from distill.sample_names import INDEX, NAMES, Names, index_in, is_names, names_in
from distill.tasks import TaskKind

NUMBERS, PROBABILITIES = "prediction", "probabilities"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a file holds.

    Attributes:
        index: of the samples, [N]; None where they are named alone.
        names: of the samples, by column.
        values: what is said of each, [N, C].
        classes: names of the outputs; None where the file does not name them.
        are_probabilities: None where it does not say.
    """

    index: NDArray[np.int64] | None
    names: Names
    values: NDArray[np.floating]
    classes: tuple[str, ...] | None
    are_probabilities: bool | None


def read_predictions(path: Path, kind: TaskKind) -> Saved:
    """Read a file of predictions, by its suffix; see `PredictionsTeacher` for how it looks.

    Raises:
        UserError: it is missing, damaged, or of another form.
    """
    readers: dict[str, Callable[[Path, tuple[str, ...]], Saved]] = {
        ".parquet": _read_parquet,
        ".npz": _read_npz,
        ".csv": _read_csv,
    }
    if path.suffix.lower() not in readers or not path.is_file():
        raise UserError(
            f"Expected predictions in a file ({', '.join(readers)}) but there is none at {path}. "
            "Run `predict` to make one."
        )
    wanted = (NUMBERS,) if kind is TaskKind.REGRESSION else ("logits", PROBABILITIES)
    try:
        table = readers[path.suffix.lower()](path, wanted)
    except (pa.ArrowException, OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        reason = " ".join(str(e).split())[:200]
        raise UserError(
            f"Expected predictions in {path} but it is damaged or something else: {reason} "
            "Make it again."
        ) from e
    values = table.values
    counts = [len(own) for own in table.names.values()]
    index = np.arange(counts[0]) if table.index is None else table.index
    whole = index.ndim == 1 and index.dtype.kind in "iu"
    numbers = values.ndim == 2 and values.dtype.kind in "iuf"
    if not whole or not numbers or {len(index), *counts} != {len(values)} or not values.size:
        raise UserError(
            f"Expected whole numbers `{INDEX}` [N] and numbers [N, classes] in {path} but got "
            f"{index.dtype} {index.shape} and {values.dtype} {values.shape}. Make it again."
        )
    return table


def _read_parquet(path: Path, wanted: tuple[str, ...]) -> Saved:
    table = pq.read_table(path)
    keys = [name for name in table.column_names if name == INDEX or is_names(table, name)]
    name = _values_name(table.column_names, path, wanted, keys)
    named = (table.schema.metadata or {}).get(b"classes")
    return Saved(
        index=index_in(table),
        names=names_in(table),
        values=_numbers(table[name].combine_chunks(), name),
        classes=tuple(named.decode().split("\n")) if named else None,
        are_probabilities=name == PROBABILITIES,
    )


def _numbers(column: Any, name: str) -> NDArray[np.floating]:
    """Take lists of numbers out of a column, [N, C]; where `prediction` is asked, also numbers."""
    if name == NUMBERS and (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)[:, None]
    kinds = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise ValueError(f"column `{name}` has {column.type}, not lists of numbers.")
    widths = pc.call_function("list_value_length", [column]).unique().to_pylist()
    if len(widths) != 1 or widths[0] is None:
        raise ValueError(f"column `{name}` has lists of different lengths, or none: {widths[:5]}.")
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    return numbers.astype(np.float32).reshape(len(column), widths[0])


def _read_npz(path: Path, wanted: tuple[str, ...]) -> Saved:
    if not zipfile.is_zipfile(path):  # `np.load` opens other things too
        raise ValueError("it is no archive of arrays, or its end is missing.")
    with np.load(path, allow_pickle=False) as arrays:
        keys = [name for name in (INDEX, *NAMES) if name in arrays.files]
        name = _values_name(arrays.files, path, wanted, keys)
        named = np.atleast_1d(arrays["classes"]) if "classes" in arrays.files else None
        values = arrays[name]
        return Saved(
            index=arrays[INDEX] if INDEX in arrays.files else None,
            names={own: list(map(str, arrays[own])) for own in NAMES if own in arrays.files},
            values=values[:, None] if name == NUMBERS and values.ndim == 1 else values,
            classes=None if named is None else tuple(map(str, named)),
            are_probabilities=name == PROBABILITIES,
        )


def _read_csv(path: Path, wanted: tuple[str, ...]) -> Saved:
    table = pa_csv.read_csv(path)
    names = table.column_names
    keys = [name for name in names if name == INDEX or is_names(table, name)]
    if not keys or len({*keys}) < len(keys) or len(names) == len(keys):
        raise UserError(
            f"Expected one column `{INDEX}` or `name` and one for every class in {path} but found "
            f"{', '.join(names[:10])}. Mend its first line."
        )
    is_unnamed = NUMBERS in wanted and NUMBERS in names
    taken = [name for name in names if name == NUMBERS or (not is_unnamed and name not in keys)]
    columns = [table.column(at) for at, name in enumerate(names) if name in taken]
    numbers = [column.cast(pa.float64()).to_numpy() for column in columns]
    return Saved(
        index=index_in(table),
        names=names_in(table),
        values=np.stack(numbers, axis=1),
        classes=None if is_unnamed else tuple(taken),
        are_probabilities=False if NUMBERS in wanted else None,
    )


def _values_name(
    names: Sequence[str], path: Path, wanted: tuple[str, ...], keys: Sequence[str]
) -> str:
    found = [name for name in wanted if name in names]
    if not keys or len(found) != 1:
        either = f"{'either ' * (len(wanted) > 1)}{' or '.join(f'`{name}`' for name in wanted)}"
        raise UserError(
            f"Expected `{INDEX}` and {either} in {path} but found "
            f"{', '.join(names[:10]) or 'nothing'}. Name its columns or arrays so; a `name`, a "
            f"sample's path, may stand for `{INDEX}`."
        )
    return found[0]
