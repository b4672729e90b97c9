"""Run folders: one process writes them, and each of their stages runs once.

Knows nothing of what a stage does: what it has read and left is compared by hashes, never by time.
"""

import functools
import importlib.metadata
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from distill import __version__
from distill.files import (
    atomic_path,
    exclusive,
    inside,
    read_json,
    remove_unfinished,
    sha256,
    sha256_json,
    to_json,
    write_json,
)

version = functools.cache(importlib.metadata.version)  # each reads and parses a file

# What one room leaves for others: answers to the test set, and the figures of the baselines.
TEST_LOGITS = "predictions/test_logits.npz"  # of the models of a run, by role
BASELINE_ANSWERS = "predictions/baseline.npz"  # of the baselines, and of the model in production
BASELINE_SCORES = "baseline.json"


@contextmanager
def run_folder_lock(run_dir: Path) -> Iterator[None]:
    """Hold a run folder for this process.

    Also removes what a killed writer left half-written.

    Raises:
        UserError: another process holds the folder; the message names it.
    """
    fresh = not run_dir.exists() or not any(run_dir.iterdir())
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / ".lock"
    wanted = f"write the run folder {run_dir}"
    otherwise = "Wait for it to end, or choose another `run_dir=`."
    with exclusive(path, wanted=wanted, otherwise=otherwise):
        remove_unfinished(run_dir)
        try:
            yield
        finally:
            if fresh and [item.name for item in run_dir.iterdir()] == [".lock"]:
                path.unlink()
                run_dir.rmdir()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a run: reads files and values, writes files and a result, and runs once.

    Attributes:
        name: also the result's file name, `<name>.json`.
        values: the settings it depends on; a change runs it again.
        inputs: the files it depends on, compared by sha256.
        outputs: the files it promises, relative to the run folder.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()
    outputs: tuple[str, ...] = ()

    def finished(self, run_dir: Path) -> dict[str, Any] | None:
        """Return the stage's result if it is there and nothing that it depends on has changed."""
        path = self._manifest(run_dir)
        if not path.exists():
            return None
        made = read_json(path)
        whole = made["outputs"] == _hashes(self._files(run_dir), run_dir)
        if not whole or made["needs"] != self._needs(run_dir):
            return None
        return read_json(run_dir / f"{self.name}.json")

    def run(self, run_dir: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run the stage, whatever is there, and leave its result and what vouches for it."""
        needs = self._needs(run_dir)
        self._manifest(run_dir).unlink(missing_ok=True)  # it vouched for what is replaced now
        start = time.monotonic()
        result = to_json(compute())
        write_json(run_dir / f"{self.name}.json", result)
        made = {"needs": needs, "outputs": _hashes(self._files(run_dir), run_dir)}
        write_json(self._manifest(run_dir), made | {"seconds": time.monotonic() - start})
        return result

    def _manifest(self, run_dir: Path) -> Path:
        return run_dir / "manifests" / f"{self.name}.json"

    def _files(self, run_dir: Path) -> list[Path]:
        return [run_dir / name for name in self.outputs] + [run_dir / f"{self.name}.json"]

    def _needs(self, run_dir: Path) -> dict[str, Any]:
        return {
            "values": sha256_json(self.values),
            "inputs": {_name(path, run_dir): sha256(path) for path in self.inputs},
            "versions": versions(),
        }


def promised(run_dir: Path) -> dict[str, str]:
    """Path to sha256 of all that the stages of a run folder left, by their manifests."""
    found: dict[str, str] = {}
    for manifest in sorted((run_dir / "manifests").rglob("*.json")):
        found |= read_json(manifest)["outputs"]
    return found


def adopt_stage(name: str, source: Path, target: Path) -> None:
    """Copy a finished stage into another run folder, where it counts as done, its time as none.

    Args:
        name: of the stage.
        source: the run folder that it was finished in.
        target: the other one.

    Raises:
        UserError: the stage is said to have left a file outside its folder.
    """
    manifest = f"manifests/{name}.json"
    made = read_json(source / manifest)
    for file in made["outputs"]:
        if not Path(file).is_absolute() and inside(source, file).is_file():
            with atomic_path(inside(target, file)) as temporary:
                shutil.copyfile(source / file, temporary)
    write_json(target / manifest, made | {"seconds": 0.0})


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version(), "distill": __version__}
    for name in (
        "torch",
        "torchvision",
        "lightning",
        "onnx",
        "onnxruntime",
        "openvino",
        "numpy",
        "scikit-learn",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _name(path: Path, run_dir: Path) -> str:
    return str(path.relative_to(run_dir) if path.is_relative_to(run_dir) else path)


def _hashes(paths: list[Path], run_dir: Path) -> dict[str, str | None]:
    return {_name(path, run_dir): sha256(path) if path.is_file() else None for path in paths}
