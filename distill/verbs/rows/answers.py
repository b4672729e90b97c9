"""A model's answers as the columns of a file: Parquet, or CSV for people and spreadsheets.

Knows what a contract's answers mean; knows nothing of what was asked.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.contract import Contract
from distill.errors import UsageError, UserError
from distill.files import atomic_path
from distill.statistics.metrics import log_softmax
from distill.tasks import TaskKind

SUFFIXES = (".parquet", ".csv")


def check_suffix(path: Path) -> None:
    """Refuse a file of another kind.

    Raises:
        UsageError: says which there are.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"Expected `output` to end in {' or '.join(SUFFIXES)} but got {path}. Rename it."
        )


def write_answers(
    path: Path,
    contract: Contract,
    answers: NDArray[np.float32],
    asked: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> None:
    """Write what was asked and answered, a row each, in the form that the suffix names.

    Args:
        path: of the file.
        contract: of the model.
        answers: [N, C].
        asked: columns that say what each answer is of.
        metadata: kept in Parquet, which a teacher reads; CSV has no place for it.

    Raises:
        UserError: what was asked has a column of an answer's name, or one that CSV cannot hold.
    """
    is_csv = path.suffix.lower() == ".csv"
    columns = _flat(contract, answers) if is_csv else _listed(contract, answers)
    twice = sorted(asked.keys() & columns.keys())
    if twice:
        raise UserError(
            f"Expected columns of other names than the answers' but got `{twice[0]}`. Rename it."
        )
    table = pa.table({**asked, **columns})
    nested = [own.name for own in table.schema if pa.types.is_nested(own.type)]
    if is_csv and nested:
        raise UsageError(
            f"Expected single values for a CSV file but `{nested[0]}` holds lists. "
            "Let `output` end in .parquet."
        )
    with atomic_path(path) as temporary:
        if is_csv:
            pa_csv.write_csv(table, temporary)
        else:
            pq.write_table(table.replace_schema_metadata(dict(metadata)), temporary)


def _listed(contract: Contract, answers: NDArray[np.float32]) -> dict[str, Any]:
    """Lay answers out as columns of which the last is a list of all that the model said.

    Of classes `label`, `confidence` and `logits`; of several labels `labels`, a list of those that
    hold, and `logits`; of numbers one column each, by its name, and `prediction`, a list of all.
    """
    together = pa.FixedSizeListArray.from_arrays(answers.ravel(), answers.shape[1])
    kind, names = contract.asks.kind, contract.classes
    if kind is TaskKind.REGRESSION:
        return _numbers(names, answers) | {"prediction": together}
    if kind is TaskKind.MULTI_LABEL:
        return {"labels": pa.array(_held(names, answers), pa.list_(pa.string()))} | {
            "logits": together
        }
    return _decided(names, np.exp(log_softmax(answers))) | {"logits": together}


def _flat(contract: Contract, answers: NDArray[np.float32]) -> dict[str, Any]:
    """Lay answers out as columns of single values: a probability for each class or label."""
    kind, names = contract.asks.kind, contract.classes
    if kind is TaskKind.REGRESSION:
        return _numbers(names, answers)
    if kind is TaskKind.MULTI_LABEL:
        shares = 1 / (1 + np.exp(-answers.astype(np.float64)))
        said = {"labels": ["; ".join(held) for held in _held(names, answers)]}
    else:
        shares = np.exp(log_softmax(answers))
        said = _decided(names, shares)
    return said | {
        f"probability {name}": own.astype(np.float32)
        for name, own in zip(names, shares.T, strict=True)
    }


def _numbers(names: tuple[str, ...], answers: NDArray[np.float32]) -> dict[str, Any]:
    return {f"predicted {name}": own for name, own in zip(names, answers.T, strict=True)}


def _held(names: tuple[str, ...], answers: NDArray[np.float32]) -> list[list[str]]:
    return [[names[i] for i in np.flatnonzero(row)] for row in answers > 0]


def _decided(names: tuple[str, ...], probabilities: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "label": [names[i] for i in probabilities.argmax(axis=1)],
        "confidence": probabilities.max(axis=1).astype(np.float32),
    }
