"""`predict`: an exported model over images, rows or series, into one Parquet or CSV file.

Of images and rows the Parquet file can be a teacher.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.progress import Progress

from distill.contract import (
    CONTRACT_FILE,
    HASH_KEY,
    Contract,
    classes_of,
    load_contract,
    required_contract,
)
from distill.decode import decode_images
from distill.errors import UsageError
from distill.files import sha256, write_json
from distill.runtime import OnnxModel
from distill.verbs.rows.answers import check_suffix, write_answers
from distill.verbs.rows.image_files import format_of, read_sources
from distill.verbs.rows.series_rows import read_windows
from distill.verbs.rows.table_rows import count_unseen, kept_columns, kept_names, read_rows
from distill.verbs.run.workspace import Workspace, open_workspace


def run(cfg: DictConfig) -> dict[str, Any]:
    """Predict every image of a folder, CSV or Parquet file, every row of a table, or series.

    The file has one row per image or row that could be read, with `index` (its place in the input)
    and `name` (of an image) or the columns in `keep` (of a row); or one per window of a series,
    with `series` (its name) and `origin` (the moment of the last value that is looked at). Then
    follows what the model says; see `write_answers`.
    """
    check_suffix(Path(cfg.output))
    with open_workspace(cfg) as workspace:
        path = Path(cfg.artefact)
        model = OnnxModel(path, num_threads=cfg.num_threads)
        contract = _contract_of_reference(path, model) or required_contract(path, model.metadata)
        if cfg.keep and contract.table is None:
            raise UsageError(
                "Expected `keep` to name columns of a table but this model takes none."
            )
        read = _windows if contract.series else _rows if contract.table else _images
        asked = read(cfg, contract, workspace)
        answers = model.predict(asked.inputs)
        metadata = {"classes": "\n".join(contract.classes), "artefact_sha256": sha256(path)}
        write_answers(Path(cfg.output), contract, answers, asked.columns, metadata)
        result = {
            "predictions": str(Path(cfg.output).resolve()),
            "artefact": str(path),
            "num_predictions": len(answers),
            "num_skipped": len(asked.skipped),
            "skipped": asked.skipped[:20],
            "num_unseen": asked.num_unseen,
        }
        write_json(workspace.run_dir / "predict.json", result)
        return result


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a model is asked: its inputs, columns that say which they are, and what was odd."""

    inputs: NDArray[Any]
    columns: dict[str, Any]
    skipped: list[str] = field(default_factory=list)
    num_unseen: dict[str, int] = field(default_factory=dict)


def _images(cfg: DictConfig, contract: Contract, workspace: Workspace) -> _Asked:
    sources, names = read_sources(Path(cfg.input), cfg.column)
    with Progress(console=workspace.console, transient=True) as progress:
        task = progress.add_task("reading images", total=len(names))
        decoded = decode_images(
            sources,
            format_of(contract),
            names=names,
            skip_corrupt=cfg.skip_corrupt,
            skip_option="skip_corrupt",
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    return _Asked(
        inputs=decoded.images,
        columns={"index": decoded.positions, "name": [names[i] for i in decoded.positions]},
        skipped=decoded.skipped,
    )


def _rows(cfg: DictConfig, contract: Contract, workspace: Workspace) -> _Asked:
    assert contract.table is not None
    keep = kept_names(cfg.keep or [])
    table, records = read_rows(cfg, Path(cfg.input), contract.table, codes=keep)
    return _Asked(
        inputs=records,
        columns={"index": np.arange(len(records)), **kept_columns(table, keep)},
        num_unseen=count_unseen(records, contract.table),
    )


def _windows(cfg: DictConfig, contract: Contract, workspace: Workspace) -> _Asked:
    assert contract.series is not None
    asked = read_windows(cfg, contract.series)
    return _Asked(
        inputs=asked.records,
        columns={"series": asked.names, "origin": pa.array(asked.origins, pa.timestamp("ms"))},
        skipped=[f"{name}: {why}" for name, why in asked.left_out.items()],
    )


def _contract_of_reference(path: Path, model: OnnxModel) -> Contract | None:
    """Read the contract beside a teacher's or control's file, where it is true of that file, too.

    It was made for the student, so these files do not carry its hash; the classes they carry.
    """
    if HASH_KEY in model.metadata or not (path.parent / CONTRACT_FILE).is_file():
        return None
    contract = load_contract(path.parent)
    takes, table = contract.input, contract.table
    if takes is not None:
        shape = (takes.height, takes.width, takes.channels)
        alike = (model.input_shape[1:], model.input_type) == (shape, "tensor(uint8)")
    else:
        alike = table is not None and {*model.columns} == {c.name for c in table.columns}
    alike = alike and classes_of(path, model.metadata) == contract.classes
    return contract if alike and model.output_names[0] == contract.output else None
