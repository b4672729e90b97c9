"""The world that a model was made in, as far as it was written down: the measure of production.

Knows the files of a run, which the registry keeps; knows nothing of the log.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.contract import CONTRACT_FILE, Contract, load_contract
from distill.errors import UserError
from distill.files import read_json, sha256
from distill.production.reference import EMBEDDINGS
from distill.tasks import TaskKind

TEST_LOGITS, REFERENCE, BASELINE = "predictions/test_logits.npz", "reference.json", "baseline.json"


@dataclass(frozen=True, kw_only=True)
class World:
    """What is known from the day on which the model was made.

    Attributes:
        artefact: the file.
        artefact_sha256: its hash, by which the log knows it.
        contract: what it promises.
        figures: its reference statistics, on validation rows.
        logits: its answers to the test set, [N, C].
        labels: of the test set, [N].
        teacher: its teacher's answers there, [N, C]; None where there are none.
        baseline: name of what it must beat, and its accuracy; None where there is none.
        embeddings: its penultimate features of validation rows, [n, D]; None where none were kept.
    """

    artefact: Path
    artefact_sha256: str
    contract: Contract
    figures: dict[str, Any]
    logits: NDArray[np.floating]
    labels: NDArray[np.int64]
    teacher: NDArray[np.floating] | None
    baseline: tuple[str, float] | None
    embeddings: NDArray[np.floating] | None = None

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether it was, on the test set, [N]."""
        return self.logits.argmax(axis=1) == self.labels

    @property
    def agreed(self) -> NDArray[np.bool_] | None:
        """Whether the teacher said the same there, [N]; None without one."""
        if self.teacher is None:
            return None
        return self.teacher.argmax(axis=1) == self.logits.argmax(axis=1)

    @property
    def floor(self) -> float:
        """Accuracy of knowing nothing: the share of the commonest class."""
        return float(np.bincount(self.labels).max() / len(self.labels))


def open_world(root: Path, artefact: str, role: str) -> World:
    """Read what a run, or a version of the registry, says of one of its artefacts.

    Args:
        root: folder of the run, or of the version.
        artefact: its file's name, such as `model.int8.onnx`.
        role: its name among the answers to the test set, such as `student_int8`.

    Raises:
        UserError: something is missing or damaged, or the model is none of classes.
    """
    path = root / "export" / artefact
    for needed in (path, root / REFERENCE, root / TEST_LOGITS, root / "export" / CONTRACT_FILE):
        if not needed.is_file():
            raise UserError(
                f"Expected {needed} to hold production against but it is not there. Name a run "
                "folder in which `pipeline` has ended, or leave `run=` out for the registry's "
                "champion."
            )
    contract, figures = load_contract(root / "export"), read_json(root / REFERENCE)
    if contract.asks.kind is not TaskKind.CLASSIFICATION:
        raise UserError(
            f"Expected a model of classes but {path} is one of {contract.asks.kind}, which "
            "`monitor` does not know yet."
        )
    own = sha256(path)
    known = figures.get("models", {}).get(artefact, {})
    if known.get("sha256") != own:
        raise UserError(
            f"Expected reference statistics of {path} in {root / REFERENCE} but they are of "
            "another file. Run `pipeline` with this `run_dir=` again."
        )
    answers = _arrays(root / TEST_LOGITS)
    if role not in answers:
        raise UserError(
            f"Expected answers of `{role}` in {root / TEST_LOGITS} but found "
            f"{', '.join(answers)}. Run `pipeline` with this `run_dir=` again."
        )
    return World(
        artefact=path,
        artefact_sha256=own,
        contract=contract,
        figures=figures,
        logits=answers[role],
        labels=answers["label"].astype(np.int64),
        teacher=answers.get("teacher"),
        baseline=_baseline(root / BASELINE),
        embeddings=_embeddings(root / EMBEDDINGS, artefact),
    )


def _embeddings(path: Path, artefact: str) -> NDArray[np.floating] | None:
    return _arrays(path).get(artefact) if path.is_file() else None


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"Expected answers in {path} but it is damaged: {error}. Run `pipeline` again."
        ) from error


def _baseline(path: Path) -> tuple[str, float] | None:
    if not path.is_file():
        return None
    scores = read_json(path)
    best = scores["best"]
    found = scores["baselines"][best].get("accuracy")
    return None if found is None else (best, float(found["estimate"]))
