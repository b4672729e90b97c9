"""What a version holds: collected from a run folder, and proven whole wherever it lies.

A version is its files; the hash of their hashes is its identity. Knows the layout of a run folder;
knows nothing of where versions are kept.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.contract import (
    CONTRACT_FILE,
    GOLDEN_FILE,
    Contract,
    load_contract,
    replay_golden,
    required_contract,
)
from distill.errors import UserError
from distill.files import inside, read_json, sha256, sha256_json, write_json
from distill.production.reference import EMBEDDINGS
from distill.run_folder import BASELINE_ANSWERS, BASELINE_SCORES, TEST_LOGITS, promised
from distill.runtime import OnnxModel
from distill.statistics.scoring import Scoring, Truth, scoring_of

VERDICT, MANIFEST = "verdict.json", "version.json"
STUDENT_WEIGHTS, TEACHER_WEIGHTS = "train/student/best.pt", "train/teacher/best.pt"
REQUIRED = (
    VERDICT,
    "manifests/verdict.json",
    f"export/{CONTRACT_FILE}",
    f"export/{GOLDEN_FILE}",
    STUDENT_WEIGHTS,
    "reference.json",
    "evaluate.json",
    BASELINE_SCORES,
    TEST_LOGITS,
    BASELINE_ANSWERS,
    "report.html",
    "report.md",
    "config.yaml",
)
WHERE_IT_EXISTS = ("export/teacher.onnx", TEACHER_WEIGHTS, EMBEDDINGS)  # where there are any


@dataclass(frozen=True, kw_only=True)
class Package:
    """The files of a version.

    Attributes:
        root: the run folder, or a folder that holds these files alone.
        files: path below `root` to sha256.
    """

    root: Path
    files: Mapping[str, str]

    def __post_init__(self) -> None:
        """Refuse files elsewhere: they are read, copied and hashed."""
        for name in self.files:
            inside(self.root, name)

    @property
    def content(self) -> str:
        """Identity: two packages with the same files are the same version."""
        return sha256_json(self.files)

    @cached_property
    def verdict(self) -> dict[str, Any]:
        """What the pipeline decided."""
        return read_json(self.root / VERDICT)

    @cached_property
    def contract(self) -> Contract:
        """What the artefacts promise."""
        return load_contract(self.root / "export")

    @cached_property
    def artefact(self) -> str:
        """File name of what ships: what the verdict chose, else what may yet hold the budget."""
        if self.verdict["chosen"]["artefact"]:
            return self.verdict["chosen"]["artefact"]
        failed = {c["artefact"] for c in self.verdict["checks"] if c["outcome"] == "fail"}
        judged = list(self.verdict["artefacts"])
        return next((name for name in judged if name not in failed), judged[0])

    @property
    def artefact_path(self) -> Path:
        """Where what ships lies."""
        return inside(self.root / "export", self.artefact)

    @property
    def artefact_sha256(self) -> str:
        """Hash of what ships."""
        return self.files[f"export/{self.artefact}"]

    @property
    def test_fingerprint(self) -> str:
        """Hash of the test set that the answers are for."""
        return self.verdict["test_fingerprint"]

    @cached_property
    def scoring(self) -> Scoring:
        """The figures of its task, by the metric of its verdict."""
        return scoring_of(self.contract.asks, self.verdict.get("metric"))

    @cached_property
    def truth(self) -> Truth:
        """What the answers to its test set are held against."""
        with np.load(self.root / TEST_LOGITS, allow_pickle=False) as arrays:
            known = {"blocks": "block", "naive_error": "naive_error"}
            further = {ours: arrays[name] for ours, name in known.items() if name in arrays}
            return Truth(labels=arrays["label"], **further)

    def marks(self, scoring: Scoring | None = None) -> NDArray[Any]:
        """Mark what ships says of each test sample, by its own scoring or another."""
        models = self.verdict["models"]
        role = next(r for r, m in models.items() if m.get("artefact") == self.artefact)
        with np.load(self.root / TEST_LOGITS, allow_pickle=False) as arrays:
            return (scoring or self.scoring).marks(arrays[role], self.truth)

    def marks_of_incumbent(self, artefact_sha256: str) -> NDArray[Any] | None:
        """Mark what another artefact says of this test set's samples.

        None where the run did not ask that very artefact (`against=`).
        """
        incumbent = read_json(self.root / BASELINE_SCORES).get("incumbent") or {}
        if incumbent.get("sha256") != artefact_sha256:
            return None
        with np.load(self.root / BASELINE_ANSWERS, allow_pickle=False) as answers:
            return self.scoring.marks(answers["incumbent"], self.truth)

    def prove(self) -> None:
        """Hold every file against its hash, and replay the golden samples in what ships.

        Raises:
            UserError: a file is missing or changed, or the artefact answers otherwise.
        """
        for name, expected in self.files.items():
            path = self.root / name
            if not path.is_file() or sha256(path) != expected:
                found = "it was changed" if path.is_file() else "it is missing"
                raise UserError(
                    f"Expected {path} as it was registered but {found}: the version is not whole "
                    "and is not used. Register its run again."
                )
        required_contract(self.artefact_path, OnnxModel(self.artefact_path).metadata)
        replay_golden(self.root / "export", self.artefact)

    def copy_to(self, folder: Path) -> "Package":
        """Copy the files, alone, with a list of them, into an empty folder."""
        for name in self.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / name, folder / name)
        write_json(folder / MANIFEST, {"schema_version": 1, "files": self.files})
        return Package(root=folder, files=self.files)


def read_package(folder: Path) -> Package:
    """Read what `copy_to` left.

    Raises:
        UserError: the list of files is missing or is none, or names some elsewhere.
    """
    return Package(root=folder, files=read_json(folder / MANIFEST)["files"])


def collect(run_dir: Path) -> Package:
    """Gather a version from a run folder, each file as the stage that made it left it.

    Raises:
        UserError: there is no run or no verdict, the verdict was edited or is of another artefact,
            or something was changed after it.
    """
    if not run_dir.is_dir():
        raise UserError(f"Expected a run folder at {run_dir} but there is none. See `run_dir=`.")
    made = promised(run_dir)
    if not (run_dir / VERDICT).is_file() or VERDICT not in made:
        raise UserError(
            f"Expected a verdict in {run_dir} but the run has none. Finish it with `pipeline "
            f"run_dir={run_dir}`."
        )
    if sha256(run_dir / VERDICT) != made[VERDICT]:
        raise UserError(
            f"Expected {run_dir / VERDICT} as the pipeline wrote it but it was edited. Delete it "
            f"and run `pipeline run_dir={run_dir}`."
        )
    verdict = read_json(run_dir / VERDICT)
    if "artefacts" not in verdict or not (run_dir / "reference.json").is_file():
        raise UserError(
            f"Expected {run_dir / VERDICT} to name what it judged but it is of an older distill. "
            f"Run `pipeline run_dir={run_dir}` again: what has not changed is kept."
        )
    judged = {f"export/{name}": expected for name, expected in verdict["artefacts"].items()}
    optional = [name for name in WHERE_IT_EXISTS if (run_dir / name).is_file()]
    repaired = _repaired_weights(run_dir)
    files: dict[str, str] = {}
    for name in sorted({*judged, *REQUIRED, *optional, *repaired}):
        path = inside(run_dir, name)
        if not path.is_file():
            raise UserError(
                f"Expected {path} but it is missing. Run `pipeline run_dir={run_dir}` again."
            )
        files[name] = sha256(path)
        if name in judged:
            _check_judged(path, files[name], judged[name], made.get(name))
        elif files[name] != made.get(name, files[name]):
            raise UserError(
                f"Expected {path} as the run left it but it was changed afterwards. Run `pipeline "
                f"run_dir={run_dir}` again."
            )
    _check_fresh(run_dir)
    return Package(root=run_dir, files=files)


def _check_judged(path: Path, found: str, judged: str, exported: str | None) -> None:
    if found == judged:
        return
    if found == exported:
        raise UserError(
            f"Expected the verdict beside {path.parent} to be of {path.name} ({found[:12]}) but it "
            f"judged another artefact ({judged[:12]}). Run `pipeline` in this folder again."
        )
    raise UserError(
        f"Expected {path} as it was judged ({judged[:12]}) but it was changed after its verdict "
        f"({found[:12]}). Run `pipeline` in this folder again."
    )


def _check_fresh(run_dir: Path) -> None:
    """Refuse a verdict that is older than what it was drawn from."""
    needed = read_json(run_dir / "manifests" / VERDICT)["needs"]["inputs"]
    for name, expected in needed.items():
        path = run_dir / name
        if not path.is_file() or sha256(path) != expected:
            raise UserError(
                f"Expected the verdict in {run_dir} to be drawn from {name} as it is now but that "
                f"was made again, or changed. Run `pipeline run_dir={run_dir}` again."
            )


def _repaired_weights(run_dir: Path) -> list[str]:
    """Name the weights that int8 was made of, where those are not the student's own."""
    if not (run_dir / "export" / CONTRACT_FILE).is_file():
        return []
    source = load_contract(run_dir / "export").provenance["quantized_from"]
    name = source["checkpoint"] if source else ""
    own = bool(name) and not Path(name).is_absolute() and inside(run_dir, name).is_file()
    return [name] if own else []
