"""Which samples the rows of a file of predictions are of: by their names, or by their numbers.

Knows neither how the file looks nor what it says of them.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.training.data.splits import Split
from distill.training.teachers.prediction_files import INDEX, NAMES, Saved

log = logging.getLogger(__name__)

Places = Mapping[str, int]


def places(splits: Iterable[Split | None]) -> Places:
    """Map the paths of samples to their numbers.

    Where all lie in one folder, as in `train`, they are also known by their paths in there.
    """
    known = {
        _tidy(path): int(index)
        for split in splits
        if split is not None and split.paths is not None
        for path, index in zip(split.paths.to_pylist(), split.indices, strict=True)
    }
    folders = {path.partition("/")[0] for path in known}
    if len(folders) != 1:
        return known
    inner = {path.partition("/")[2]: index for path, index in known.items()}
    return known if "" in inner else inner | known


def locate(table: Saved, known: Places, path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the samples that rows are of.

    Names go before numbers: these count from the start of whatever was listed.

    Args:
        table: what the file holds.
        known: numbers of the data's samples by their paths; empty where they have none.
        path: of the file, for messages.

    Returns:
        The number of each sample, and the row that is of it; rows that are named and of no sample
        of the data are left out.

    Raises:
        UserError: nothing in the file tells which samples it is of.
    """
    every = np.arange(len(table.values))
    found = np.array([known.get(_tidy(name), -1) for name in table.names or ()], np.int64)
    rows = np.flatnonzero(found >= 0)
    if len(rows):
        others = 0 if table.index is None else int((table.index[rows] != found[rows]).sum())
        if others:
            log.warning(
                "WARNING: of %d rows of %s that name a sample, %d have another `%s` than the data "
                "gives it. The names are taken.",
                len(rows),
                path,
                others,
                INDEX,
            )
        return found[rows], rows
    if table.index is not None:
        return table.index, every
    assert table.names is not None
    theirs = f"theirs are such as {next(iter(known))}" if known else "its samples have no paths"
    raise UserError(
        f"Expected {' or '.join(f'`{name}`' for name in NAMES)} in {path} to be paths of samples, "
        f"relative to the folder of the data, but found {table.names[0]}, and {theirs}. Write them "
        f"so, or add a column `{INDEX}`."
    )


def _tidy(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).as_posix()
