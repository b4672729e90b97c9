"""A column of existing predictions as a baseline: whatever made them, however long it took."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.people.annotations import read_answers
from distill.tasks import as_names
from distill.training.data.splits import Split


def saved_predictions(
    train: Split,
    test: Split,
    num_classes: int,
    *,
    path: str,
    column: str = "prediction",
) -> NDArray[Any]:
    """Read a prediction for every test sample.

    Args:
        train: not looked at.
        test: whose samples are looked up, by `name` or `path`, which go before `index`.
        num_classes: not looked at.
        path: a .csv or .parquet file; samples of other splits in it are passed over.
        column: of class names or numbers; of numbers, or a list of them in each row, in the
            labels' own units; of several labels a list of logits.

    Returns:
        Class names or numbers, [N]; where labels are no classes, [N, D].

    Raises:
        UserError: the file is missing or damaged, or a sample has no prediction or several.
    """
    answers = read_answers(Path(path), column, test)
    if test.labels.ndim == 1:
        return as_names(answers)
    try:
        return answers.astype(np.float64).reshape(len(test), -1)
    except ValueError as error:
        raise UserError(
            f"Expected numbers in the column `{column}` of {path} but found something else: "
            f"{error}. Mend it, or name another column."
        ) from error
