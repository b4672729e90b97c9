"""Estimators of scikit-learn on disk, without pickle, and known by what they hold.

Knows nothing of what they answer.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import skops.io

from distill.errors import UserError
from distill.files import sha256_json, write_bytes


def save_estimator(estimator: Any, path: Path) -> None:
    """Save a fitted estimator as a skops file, whole or not at all."""
    write_bytes(path, skops.io.dumps(estimator))


def load_estimator(path: str | Path, trusted_types: Sequence[str] = ()) -> Any:
    """Load an estimator from a skops file; nothing in the file is run.

    Trusted are scikit-learn's own classes, NumPy's types of values, and what skops trusts (NumPy's
    arrays and ufuncs). A file made with malice from those alone can crash the process, but run no
    code of its own: take estimators from people you know all the same.

    Args:
        path: the file.
        trusted_types: dotted names of further types and functions that may be loaded.

    Raises:
        UserError: there is no such file, it is damaged or something else (such as a pickle), or it
            holds other types.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Expected an estimator saved with skops at {path} but there is none.")
    data = path.read_bytes()
    try:
        found = skops.io.get_untrusted_types(data=data)
        unknown = [name for name in found if name not in trusted_types and not _is_plain(name)]
        if not unknown:
            return skops.io.loads(data, trusted=found)
    except Exception as error:  # skops passes on whatever a damaged file leads to
        raise UserError(
            f"Expected an estimator saved with skops at {path} but it is damaged or something else "
            f"({type(error).__name__}: {error}). Pickles are never opened: save it with "
            "`skops.io.dump(estimator, path)`."
        ) from error
    raise UserError(
        f"Expected an estimator of scikit-learn's own types in {path} but it also holds "
        f"{', '.join(unknown)}. If you know what they do, set "
        f"`teacher.trusted_types=[{','.join(unknown)}]`."
    )


def estimator_sha256(estimator: Any) -> str:
    """Hash an estimator, fitted or not, by what it holds.

    The bytes of a skops file have times, addresses and random names.
    """
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(estimator))) as archive:
        members = {name: _member_sha256(name, archive.read(name)) for name in archive.namelist()}
        schema = json.loads(archive.read("schema.json"))
    return sha256_json(_canonical(schema, members))


def _is_plain(dotted: str) -> bool:
    """Tell whether a name is a class that scikit-learn itself defines, or a type of NumPy's values.

    Only classes: a module of scikit-learn also holds functions, and what it imports from elsewhere.
    """
    module, _, name = dotted.rpartition(".")
    if module in ("numpy", "numpy.dtypes"):
        found = getattr(import_module(module), name, None)
        return isinstance(found, type) and issubclass(found, np.dtype | np.generic)
    if not module.startswith("sklearn."):
        return False
    try:
        found = getattr(import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__.startswith("sklearn.")


def _member_sha256(name: str, data: bytes) -> str:
    """Hash a file of an archive; an array of records, as trees are, by its fields.

    Between the fields of a record lies whatever was in memory there.
    """
    if name.endswith(".npy"):
        array = np.load(io.BytesIO(data), allow_pickle=False)
        if array.dtype.names is not None:
            fields = b"".join(array[field].tobytes() for field in array.dtype.names)
            data = repr((array.dtype.descr, array.shape)).encode() + fields
    return hashlib.sha256(data).hexdigest()


def _canonical(node: Any, members: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_canonical(item, members) for item in node]
    if not isinstance(node, dict):
        return node
    content = {
        key: _canonical(value, members)
        for key, value in node.items()
        if key not in ("__id__", "_skops_version")
    }
    if isinstance(node.get("file"), str):
        content["file"] = members[node["file"]]
    if node.get("__loader__") == "SetNode":
        content["content"] = sorted(map(sha256_json, content["content"]))
    return content
