"""The soft-label store: a teacher's logits for every sample and view, on disk, vouched for.

A folder of memory-mapped arrays under a manifest. Knows arrays and files; knows no model, no
trainer and no configuration (`soft_label_writer` writes a store, `labelling` fills it,
`teachers.cached` answers from it).

    manifest.json           what the labels were made from, and the sha256 of every file
    indices.npy             [N] int64, the samples' stable numbers
    view_000.logits.npy     [N, C] float16, or the K largest where there are too many classes:
    view_000.ids.npy        [N, K] uint16 or uint32, the classes of those K
    view_000.rest.npy       [N] float32, log-sum-exp of all other logits
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from distill.errors import UserError
from distill.files import read_json, sha256, to_json
from distill.training.lookup import Lookup

FORMAT = 1
ALL_CLASSES_UP_TO = 1000
DEFAULT_TOP_K = 100
MANIFEST, INDICES = "manifest.json", "indices.npy"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a store's labels depend on; two stores of one recipe hold the same bytes.

    Attributes:
        teacher: fingerprint of the teacher.
        data: fingerprint of the data set.
        classes: names in the order of the logits.
        views: configuration of the views, and of the mixing of samples.
        views_version: of the code that makes them.
        num_samples: N.
        top_k: how many logits are kept of each; None keeps all.
        precision: in which the teacher computed, `float32` or `bfloat16`.
    """

    teacher: str
    data: str
    classes: tuple[str, ...]
    views: Mapping[str, Any]
    views_version: int
    num_samples: int
    top_k: int | None
    precision: str

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise UserError(
                "Expected `soft_labels.precision` to be auto, float32 or bfloat16 but got "
                f"{self.precision}."
            )
        if self.top_k is not None and not 1 <= self.top_k < len(self.classes):
            raise UserError(
                f"Expected `soft_labels.top_k` from 1 to {len(self.classes) - 1} (there are "
                f"{len(self.classes)} classes) but got {self.top_k}. Set it to null to keep all."
            )


_CHANGED = {
    "teacher": "another teacher, or other weights",
    "data": "other data: images, labels, class names or the split have changed",
    "classes": "other classes, or the same in another order",
    "views": "other augmentation (`views` or `mixing`)",
    "views_version": "another version of the code that makes the views",
    "num_samples": "another number of samples",
    "top_k": "another `soft_labels.top_k`",
    "precision": "another precision of the teacher",
}


def default_top_k(num_classes: int) -> int | None:
    """Keep all logits of up to 1,000 classes, the 100 largest of more."""
    return DEFAULT_TOP_K if num_classes > ALL_CLASSES_UP_TO else None


class SoftLabelStore:
    """A finished store, opened for reading.

    Every file is hashed: a flipped byte is found.

    Args:
        folder: where it lies.
        recipe: what the labels must have been made from; None takes the store's word.

    Raises:
        UserError: there is none, it was made from something else, or a file is missing or damaged.
    """

    def __init__(self, folder: Path, recipe: Recipe | None = None) -> None:
        self.folder = folder
        if not (folder / MANIFEST).is_file():
            raise UserError(
                f"Expected a finished soft-label store in {folder} but it has no {MANIFEST}. "
                "Run `soft_labels` to make it, or to finish it."
            )
        manifest = read_manifest(folder)
        self.num_views, self.files = manifest["num_views"], manifest["files"]
        made = manifest["recipe"]
        self.classes, self.top_k = tuple(made["classes"]), made["top_k"]
        self.teacher, self.precision = made["teacher"], made["precision"]
        if recipe is not None:
            check_recipe(folder, manifest, recipe)
        missing = [name for name in self.files if not (folder / name).is_file()]
        if missing:
            raise UserError(
                f"Expected the soft-label store {folder} to be whole but {missing[0]} is missing. "
                "Run `soft_labels` again: it makes what is missing."
            )
        check_bytes(folder, self.files)
        self.indices: NDArray[np.int64] = np.load(folder / INDICES, allow_pickle=False)

    def logits(self, view: int, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Look up the teacher's logits for samples shown in a view, [B, C] float32.

        Where only the K largest are kept, the others share the rest of the probability evenly:
        the softmax at temperature 1 has the exact mass on the K and on the rest.

        Raises:
            UserError: a sample is not in the store.
        """
        rows = self._rows_of(indices)
        shard = self._shards[view % self.num_views]
        kept = shard["logits"][rows].astype(np.float32)
        if self.top_k is None:
            return kept
        others = len(self.classes) - self.top_k
        dense = np.repeat(shard["rest"][rows][:, None] - np.log(others), len(self.classes), axis=1)
        np.put_along_axis(dense, shard["ids"][rows].astype(np.int64), kept, axis=1)
        return dense.astype(np.float32)

    def __getstate__(self) -> dict[str, Any]:
        """Travel without the mapped arrays: whoever unpickles it maps the files anew."""
        return {name: value for name, value in self.__dict__.items() if name != "_shards"}

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files but the manifest."""
        return sum((self.folder / name).stat().st_size for name in self.files)

    @cached_property
    def _shards(self) -> list[Arrays]:
        names = [name for name in self.files if name != INDICES]
        shards: list[Arrays] = [{} for _ in range(self.num_views)]
        for name in names:
            view, array, _ = name.split(".")
            mapped = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
            shards[int(view.removeprefix("view_"))][array] = mapped
        return shards

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self.indices)

    def _rows_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = self._lookup(indices)
        if (rows < 0).any():
            missing = indices[rows < 0]
            raise UserError(
                f"Expected soft labels of every sample in {self.folder} but {len(missing)} of "
                f"{len(indices)} are missing, such as index {missing[0]}. Run `soft_labels` again."
            )
        return rows


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what vouches for a store.

    Raises:
        UserError: it is damaged, or of another version of this format.
    """
    manifest = read_json(folder / MANIFEST)
    try:
        if manifest["format"] != FORMAT:
            raise UserError(
                f"Expected format {FORMAT} of the soft-label store {folder} but found "
                f"{manifest['format']}. Delete the folder and run `soft_labels` again."
            )
        recipe = manifest["recipe"]
        Recipe(**recipe)
        if set(manifest["files"]) != set(file_names(manifest["num_views"], recipe["top_k"])):
            raise KeyError("files")
    except (KeyError, TypeError) as error:
        raise UserError(
            f"Expected {folder / MANIFEST} to vouch for a store but it is damaged ({error}). "
            "Delete the folder and run `soft_labels` again."
        ) from error
    return manifest


def check_recipe(folder: Path, manifest: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse a store that was made from something else.

    Raises:
        UserError: says what differs.
    """
    wanted, found = to_json(dataclasses.asdict(recipe)), manifest["recipe"]
    changed = [name for name in _CHANGED if wanted[name] != found.get(name)]
    if not changed:
        return
    first, parts = changed[0], [_CHANGED[name] for name in changed]
    raise UserError(
        f"Expected the soft labels in {folder} to be of this teacher, data and augmentation but "
        f"they were made from {' and '.join(parts)} "
        f"(`{first}`: expected {_short(wanted[first])}, found {_short(found.get(first))}). "
        "Run `soft_labels` into another `soft_labels.path=`, delete the folder, or restore what "
        "has changed."
    )


def stored_precision(folder: Path, recipe: Recipe) -> str | None:
    """Tell in which precision a store's teacher computed; None without a store of this recipe.

    Raises:
        UserError: the manifest is damaged.
    """
    if not (folder / MANIFEST).is_file():
        return None
    made, wanted = read_manifest(folder)["recipe"], to_json(recipe)
    same = all(made.get(name) == wanted[name] for name in wanted if name != "precision")
    return made.get("precision") if same else None


def check_bytes(folder: Path, files: Mapping[str, str]) -> None:
    """Refuse a store of which a file that is there has other bytes than were written.

    Raises:
        UserError: names the files.
    """
    there = [name for name in files if (folder / name).is_file()]
    hashes = file_hashes(folder, there)
    damaged = [name for name in there if hashes[name] != files[name]]
    others = " and the others" if len(damaged) > 1 else ""
    if damaged:
        raise UserError(
            f"Expected the soft-label store {folder} to hold the bytes that were written but "
            f"{', '.join(damaged[:3])} changed. Delete {folder / damaged[0]}{others} and run "
            "`soft_labels` again: the rest is kept."
        )


def file_names(num_views: int, top_k: int | None) -> list[str]:
    """List the files of a store that its manifest vouches for."""
    arrays = array_names(top_k)
    return [INDICES, *(shard_name(view, name) for view in range(num_views) for name in arrays)]


def array_names(top_k: int | None) -> tuple[str, ...]:
    """Name the arrays of a view."""
    return ("logits",) if top_k is None else ("logits", "ids", "rest")


def shard_name(view: int, array: str) -> str:
    """Name the file of one array of a view."""
    return f"view_{view:03d}.{array}.npy"


def sample_records(
    num_samples: int, num_views: int, count: int, seed: int = 0
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Draw `count` random (view, rows) records, grouped by view."""
    rng = np.random.default_rng(seed)
    views = rng.integers(0, num_views, count)
    rows = rng.integers(0, num_samples, count)
    for view in np.unique(views):
        yield int(view), rows[views == view]


def replay_error(
    stored: Sequence[NDArray[np.float32]],
    recomputed: Sequence[NDArray[np.float32]],
    *,
    of_classes: bool = True,
) -> float:
    """Root mean square difference of what was stored over the spread of what is recomputed.

    Args:
        stored: answers, [N, C] together.
        recomputed: likewise.
        of_classes: whether log-probabilities are compared, not the numbers themselves.
    """
    alike = _log_probabilities if of_classes else np.asarray
    first, second = (alike(np.concatenate(arrays)) for arrays in (stored, recomputed))
    spread = float(np.std(second)) or 1.0
    return float(np.sqrt(np.mean((first - second) ** 2))) / spread


def _log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    return log_softmax(wide, axis=1)


def file_hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Hash some files of a folder, in parallel."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets go of the interpreter
        return dict(zip(names, pool.map(sha256, [folder / n for n in names]), strict=True))


def _short(value: Any) -> str:
    text = str(value)
    if re.fullmatch("[0-9a-f]{64}", text):
        return text[:12]
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
