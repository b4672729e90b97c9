"""Which samples the rows of a file are of: by their names, which are paths, or by their numbers.

Knows nothing of what the rows say of them.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.errors import UserError

log = logging.getLogger(__name__)

INDEX = "index"
NAMES = ("name", "path")  # of columns of paths; `predict` writes the first

Names = Mapping[str, Sequence[str]]  # what rows call their samples, [N] by column
Places = Mapping[str, int]


class Samples(Protocol):
    """The samples of a split: their numbers, [N], and their paths where they have any."""

    @property
    def indices(self) -> NDArray[np.int64]: ...  # noqa: D102

    @property
    def paths(self) -> pa.Array | None: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Located:
    """Rows of a file and the samples that they are of.

    Attributes:
        rows: of the file, [n]; those that are named, and of no sample of the data, are left out.
        numbers: of their samples, [n]; those that the rows give need be no sample's.
        by: the column that tells.
    """

    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]
    by: str


def is_names(table: pa.Table, column: str) -> bool:
    """Tell whether a column names samples; one of numbers may be a class of that name."""
    if column not in NAMES or table.column_names.count(column) != 1:
        return False
    kind = table[column].type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def names_in(table: pa.Table) -> dict[str, list[str]]:
    """Read the names of samples, by column."""
    return {
        name: list(map(str, table[name].to_pylist())) for name in NAMES if is_names(table, name)
    }


def index_in(table: pa.Table) -> NDArray[np.int64] | None:
    """Read the numbers of samples, [N], if there are any.

    Raises:
        ValueError: they are no whole numbers, or a row has none.
    """
    if INDEX not in table.column_names:
        return None
    column = table[INDEX]
    if column.null_count:
        raise ValueError(f"{column.null_count} rows have no `{INDEX}`.")
    return column.cast(pa.int64()).to_numpy()


def places(splits: Iterable[Samples | None]) -> Places:
    """Map the paths of samples to their numbers; none where two share a path.

    Where all lie in one folder, as in `train`, they are also known by their paths in there.
    """
    found = [
        (_tidy(path), int(index))
        for split in splits
        if split is not None and split.paths is not None
        for path, index in zip(split.paths.to_pylist(), split.indices, strict=True)
    ]
    known = dict(found)
    if len(known) < len(found):
        return {}
    folders = {path.partition("/")[0] for path in known}
    if len(folders) != 1:
        return known
    inner = {path.partition("/")[2]: index for path, index in known.items()}
    return known if "" in inner else inner | known


def locate(index: NDArray[np.int64] | None, names: Names, known: Places, path: Path) -> Located:
    """Find the samples that rows are of.

    Names go before numbers: these count from the start of whatever was listed.

    Args:
        index: numbers in the file, [N], if it has any.
        names: in the file, likewise.
        known: numbers of the data's samples by their paths; empty where they have none.
        path: of the file, for messages.

    Raises:
        UserError: nothing in the file tells which samples it is of.
    """
    for by, own in names.items():
        found = np.array([known.get(_tidy(name), -1) for name in own], np.int64)
        rows = np.flatnonzero(found >= 0)
        if not len(rows):
            continue
        others = 0 if index is None else int((index[rows] != found[rows]).sum())
        if others:
            log.warning(
                "WARNING: of %d rows of %s that name a sample, %d have another `%s` than the data "
                "gives it. The names are taken.",
                len(rows),
                path,
                others,
                INDEX,
            )
        return Located(rows=rows, numbers=found[rows], by=by)
    if index is not None:
        return Located(rows=np.arange(len(index)), numbers=index, by=INDEX)
    first = next(own[0] for own in names.values())
    theirs = (
        f"theirs are such as {next(iter(known))}"
        if known
        else "its samples have no paths of their own"
    )
    raise UserError(
        f"Expected {' or '.join(f'`{name}`' for name in NAMES)} in {path} to be paths of samples, "
        f"relative to the folder of the data, but found {first}, and {theirs}. Write them so, or "
        f"add a column `{INDEX}`."
    )


def _tidy(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).as_posix()
