"""`predict`: an exported model over images, into one Parquet file that can serve as a teacher."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig
from rich.progress import Progress

from distill.contract import HASH_KEY, Contract, load_contract
from distill.decode import IMAGE_SUFFIXES, ImageFormat, decode_images
from distill.errors import UserError
from distill.files import atomic_path, sha256, write_json
from distill.metrics import log_softmax
from distill.runtime import OnnxModel
from distill.verbs.workspace import open_workspace

Sources = tuple[list[bytes] | list[Path], list[str]]


def run(cfg: DictConfig) -> dict[str, Any]:
    """Predict every image of a folder, CSV or Parquet file.

    The file has one row per image that could be read: `index` (its place in the input), `name`,
    `label`, `confidence` and `logits`.
    """
    with open_workspace(cfg) as workspace:
        path = Path(cfg.artefact)
        model = OnnxModel(path, num_threads=cfg.num_threads)
        contract = _contract_of(path, model)
        sources, names = _sources(Path(cfg.input), cfg.column)
        image_format = ImageFormat(
            height=contract.input.height,
            width=contract.input.width,
            channels=contract.input.channels,
        )
        with Progress(console=workspace.console, transient=True) as progress:
            task = progress.add_task("reading images", total=len(names))
            decoded = decode_images(
                sources,
                image_format,
                names=names,
                skip_corrupt=cfg.skip_corrupt,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        logits = model.predict(decoded.images)
        probabilities = np.exp(log_softmax(logits))
        answers = probabilities.argmax(axis=1)
        table = pa.table(
            {
                "index": decoded.positions,
                "name": [names[i] for i in decoded.positions],
                "label": [contract.classes[i] for i in answers],
                "confidence": probabilities.max(axis=1).astype(np.float32),
                "logits": pa.FixedSizeListArray.from_arrays(logits.ravel(), logits.shape[1]),
            }
        )
        metadata = {"classes": "\n".join(contract.classes), "artefact_sha256": sha256(path)}
        with atomic_path(Path(cfg.output)) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary)
        result = {
            "predictions": str(Path(cfg.output).resolve()),
            "artefact": str(path),
            "num_predictions": len(logits),
            "num_skipped": len(decoded.skipped),
            "skipped": decoded.skipped[:20],
        }
        write_json(workspace.run_dir / "predict.json", result)
        return result


def _contract_of(path: Path, model: OnnxModel) -> Contract:
    contract = load_contract(path.parent)
    found = model.metadata.get(HASH_KEY)
    if found != contract.sha256:
        raise UserError(
            f"Expected {path} to carry the hash of the contract beside it but it carries "
            f"{found or 'none'}. Keep an artefact together with the contract it was exported with."
        )
    return contract


def _sources(path: Path, column: str) -> Sources:
    """List the encoded images of an input and a name for each."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise UserError(f"Expected images ({', '.join(IMAGE_SUFFIXES)}) in {path}, found none.")
        return files, [str(file.relative_to(path)) for file in files]
    readers: dict[str, Callable[[Path, str], Sources]] = {".csv": _csv, ".parquet": _parquet}
    if path.suffix.lower() not in readers or not path.is_file():
        raise UserError(
            f"Expected `input` to be a folder, a .csv or a .parquet file but got {path}."
        )
    return readers[path.suffix.lower()](path, column)


def _csv(path: Path, column: str) -> Sources:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or column not in rows[0]:
        found = ", ".join(rows[0]) if rows else "no rows"
        raise UserError(f"Expected a column `{column}` in {path} but found {found}. Set `column=`.")
    return _beside(path, [row[column] for row in rows])


def _parquet(path: Path, column: str) -> Sources:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"Expected a Parquet file at {path} but {error}") from error
    if column not in table.column_names:
        found = ", ".join(table.column_names)
        raise UserError(f"Expected a column `{column}` in {path} but found {found}. Set `column=`.")
    values = table[column].to_pylist()
    values = [v.get("bytes") if isinstance(v, dict) else v for v in values]
    if all(isinstance(value, str) for value in values):
        return _beside(path, values)
    return [v or b"" for v in values], [f"row {row}" for row in range(len(values))]


def _beside(table: Path, names: list[str]) -> Sources:
    """Take paths as relative to the file that names them."""
    return [table.parent / name for name in names], names
