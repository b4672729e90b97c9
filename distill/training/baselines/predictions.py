"""A column of existing predictions as a baseline: whatever made them, however long it took."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distill.annotations import Samples, read_answers
from distill.training.data.splits import Split


def saved_predictions(
    train: Split,
    test: Split,
    num_classes: int,
    *,
    path: str,
    column: str = "prediction",
) -> NDArray[Any]:
    """Read a prediction for every test sample, [N] class names or numbers.

    Args:
        train: not looked at.
        test: whose samples are looked up, by `index` or `path`.
        num_classes: not looked at.
        path: a .csv or .parquet file; samples of other splits in it are passed over.
        column: that holds class names or numbers.

    Raises:
        UserError: the file is missing or damaged, or a sample has no prediction or several.
    """
    return read_answers(Path(path), column, Samples(indices=test.indices, paths=test.paths))
