"""Writing a soft-label store, block by block: a killed build goes on and ends with the same bytes.

Finished blocks lie under `.parts`, are joined to one file a view, and the manifest comes last.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from distill.errors import UserError
from distill.files import atomic_path, read_json, to_json, write_json
from distill.run_folder import versions
from distill.training.soft_labels import (
    FORMAT,
    INDICES,
    MANIFEST,
    Arrays,
    Recipe,
    array_names,
    check_bytes,
    check_recipe,
    file_hashes,
    file_names,
    read_manifest,
    shard_name,
)

BLOCK = 1024  # samples that a killed build may have to label again
PARTS = ".parts"


class StoreWriter:
    """Writes a store block by block; what is there already is kept, so a killed build goes on.

    Any number of processes may write blocks of one folder; one of them calls `finish`.

    Args:
        folder: where the store will lie.
        recipe: what the labels are made from.
        indices: the samples' stable numbers, [N].
        num_views: V, at least; views that are there beyond them stay.
        replace: whether labels made from something else may go; else they are refused.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        indices: NDArray[np.int64],
        num_views: int,
        *,
        replace: bool = False,
    ) -> None:
        if num_views < 1:
            raise UserError(f"Expected `soft_labels.num_views` of at least 1 but got {num_views}.")
        self.folder, self.recipe, self.indices = folder, recipe, indices
        self.num_views, self.parts, self._replace = num_views, folder / PARTS, replace
        self._names = array_names(recipe.top_k)

    def is_finished(self) -> bool:
        """Tell whether a store of this recipe lies there with all its views, without changing it.

        Whether its bytes are those that were written is for `SoftLabelStore` to say.
        """
        finished = self.folder / MANIFEST
        if not finished.is_file():
            return False
        manifest = read_manifest(self.folder)
        return (
            manifest["recipe"] == to_json(self.recipe)
            and manifest["num_views"] >= self.num_views
            and all((self.folder / name).is_file() for name in manifest["files"])
        )

    def prepare(self) -> None:
        """Make the folder ready: keep what was made of this recipe.

        Raises:
            UserError: labels of another recipe lie there and may not be replaced, or a file is
                damaged.
        """
        made, finished = self.parts / "recipe.json", self.folder / MANIFEST
        if finished.is_file():
            manifest = read_manifest(self.folder)
            try:
                check_recipe(self.folder, manifest, self.recipe)
            except UserError:
                if not self._replace:
                    raise
                finished.unlink()
            else:
                check_bytes(self.folder, manifest["files"])
                self.num_views = max(self.num_views, manifest["num_views"])  # those stay
        same = made.is_file() and read_json(made) == to_json(self.recipe)
        if not finished.is_file() and not same:
            if not self._replace and (made.is_file() or any(self.folder.glob("view_*.npy"))):
                raise UserError(
                    f"Expected {self.folder} to be free, or to hold the beginning of this very "
                    "store, but an unfinished one of another teacher, data or augmentation lies "
                    "there. Delete the folder, or name another `soft_labels.path=`."
                )
            for path in self.folder.glob("view_*.npy"):
                path.unlink()
            shutil.rmtree(self.parts, ignore_errors=True)
        write_json(made, self.recipe)

    def missing_blocks(self) -> list[tuple[int, int]]:
        """List the (view, block) that are still to be labelled."""
        return [
            (view, block)
            for view in range(self.num_views)
            if not self._has_view(view)
            for block in range(self.num_blocks)
            if not all(self._part(view, block, name).is_file() for name in self._names)
        ]

    @property
    def num_blocks(self) -> int:
        """Blocks in a view."""
        return -(-len(self.indices) // BLOCK)

    def rows(self, block: int) -> NDArray[np.int64]:
        """Rows of a block."""
        return np.arange(block * BLOCK, min((block + 1) * BLOCK, len(self.indices)))

    def write(self, view: int, block: int, logits: NDArray[np.floating]) -> None:
        """Write the logits of one block, [rows, C], whole or not at all.

        Raises:
            UserError: a logit is no number, or too large for float16.
        """
        expected = (len(self.rows(block)), len(self.recipe.classes))
        if logits.shape != expected:
            raise UserError(
                f"Expected the teacher to answer a block with logits of shape {expected} but got "
                f"{logits.shape}. Its classes must be the data's: {len(self.recipe.classes)}."
            )
        if not (np.abs(logits) <= np.finfo(np.float16).max).all():
            raise UserError(
                f"Expected finite logits below 65,504 of the teacher but view {view}, block "
                f"{block} holds {logits[~(np.abs(logits) <= np.finfo(np.float16).max)][0]}. Look "
                "for NaN in the data or in the teacher's weights."
            )
        for name, array in encode(logits, self.recipe.top_k).items():
            _save(self._part(view, block, name), array)

    def finish(self) -> None:
        """Join the blocks of every view, then vouch for the whole with the manifest."""
        for view in range(self.num_views):
            if not self._has_view(view):
                for name in self._names:
                    _save(self._shard(view, name), self._joined(view, name))
        _save(self.folder / INDICES, self.indices)
        names = file_names(self.num_views, self.recipe.top_k)
        manifest = {
            "format": FORMAT,
            "recipe": self.recipe,
            "num_views": self.num_views,
            "files": file_hashes(self.folder, names),
            "versions": versions(),
        }
        write_json(self.folder / MANIFEST, manifest)
        shutil.rmtree(self.parts)

    def _has_view(self, view: int) -> bool:
        return all(self._shard(view, name).is_file() for name in self._names)

    def _joined(self, view: int, name: str) -> NDArray[Any]:
        parts = [self._part(view, block, name) for block in range(self.num_blocks)]
        return np.concatenate([np.load(part, allow_pickle=False) for part in parts])

    def _shard(self, view: int, name: str) -> Path:
        return self.folder / shard_name(view, name)

    def _part(self, view: int, block: int, name: str) -> Path:
        return self.parts / f"view_{view:03d}.{block:06d}.{name}.npy"


def encode(logits: NDArray[np.floating], top_k: int | None) -> Arrays:
    """Turn logits [N, C] into what is stored of them."""
    if top_k is None:
        return {"logits": logits.astype(np.float16)}
    order = np.argsort(-logits, axis=1, kind="stable")
    ids, others = order[:, :top_k], order[:, top_k:]
    rest = np.asarray(logsumexp(np.take_along_axis(logits, others, axis=1), axis=1))
    width = np.uint16 if logits.shape[1] <= 2**16 else np.uint32
    kept = np.take_along_axis(logits, ids, axis=1).astype(np.float16)
    return {"logits": kept, "ids": ids.astype(width), "rest": rest.astype(np.float32)}


def _save(path: Path, array: NDArray[Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
