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
from distill.production.prediction_log.labelled import Shape
from distill.production.reference import EMBEDDINGS
from distill.run_folder import BASELINE_SCORES, TEST_LOGITS
from distill.statistics.scoring import Scoring, Truth, scoring_of
from distill.tasks import TaskKind

REFERENCE = "reference.json"


@dataclass(frozen=True, kw_only=True)
class World:
    """What is known from the day on which the model was made.

    Attributes:
        artefact: the file.
        artefact_sha256: its hash, by which the log knows it.
        contract: what it promises.
        figures: its reference statistics, on validation rows.
        scoring: of its task.
        answers: to the test set: logits [N, C], or numbers [N, K].
        truth: of the test set.
        teacher: its teacher's answers there, [N, C]; None where there are none.
        baseline: name of what it must beat, and how good that is; None where there is none.
        embeddings: its penultimate features of validation rows, [n, D]; None where none were kept.
    """

    artefact: Path
    artefact_sha256: str
    contract: Contract
    figures: dict[str, Any]
    scoring: Scoring
    answers: NDArray[np.floating]
    truth: Truth
    teacher: NDArray[np.floating] | None
    baseline: tuple[str, float] | None
    embeddings: NDArray[np.floating] | None = None

    @property
    def tells_classes(self) -> bool:
        """Whether it tells one of several classes."""
        return self.contract.asks.kind is TaskKind.CLASSIFICATION

    @property
    def shape(self) -> Shape:
        """Of its answers in the log, and of their truth."""
        asks = self.contract.asks
        if self.tells_classes:
            return Shape()
        return Shape(num_answers=len(asks.answers), num_outputs=len(asks.outputs))

    @property
    def reference(self) -> float:
        """How good it was on the test set, in its metric."""
        return self.scoring.value(self.scoring.marks(self.answers, self.truth))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether it was, on the test set, [N]; of classes."""
        return self.answers.argmax(axis=1) == self.truth.labels

    @property
    def floor(self) -> float:
        """How good knowing nothing is: the best answer that is the same to every question."""
        labels, asks = self.truth.labels, self.contract.asks
        if self.tells_classes:
            return float(np.bincount(labels).max() / len(labels))
        if asks.kind is TaskKind.MULTI_LABEL:
            same = labels.mean(axis=0) - 0.5
        elif asks.quantiles:
            same = np.quantile(labels, asks.quantiles, axis=0).T.ravel()
        elif self.scoring.metric == "rmse":
            same = labels.mean(axis=0)
        else:
            same = np.median(labels, axis=0)
        answers = np.broadcast_to(same, (len(labels), len(same)))
        return self.scoring.value(self.scoring.marks(answers, self.truth))


def open_world(root: Path, artefact: str, role: str) -> World:
    """Read what a run, or a version of the registry, says of one of its artefacts.

    Args:
        root: folder of the run, or of the version.
        artefact: its file's name, such as `model.int8.onnx`.
        role: its name among the answers to the test set, such as `student_int8`.

    Raises:
        UserError: something is missing or damaged.
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
    scoring = scoring_of(contract.asks, _metric(known.get("metric")))
    is_class = contract.asks.kind is TaskKind.CLASSIFICATION
    labels = answers["label"].astype(np.int64 if is_class else np.float64)
    _check_fit(contract, answers[role], labels, root / TEST_LOGITS)
    return World(
        artefact=path,
        artefact_sha256=own,
        contract=contract,
        figures=figures,
        scoring=scoring,
        answers=answers[role],
        truth=Truth(labels=labels),
        teacher=answers.get("teacher"),
        baseline=_baseline(root / BASELINE_SCORES, scoring.metric),
        embeddings=_embeddings(root / EMBEDDINGS, artefact),
    )


def _metric(decided: str | None) -> str | None:
    """What production is measured by: MASE divides by what no log holds, so MAE stands for it."""
    return "mae" if decided == "mase" else decided


def _check_fit(contract: Contract, answers: NDArray, labels: NDArray, path: Path) -> None:
    """Refuse answers, or labels, of another task than the contract's."""
    asks = contract.asks
    wanted = [len(labels), len(asks.answers)]
    is_class = asks.kind is TaskKind.CLASSIFICATION
    of_labels = wanted[:1] if is_class else [len(labels), len(asks.outputs)]
    if list(answers.shape) == wanted and list(labels.shape) == of_labels and len(labels):
        return
    raise UserError(
        f"Expected answers {wanted} and labels {of_labels} in {path}, as the contract says, but "
        f"they are {list(answers.shape)} and {list(labels.shape)}: they are of another model. Run "
        "`pipeline` with this `run_dir=` again."
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


def _baseline(path: Path, metric: str) -> tuple[str, float] | None:
    if not path.is_file():
        return None
    scores = read_json(path)
    best = scores["best"]
    found = scores["baselines"][best].get(metric)
    return None if found is None else (best, float(found["estimate"]))
