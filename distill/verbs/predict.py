"""`predict`: an exported model over images, into one Parquet file that can serve as a teacher."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig
from rich.progress import Progress

from distill.contract import HASH_KEY, Contract, load_contract
from distill.decode import decode_images
from distill.errors import UserError
from distill.files import atomic_path, sha256, write_json
from distill.metrics import log_softmax
from distill.runtime import OnnxModel
from distill.verbs.image_files import format_of, read_sources
from distill.verbs.workspace import open_workspace


def run(cfg: DictConfig) -> dict[str, Any]:
    """Predict every image of a folder, CSV or Parquet file.

    The file has one row per image that could be read: `index` (its place in the input), `name`,
    `label`, `confidence` and `logits`.
    """
    with open_workspace(cfg) as workspace:
        path = Path(cfg.artefact)
        model = OnnxModel(path, num_threads=cfg.num_threads)
        contract = _contract_of(path, model)
        sources, names = read_sources(Path(cfg.input), cfg.column)
        with Progress(console=workspace.console, transient=True) as progress:
            task = progress.add_task("reading images", total=len(names))
            decoded = decode_images(
                sources,
                format_of(contract),
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
