"""The user's own code that a configuration names: an edit is another model, loss or view.

Finds sources without importing them: the modules that a `_target_` names, and what those import, as
far as they are neither Python's, nor an installed package's, nor distill's.
"""

import ast
import site
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

import distill
from distill.files import sha256, sha256_json

KEY = "own_code"
_CALLABLES = ("hydra.utils.get_class", "hydra.utils.get_method", "hydra.utils.get_object")
_NOT_OWN = tuple(
    Path(folder).resolve()
    for folder in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
        Path(distill.__file__).parent,
    }
)


def with_own_code(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put the hashes of the user's sources beside the values that name them, where any do."""
    found = own_code(values)
    return {**values, KEY: found} if found else dict(values)


def sha256_of(values: Mapping[str, Any]) -> str:
    """Hash values, and the user's sources that they name."""
    return sha256_json(with_own_code(values))


def own_code(values: Any) -> dict[str, str]:
    """Hash the sources that a configuration's `_target_`s come from, module name to sha256."""
    found: dict[str, str] = {}
    waiting = list(_targets(values))
    while waiting:
        for name, path in _modules(waiting.pop()):
            if name not in found:
                found[name] = sha256(path)
                waiting += _imported(name, path)
    return dict(sorted(found.items()))


def _targets(values: Any) -> Iterator[str]:
    if isinstance(values, Mapping):
        target = values.get("_target_")
        named = values.get("path") if target in _CALLABLES else target
        if isinstance(named, str):
            yield named
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from _targets(value)


def _modules(dotted: str) -> Iterator[tuple[str, Path]]:
    """Find the user's modules on the way to a name such as `mine.nets.Net`."""
    name, *rest = dotted.split(".")
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # no module, or one that was made by hand
        return
    if spec is None:
        return
    file = Path(spec.origin) if spec.has_location and spec.origin else None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    while True:
        if any(_is_installed(path) for path in ([file] if file else folders)):
            return
        if file is not None and file.suffix == ".py" and file.is_file():
            yield name, file
        if not rest:
            return
        found = [folder / rest[0] for folder in folders]
        name = f"{name}.{rest.pop(0)}"
        folders = [folder for folder in found if folder.is_dir()]
        inner = (*(f / "__init__.py" for f in folders), *(f.with_suffix(".py") for f in found))
        file = next((path for path in inner if path.is_file()), None)
        if file is None and not folders:
            return  # a class or a function


def _is_installed(path: Path) -> bool:
    return any(path.resolve().is_relative_to(folder) for folder in _NOT_OWN)


def _imported(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # whoever imports it says so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # beyond the top
                continue
            yield from (f"{base}.{alias.name}" for alias in node.names)
