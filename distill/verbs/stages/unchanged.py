"""Whether a finished pipeline is still that of its command: told in a second, without torch.

Looks at the configuration, at the package versions and the processor, at every file that the run
promised, and at every file, folder and module of the user's own that the configuration names. Files
outside the run folder count as the same if their size and their time of change are (as `make` and
`git status` do it).
"""

import logging
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from distill.deployment.device.machine import processor
from distill.files import read_json, sha256, sha256_json, write_json
from distill.run_folder import promised, versions
from distill.verbs.exporting.measuring import may_tell_more
from distill.verbs.production.registry import champion_sha256
from distill.verbs.run.own_code import own_code
from distill.verbs.run.ranks import launched
from distill.verbs.run.summary import show_verdict
from distill.verbs.run.workspace import Workspace, plain

log = logging.getLogger(__name__)

RECORD = "made_from.json"
WRITTEN = ("logger", "registry")  # these name what others write, too


def nothing_to_do(cfg: DictConfig, needs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the verdict of a run folder if the same command would come to it again.

    Args:
        cfg: of the command.
        needs: what `needs_of` says of it.
    """
    run_dir = Path(cfg.run_dir)
    record, report = run_dir / RECORD, run_dir / "benchmark.json"
    if launched().num_ranks > 1 or not record.is_file():
        return None
    if own_code(plain(cfg.data)):  # reads whatever it likes
        return None
    if report.is_file() and may_tell_more(run_dir, read_json(report)):
        return None
    if read_json(record) != {"needs": needs, "files": _as_it_is(run_dir)}:
        return None
    when = datetime.fromtimestamp(record.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
    verdict = read_json(run_dir / "verdict.json")
    show_verdict(Console(stderr=True), cfg.name, verdict)
    log.info(
        "unchanged since %s: no input, setting, version or result differs; nothing was run", when
    )
    return verdict


def remember(workspace: Workspace, needs: Mapping[str, Any]) -> None:
    """Keep what a pipeline was made from, as it was when it began, now that it has its verdict."""
    if workspace.leads:
        run_dir = workspace.run_dir
        write_json(run_dir / RECORD, {"needs": needs, "files": _as_it_is(run_dir)})


def needs_of(cfg: DictConfig) -> dict[str, Any]:
    """Tell all that a pipeline's verdict depends on, without reading what large files hold."""
    values = plain(cfg)
    own = Path(cfg.run_dir).resolve()
    looked_at: dict[str, Any] = {}
    for value in _strings({k: v for k, v in values.items() if k not in WRITTEN}):
        path = Path(value).expanduser()
        if _is_outside(path, own):
            looked_at[value] = sha256_json([_state(file) for file in _files(path, own)])
    starts = cfg.get("start_from"), cfg.get("teacher_training", {}).get("start_from")
    uses_champion = "champion" in (cfg.get("against"), *starts)
    champion = champion_sha256(cfg) if uses_champion else None
    return {
        "configuration": sha256_json(values),
        "versions": versions(),
        "processor": processor(),
        "files": looked_at,
        "own_code": own_code(values),
        "champion": champion,
    }


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
    elif isinstance(value, str) and value and "\n" not in value and len(value) < 1000:
        yield value


def _is_outside(path: Path, own: Path) -> bool:
    return path.exists() and not path.resolve().is_relative_to(own)


def _files(path: Path, own: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    seen = {own}
    for folder, folders, names in os.walk(path, followlinks=True):
        here = Path(folder)
        seen.add(here.resolve())  # a link may lead back
        yield from (here / name for name in sorted(folders) if (here / name).is_symlink())
        folders[:] = sorted(n for n in folders if n[0] != "." and (here / n).resolve() not in seen)
        yield from (here / name for name in sorted(names))


def _state(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:  # a link to nothing
        found = path.lstat()
    return str(path), found.st_size, found.st_mtime_ns


def _as_it_is(run_dir: Path) -> dict[str, str | None]:
    """Hash all that the stages of a run folder vouch for."""
    names = promised(run_dir)
    return {n: sha256(run_dir / n) if (run_dir / n).is_file() else None for n in names}
