"""`predict`: an exported model over images, rows or series, into one Parquet file.

Of images and rows it can be a teacher.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.progress import Progress

from distill.contract import Contract, required_contract
from distill.decode import decode_images
from distill.files import atomic_path, sha256, write_json
from distill.metrics import log_softmax
from distill.runtime import OnnxModel
from distill.tasks import TaskKind
from distill.verbs.image_files import format_of, read_sources
from distill.verbs.series_rows import read_windows
from distill.verbs.table_rows import count_unseen, read_rows
from distill.verbs.workspace import Workspace, open_workspace


def run(cfg: DictConfig) -> dict[str, Any]:
    """Predict every image of a folder, CSV or Parquet file, every row of a table, or series.

    The file has one row per image or row that could be read, with `index` (its place in the input)
    and `name` (of an image); or one per window of a series, with `series` (its name) and `origin`
    (the moment of the last value that is looked at). Then follows what the model says; see `_said`.
    """
    with open_workspace(cfg) as workspace:
        path = Path(cfg.artefact)
        model = OnnxModel(path, num_threads=cfg.num_threads)
        contract = required_contract(path, model.metadata)
        read = _windows if contract.series else _rows if contract.table else _images
        asked = read(cfg, contract, workspace)
        answers = model.predict(asked.inputs)
        table = pa.table({**asked.columns, **_said(contract, answers)})
        metadata = {"classes": "\n".join(contract.classes), "artefact_sha256": sha256(path)}
        with atomic_path(Path(cfg.output)) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary)
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


def _said(contract: Contract, answers: NDArray[np.float32]) -> dict[str, Any]:
    """Lay answers out as columns.

    Of classes `label`, `confidence` and `logits`; of several labels `labels`, a list of those that
    hold, and `logits`; of numbers one column each, by its name, and `prediction`, a list of all.
    """
    together = pa.FixedSizeListArray.from_arrays(answers.ravel(), answers.shape[1])
    kind, names = contract.asks.kind, contract.classes
    if kind is TaskKind.REGRESSION:
        alone = {f"predicted {name}": own for name, own in zip(names, answers.T, strict=True)}
        return alone | {"prediction": together}
    if kind is TaskKind.MULTI_LABEL:
        held = [[names[i] for i in np.flatnonzero(row)] for row in answers > 0]
        return {"labels": pa.array(held, pa.list_(pa.string())), "logits": together}
    probabilities = np.exp(log_softmax(answers))
    return {
        "label": [names[i] for i in probabilities.argmax(axis=1)],
        "confidence": probabilities.max(axis=1).astype(np.float32),
        "logits": together,
    }


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
    _, records = read_rows(cfg, Path(cfg.input), contract.table)
    return _Asked(
        inputs=records,
        columns={"index": np.arange(len(records))},
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
