"""A dataset version: labelled rows of a log in a folder that is whole, or not there.

Its manifest has the hash of every file and of them together, the version before, and what was
decided by whom. Rows of the `audit` judge and are never trained on; `active` ones are trained on
and never judge; of `unlabelled` ones nobody has said anything, and whatever teacher is trained next
may. Knows arrays and files; knows nothing of a log.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UserError
from distill.files import read_json, sha256, sha256_json, whole_folder, write_json

VERSION = 1
MANIFEST, ROWS, INPUTS = "manifest.json", "rows.npz", "inputs.npy"
_PREFIX = "dataset_"
NO_LABEL = -1
AUDIT, ACTIVE, UNLABELLED = SPLITS = ("audit", "active", "unlabelled")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a log; each has a label, the teacher's answer, or neither.

    Attributes:
        ids: of the predictions, [N].
        times: UTC, in seconds since 1970, [N].
        inputs: [N, ...], or records, [N].
        labels: classes, [N]; -1 where no person speaks.
        teacher_logits: [N, C]; NaN where it says nothing.
        sources: human, delayed_truth, teacher or nobody, [N].
        weights: in training, [N].
        inclusion_probabilities: with which a row of the audit was drawn, [N]; NaN of chosen ones.
        splits: audit, active or unlabelled, [N].
    """

    ids: NDArray[np.str_]
    times: NDArray[np.float64]
    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    teacher_logits: NDArray[np.float32]
    sources: NDArray[np.str_]
    weights: NDArray[np.float64]
    inclusion_probabilities: NDArray[np.float64]
    splits: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, split: str) -> "Rows":
        """The rows of one split: `audit` to evaluate, the others to train."""
        return self.take(self.splits == split)

    def take(self, own: NDArray[np.bool_]) -> "Rows":
        """Select some rows, [N]."""
        return Rows(**{name: getattr(self, name)[own] for name in self.__dataclass_fields__})


def write_version(folder: Path, rows: Rows, facts: Mapping[str, Any]) -> tuple[Path, bool]:
    """Write a version beside those before it; the same rows again are no new one.

    Args:
        folder: of all versions.
        rows: one at least.
        facts: for the manifest: model, classes, teacher, thresholds.

    Returns:
        The version's folder, and whether it is new.

    Raises:
        UserError: the folder cannot be written, or the version before is damaged.
    """
    while True:
        known = versions(folder)
        parent = read_json(known[-1] / MANIFEST) if known else None
        number = _number(known[-1]) + 1 if known else 1
        path = folder / f"{_PREFIX}{number:04d}"
        content = content_sha256(rows)
        if parent is not None and parent["content_sha256"] == content:
            return known[-1], False
        with whole_folder(path) as new:
            if new is None:  # somebody else made that version meanwhile
                continue
            _fill(new, rows)
            files = {p.name: sha256(p) for p in sorted(new.iterdir())}
            manifest = {
                "schema_version": VERSION,
                "version": number,
                "parent": None if parent is None else {k: parent[k] for k in ("version", "sha256")},
                "sha256": sha256_json(files),
                "content_sha256": content,
                "files": files,
                "counts": counts(rows),
                **facts,
            }
            write_json(new / MANIFEST, manifest)
        return path, True


def read_version(path: Path) -> tuple[Rows, dict[str, Any]]:
    """Read a version, and hold it against its manifest.

    Raises:
        UserError: it is missing, or a file was changed.
    """
    manifest = read_json(path / MANIFEST)
    files = manifest.get("files", {}) if isinstance(manifest, dict) else {}
    for name, expected in files.items():
        if not (path / name).is_file() or sha256(path / name) != expected:
            raise UserError(
                f"Expected {path / name} as the manifest has it but it was changed or is missing. "
                "Collect the version again."
            )
    if set(files) != {ROWS, INPUTS} or sha256_json(files) != manifest.get("sha256"):
        raise UserError(
            f"Expected a dataset version of {ROWS} and {INPUTS} in {path} but the manifest has "
            f"{', '.join(files) or 'nothing'}. Name a folder that `feedback collect` made."
        )
    inputs = np.load(path / INPUTS, allow_pickle=False)
    with np.load(path / ROWS, allow_pickle=False) as stored:
        return Rows(inputs=inputs, **{name: stored[name] for name in stored.files}), manifest


def versions(folder: Path) -> list[Path]:
    """Folders of all versions, the first one first."""
    found = [p for p in folder.glob(f"{_PREFIX}*") if p.is_dir() and _number(p) > 0]
    return sorted(found, key=_number)


def newest(folder: Path) -> Path:
    """Find the version that a folder is, or the newest one in it.

    Raises:
        UserError: it is none, and has none.
    """
    if (folder / MANIFEST).is_file():
        return folder
    known = versions(folder)
    if not known:
        raise UserError(
            f"Expected a dataset version, or a folder of them, at {folder} but found none. Make "
            "one with `feedback collect`."
        )
    return known[-1]


def counts(rows: Rows) -> dict[str, dict[str, int]]:
    """How many rows each split has, by source."""
    found = Counter(zip(rows.splits.tolist(), rows.sources.tolist(), strict=True))
    return {
        split: {source: n for (own, source), n in sorted(found.items()) if own == split}
        for split in SPLITS
    }


def content_sha256(rows: Rows) -> str:
    """Hash what is said of the rows, whatever the files look like; of `unlabelled` ones nothing is.

    Those are others whenever traffic has come in, which makes no new version; only their number
    counts.
    """
    said = rows.splits != UNLABELLED
    columns = {n: getattr(rows, n)[said] for n in rows.__dataclass_fields__ if n != "inputs"}
    columns["num_unlabelled"] = int((~said).sum())
    return sha256_json(columns)


def _fill(folder: Path, rows: Rows) -> None:
    np.save(folder / INPUTS, rows.inputs, allow_pickle=False)
    columns = {name: getattr(rows, name) for name in rows.__dataclass_fields__ if name != "inputs"}
    np.savez_compressed(folder / ROWS, allow_pickle=False, **columns)


def _number(path: Path) -> int:
    digits = path.name.removeprefix(_PREFIX)
    return int(digits) if digits.isdecimal() else 0
