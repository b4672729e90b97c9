"""Files and folders that are whole or absent, or held by one process; plain values as JSON.

Knows nothing of what the files hold: no training, no models, no configuration.
"""

import dataclasses
import fcntl
import functools
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import time
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import FULL, UsageError, UserError, nearest

_TEMPORARY = ".tmp-"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` once the block has written it.

    The file's bytes reach the disk before its name does, so a kill or a power cut leaves the old
    file, the new one, or none, never half of one. The temporary file keeps the suffix because some
    writers look at it. Who may read a file that is there stays as it is.

    Raises:
        UserError: the disk is full or the quota is used up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if path.is_file():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in FULL:
            raise UserError(
                f"Expected room to write {path} but the disk is full ({error.strerror}). "
                "Free some space and start the same command again: finished stages are kept."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def inside(root: Path, name: str) -> Path:
    """Join to a folder what a file names as lying in it.

    Raises:
        UserError: it would lead out of the folder.
    """
    pure = PurePosixPath(name)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts:
        raise UserError(
            f"Expected a file inside {root} but it is said to be {name!r}. Do not use this folder: "
            "it was not written by distill."
        )
    return root / name


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


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left half-written in a folder, however deep."""
    for leftover in list(folder.rglob(f"{_TEMPORARY}*")):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


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


_AS_IT_IS = frozenset({str, int, bool, type(None)})


def to_json(value: Any) -> Any:
    """Turn dataclasses, paths, NumPy scalars and tuples into what `json` writes."""
    if type(value) in _AS_IT_IS:  # most of what comes, and a ledger is read often
        return value
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: to_json(item) for key, item in value.items()}
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
    if type(data) is kind:
        return data
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


def canonical_json(value: Any) -> str:
    """Write a value as JSON in the one way there is: sorted, without spaces."""
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"))


def sha256_json(value: Any) -> str:
    """Hash a value by its canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


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
