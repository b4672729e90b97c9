"""What a verb can be told: its keys and groups, read off the YAML files that it may compose.

Knows the files of `conf/` and Hydra's defaults lists; composes nothing.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distill.errors import UsageError, nearest

FEW = 3  # groups whose options are shown as they are
_GLOBAL = "# @package _global_"


def files_of(conf: Path, verb: str) -> dict[Path, tuple[str, ...]]:
    """Find the YAML files that a verb may compose, each with the packages that it may stand in.

    Args:
        conf: the folder of the configuration.
        verb: whose.
    """
    found: dict[Path, set[str]] = {}

    def add(path: Path, package: str) -> None:
        if not path.is_file() or package in found.setdefault(path, set()):
            return
        found[path].add(package)
        group = path.parent.relative_to(conf).as_posix().removeprefix(".")
        for entry in _defaults(path):
            if isinstance(entry, str):
                name, _, place = entry.partition("@")
                folder = conf / group if name and not name.startswith("/") else conf
                add(folder / f"{name.lstrip('/')}.yaml", _join(package, place))
                continue
            for key in entry:
                if str(key).startswith("override "):
                    continue
                own, _, place = str(key).lstrip("/").partition("@")
                for option in sorted((conf / own).glob("*.yaml")):
                    if own == group and any(_defaults(option)):
                        continue  # data beside data, which stand beside data
                    add(option, "" if _is_global(option) else _join(package, place or own))

    add(conf / f"{verb}.yaml", "")
    return {path: tuple(sorted(packages)) for path, packages in found.items()}


def groups_of(conf: Path, verb: str) -> dict[str, list[str]]:
    """List the groups that a verb takes, each with its options."""
    groups: dict[str, list[str]] = {}
    for path in files_of(conf, verb):
        group = path.parent.relative_to(conf).as_posix()
        if group != ".":
            groups.setdefault(group, []).append(path.stem)
    return {group: sorted(names) for group, names in sorted(groups.items())}


@cache
def keys_of(conf: Path, verb: str) -> tuple[str, ...]:
    """List the dotted keys that a verb may be told."""
    keys: set[str] = set()
    for path, packages in files_of(conf, verb).items():
        loaded = OmegaConf.load(path)
        for package in packages:
            keys.update(_walk(loaded, f"{package}." if package else ""))
    return tuple(sorted(key for key in keys if "defaults" not in key and "hydra" not in key))


def help_of(conf: Path, verb: str) -> str:
    """Say what a verb can be told: its YAML with the comments in it, and the groups it takes."""
    files, groups = files_of(conf, verb), groups_of(conf, verb)
    own = [path for path in files if path.parent == conf and path.stem != "hydra_settings"]
    parts = [_commented(path) for path in own]
    if groups:
        width = max(map(len, groups))
        listed = (f"  {group:<{width}}  {', '.join(names)}" for group, names in groups.items())
        parts.append("\n".join(("groups, chosen by `group=option`:", *listed)) + "\n")
    if len(groups) <= FEW:
        for path in files:
            if path.parent != conf:
                group = path.parent.relative_to(conf).as_posix()
                parts.append(f"{group}={path.stem}, keys under `{group}.`:\n{_commented(path)}")
    return "\n".join(parts)


def chosen_of(conf: Path, verb: str, overrides: Sequence[str], own: Path | None = None) -> str:
    """Say what the options that a command line chooses can be told: their YAML, comments and all.

    Args:
        conf: the folder of the configuration.
        verb: whose.
        overrides: of the command line; those that choose no option of a group are passed over.
        own: a further folder, as `--config-dir` names it.

    Returns:
        Nothing where no option is chosen.

    Raises:
        UsageError: there is no such key, group or option.
    """
    groups, parts = groups_of(conf, verb), []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        group, _, package = key.partition("@")
        known = [*groups.get(group, ())]
        known += [path.stem for path in sorted((own / group).glob("*.yaml"))] if own else []
        could_be = "." not in group and override[0] not in "+~"
        if not known and could_be and group not in keys_of(conf, verb):
            raise UsageError(f"Unknown group or key `{group}`. {nearest(group, groups)}")
        for name in re.findall(r"[^\[\],\s]+", value) if known else ():
            if name not in known:
                raise UsageError(f"Unknown option `{group}={name}`. {nearest(name, known)}")
            folders = [folder for folder in (own, conf) if folder]
            paths = (folder / group / f"{name}.yaml" for folder in folders)
            path = next(path for path in paths if path.is_file())
            where = "" if _is_global(path) else f", keys under `{package or group}.`"
            parts.append(f"{group}={name}{where}:\n{path.read_text().strip()}\n")
    return "\n".join(parts)


def _commented(path: Path) -> str:
    """Give a file as it is written, comments and all, without what is Hydra's."""
    text = path.read_text()
    text = re.sub(r"^defaults:\n(?:[ \t-].*\n)+\n?", "", text, flags=re.MULTILINE)
    return re.sub(r"^hydra:\n(?:[ \t].*\n?)+", "", text, flags=re.MULTILINE).strip() + "\n"


def _defaults(path: Path) -> Iterator[Any]:
    loaded = OmegaConf.load(path)
    entries = loaded.get("defaults") if isinstance(loaded, DictConfig) else None
    for entry in OmegaConf.to_container(entries, resolve=False) if entries else []:  # type: ignore[union-attr]
        if entry != "_self_":
            yield entry


def _is_global(path: Path) -> bool:
    return path.read_text().startswith(_GLOBAL)


def _join(package: str, place: str) -> str:
    return ".".join(part for part in (package, place.replace("/", ".")) if part)


def _walk(node: Any, prefix: str) -> Iterator[str]:
    for key in map(str, node if isinstance(node, DictConfig) else ()):
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            yield from _walk(node[key], f"{prefix}{key}.")
