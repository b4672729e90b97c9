"""Files that are whole or absent, run folders that one process writes, stages that run once.

Knows nothing of what the files hold: no training, no models, no configuration.
"""

import dataclasses
import errno
import fcntl
import functools
import hashlib
import io
import json
import os
import platform
import shutil
import socket
import time
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill import __version__
from distill.errors import UsageError, UserError, nearest

_TEMPORARY = ".tmp-"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` once the block has written it.

    The file's bytes reach the disk before its name does, so a kill or a power cut leaves the old
    file, the new one, or none, never half of one. The temporary file keeps the suffix because some
    writers look at it.

    Raises:
        UserError: the disk is full or the quota is used up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"Expected room to write {path} but the disk is full ({error.strerror}). "
                "Free some space and start the same command again: finished stages are kept."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder(name: str) -> Path:
    """Where things of a kind are kept between runs: `$XDG_CACHE_HOME/distill/<name>`.

    Without the variable it is below `~/.cache`.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "distill" / name


@contextmanager
def whole_folder(path: Path) -> Iterator[Path | None]:
    """Yield an empty folder that becomes `path` once the block has filled it; else nothing does.

    One process at a time; another waits, and is given None if the folder is there by then. Names
    that begin like the yielded one are the block's to use; they are removed.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    new = path.with_name(f"{_TEMPORARY}{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go when the process ends
            if path.is_dir():
                yield None
                return
            try:
                _remove_all(new)
                new.mkdir()
                yield new
                os.sync()  # the files reach the disk before the name does
                new.rename(path)
            finally:
                _remove_all(new)
    except OSError as error:
        raise UserError(
            f"Expected to set up {path} but found: {error.strerror or error}. Free some space, or "
            f"see that {path.parent} can be written."
        ) from error


def _remove_all(new: Path) -> None:
    for leftover in new.parent.glob(f"{new.name}*"):
        shutil.rmtree(leftover)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file, or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file, or nothing."""
    write_bytes(path, text.encode())


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a compressed .npz of plain arrays, whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **dict(arrays))
    write_bytes(path, content.getvalue())


def to_json(value: Any) -> Any:
    """Turn dataclasses, paths, NumPy scalars and tuples into what `json` writes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_json(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return None  # JSON has no NaN; None is our "unknown"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_text(path, json.dumps(to_json(value), indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"Expected a file at {path} but there is none.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"Expected JSON in {path} but found {error}. Delete it to go on."
        ) from error


def from_json(kind: type, data: Any, *, where: str = "") -> Any:
    """Build a (nested) dataclass from plain values: the inverse of `to_json`.

    Raises:
        UsageError: a field is unknown, missing, or holds a value of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if data is None and type(None) in arguments:
            return None
        return from_json(next(a for a in arguments if a is not type(None)), data, where=where)
    if origin is tuple and isinstance(data, list | tuple):
        return tuple(from_json(arguments[0], item, where=where) for item in data)
    if dataclasses.is_dataclass(kind):
        return _dataclass_from_json(kind, data, where)
    if kind is float and isinstance(data, int | float) and not isinstance(data, bool):
        return float(data)
    if isinstance(kind, type) and issubclass(kind, Enum) and data in set(kind):
        return kind(data)
    expected = origin or kind
    if expected is not Any and not (isinstance(expected, type) and isinstance(data, expected)):
        raise UsageError(f"Expected `{where}` to be {kind} but got {data!r}.")
    return data


def _dataclass_from_json(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise UsageError(f"Expected `{where or kind.__name__}` to be a mapping but got {data!r}.")
    hints = _hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    prefix = f"{where}." if where else ""
    for name in data:
        if name not in fields:
            raise UsageError(f"Unknown field `{prefix}{name}`. {nearest(name, fields)}")
    required = [n for n, f in fields.items() if f.default is f.default_factory]  # both MISSING
    for name in required:
        if name not in data:
            raise UsageError(f"Expected a field `{prefix}{name}` but it is missing.")
    values = {n: from_json(hints[n], v, where=f"{prefix}{n}") for n, v in data.items()}
    return kind(**values)


_hints = functools.cache(typing.get_type_hints)


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hash a value by its canonical JSON."""
    text = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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


class HeldError(UserError):
    """Another process holds a lock."""


@contextmanager
def exclusive(path: Path, *, wanted: str, otherwise: str) -> Iterator[None]:
    """Hold a lock file for this process; the kernel lets go when the process ends.

    Args:
        path: of the lock file; it names its holder while it is held.
        wanted: what cannot be had meanwhile, for the message.
        otherwise: what to do about it, for the message.

    Raises:
        HeldError: another process does; the message names it.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HeldError(
                f"Expected to {wanted} but it is held by {_holder(file)}. {otherwise}"
            ) from error
        file.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, started {started}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _holder(file: typing.TextIO) -> str:
    """Read who holds a lock; whoever took it this very moment is about to write it down."""
    for _ in range(20):
        file.seek(0)
        name = file.read().strip()
        if name:
            return name
        time.sleep(0.01)
    return "another process"


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
        for leftover in run_dir.rglob(f"{_TEMPORARY}*"):
            leftover.unlink(missing_ok=True)
        try:
            yield
        finally:
            if fresh and [item.name for item in run_dir.iterdir()] == [".lock"]:
                path.unlink()
                run_dir.rmdir()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a run: reads files and values, writes files and a result, and runs once.

    Attributes:
        name: also the result's file name, `<name>.json`.
        values: the settings it depends on; a change runs it again.
        inputs: the files it depends on, compared by sha256.
        outputs: the files it promises, relative to the run folder.
    """

    name: str
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
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
    """
    manifest = f"manifests/{name}.json"
    made = read_json(source / manifest)
    for file in made["outputs"]:
        if not Path(file).is_absolute() and (source / file).is_file():
            with atomic_path(target / file) as temporary:
                shutil.copyfile(source / file, temporary)
    write_json(target / manifest, made | {"seconds": 0.0})


def _name(path: Path, run_dir: Path) -> str:
    return str(path.relative_to(run_dir) if path.is_relative_to(run_dir) else path)


def _hashes(paths: list[Path], run_dir: Path) -> dict[str, str | None]:
    return {_name(path, run_dir): sha256(path) if path.is_file() else None for path in paths}
