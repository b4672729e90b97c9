"""The command that a run folder was started with: the first line of its `config.yaml`.

A later one that would train on other data, or another kind of student, in there is told what to
say instead, before it writes anything. Knows no stage but the trainings, by their names.
"""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from distill.errors import UsageError, UserError
from distill.redaction import BLANK, is_secret, without_passwords, without_secrets

CONFIG = "config.yaml"
MOST = 5  # differing keys that a message names
_HEADER = re.compile(r"# in (?P<folder>.*): distill (?P<command>\S+.*)")
_PLACES = ("root", "path", "version")  # files, as data name them
_DATA = ("_target_", "name", *_PLACES)


def header(run_dir: Path) -> str:
    """Say in a line of comment which command works on a run folder; nothing if none is known."""
    if not _is_commands(run_dir):
        return ""
    words = (_launched_verb(), *_options(), *map(_shown, _given()))
    return f"# in {Path.cwd()}: distill {_joined(words)}\n"


def check_same_run(cfg: DictConfig) -> None:
    """Refuse to train on other data, or another kind of student, in a folder that has trained.

    Looked at are the data's class and place and the student's class: whatever else is changed,
    such as a budget, is what a run folder is there for.

    Raises:
        UsageError: names the keys and the command that goes on with the folder.
    """
    run_dir = Path(cfg.run_dir)
    path, made = run_dir / CONFIG, run_dir / "manifests" / "train"
    roles = {manifest.stem for manifest in made.glob("*.json")}
    if not roles or not path.is_file() or "data" not in cfg:
        return
    text = path.read_text()
    before = _parsed(path, text)
    folder, verb, overrides = _started(text)
    others = _other_data(before.get("data"), cfg.data, folder)
    if roles & {"student", "control"}:
        others |= _others("student", before.get("student"), cfg.student, ("_target_",))
    if not others:
        return
    told = ", ".join(f"`{k}` {now} (was {then})" for k, (then, now) in [*others.items()][:MOST])
    again = _going_on(cfg, verb, overrides, [*others]) if verb else ""
    where = f" in {folder}" if again and folder != Path.cwd() else ""
    do = f"`{again}`{where} goes on with it" if again else f"Repeat the options of {path}"
    raise UsageError(
        f"Expected the data and the student that {run_dir} was trained with but got {told}. "
        f"{do}; for something else take another `run_dir=`."
    )


def _other_data(before: Any, now: Any, folder: Path | None) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for name in ("data", "data.base"):
        for key, values in _others(name, before, now, _DATA).items():
            moved = key.rpartition(".")[2] in _PLACES and _is_moved(*values, folder)
            found |= {} if moved else {key: values}
        before, now = (node.get("base") if node else None for node in (before, now))
    return found


def _others(name: str, before: Any, now: Any, keys: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    if not before or not now:
        return {}
    pairs = {f"{name}.{key}": (before.get(key), now.get(key)) for key in keys}
    return {key: (then, own) for key, (then, own) in pairs.items() if then != own}


def _is_moved(then: Any, now: Any, folder: Path | None) -> bool:
    """Whether two texts name one place, or the earlier is there no more."""
    if then is None or now is None:
        return False
    place = (folder or Path.cwd()) / Path(then).expanduser()
    return not place.exists() or place.resolve() == Path(now).expanduser().resolve()


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"Expected the configuration of a run in {path} but it is no YAML: {error}. "
            "Mend or remove it."
        ) from error
    return found if isinstance(found, dict) else {}


def _started(text: str) -> tuple[Path | None, str, list[str]]:
    found = _HEADER.match(text)
    if not found:
        return None, "", []
    verb, *words = shlex.split(found["command"])
    return Path(found["folder"]), verb, words


def _going_on(cfg: DictConfig, verb: str, before: list[str], others: list[str]) -> str:
    """Put together what a folder was started with and what is given now, but for what differs."""
    if verb != _launched_verb():  # keep what this one knows
        groups = {key.partition("@")[0] for key in HydraConfig.get().runtime.choices}
        before = [o for o in before if re.split(r"[.@=]", _key(o))[0] in {*cfg, *groups}]
    now = [_shown(o) for o in _given() if not _changes(o, others)]
    replaced = {"run_dir", "action", *map(_key, now)}
    kept = [o for o in before if o.startswith("--") or _key(o) not in replaced]
    return f"distill {_joined((_launched_verb(), *dict.fromkeys([*kept, *now])))}"


def _changes(override: str, others: list[str]) -> bool:
    key = _key(override)
    return key == "experiment" or any(f"{other}.".startswith(f"{key}.") for other in others)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _is_commands(run_dir: Path) -> bool:
    """Whether the command names this folder: a search's attempts are its own doing."""
    if not HydraConfig.initialized():
        return False
    own = HydraConfig.get().runtime
    known = not OmegaConf.is_missing(own, "output_dir")  # Hydra has made it
    return known and Path(own.output_dir).resolve() == run_dir.resolve()


def _launched_verb() -> str:
    """Name the verb that was started; empty where a program calls what verbs are made of."""
    return str(HydraConfig.get().job.config_name) if HydraConfig.initialized() else ""


def _given() -> list[str]:
    """List the overrides of this run; one of a sweep has a folder inside that of the sweep."""
    own = HydraConfig.get()
    given = list(own.overrides.task)
    if own.mode != RunMode.MULTIRUN:
        return given
    folder = os.path.relpath(own.runtime.output_dir)
    if not re.fullmatch(r"[\w./-]+", folder, re.ASCII):
        folder = QuotedString(text=folder, quote=Quote.double).with_quotes()
    return [*(one for one in given if _key(one) != "run_dir"), f"run_dir={folder}"]


def _options() -> list[str]:
    sources = HydraConfig.get().runtime.config_sources
    return [f"--config-dir={one.path}" for one in sources if one.provider == "command-line"]


def _shown(override: str) -> str:
    """Blank what is secret in an override, as it is in the configuration."""
    value, key = OverridesParser.create().parse_override(override).value(), _key(override)
    if without_secrets(value, key) == value:
        return override
    if isinstance(value, str) and not is_secret(key):
        return without_passwords(override)  # quoted as it was
    return f"{override.partition('=')[0]}={BLANK}"


def _joined(words: tuple[str, ...]) -> str:
    return shlex.join(" ".join(word.split("\n")) for word in words)
