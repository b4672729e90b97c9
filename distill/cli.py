"""`distill <verb> [action] [overrides]`: one front door for all verbs.

Hydra composes the configuration and hands it to the verb; errors a user can cause become one
message; the last line of stdout is one JSON document, or in a terminal where it lies. Importing
this pulls neither torch nor hydra.
"""

import json
import os
import re
import sys
import traceback
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from distill import __version__
from distill.errors import NO_FOLDER, UsageError, UserError, causes_of, full_disk, nearest, refused
from distill.redaction import without_passwords
from distill.verbs.run.ranks import check_shared_folder, launched, log_to_stderr

VERBS = {
    "pipeline": "from data to verdict: everything below, in order, resumable (the main job)",
    "baseline": "score what a model must beat",
    "train": "train the teacher, the control and the student (or one: `train teacher`)",
    "soft_labels": "store the teacher's answers for every sample and view",
    "export": "turn a checkpoint into ONNX and int8, with its contract",
    "evaluate": "score the exported files on the test set",
    "benchmark": "measure latency, cold start, memory and size against a budget",
    "search": "find the cheapest student that holds a budget, out of a space",
    "predict": "run an exported model over images, rows or series into predictions.parquet",
    "promote": "the registry: `register` a run, promote `to=champion`, `rollback`, `history`",
    "serve": "answer over HTTP: the registry's champion, or an artefact by its path",
    "monitor": "is the model in production still what it was: drift, accuracy, decay, triggers",
    "experiment": "what the log says of a challenger; `plan`: how many requests it would take",
    "feedback": "`select` what people label, `export`, `import`, `collect` a dataset version",
    "doctor": "what this machine, its servers and devices can do, and what to do about the rest",
}
ACTIONS = {
    "baseline": ("score", "annotate"),
    "train": ("all", "teacher", "control", "student"),
    "promote": ("promote", "register", "rollback", "history"),
    "experiment": ("decide", "plan"),
    "monitor": ("check", "simulate"),
    "feedback": ("select", "export", "import", "collect"),
}
MOST_IN_TERMINAL = 1000  # characters of a document; a longer one hides what stands above it
EXIT_CODES = {"pass": 0, "fail": 3, "inconclusive": 4}

_HELP = """distill {version}: knowledge distillation, from data to verdict.

usage: distill <verb> [action] [overrides]

{verbs}

distill <verb> --help         the verb's configuration and its groups
distill <verb> --help group=option  what that option can be told
distill <verb> --cfg job      the composed configuration
distill <verb> -m key=a,b     one run for each value
distill --completion SHELL    for bash, zsh or fish: source <(distill --completion bash)
exit codes: 0 pass or done, 1 error, 2 wrong usage, 3 verdict fail, 4 verdict inconclusive,
            130 interrupted
"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the design's codes."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = _dispatch(arguments)
    except SystemExit:
        raise
    except BaseException as error:
        code = _report(error)
    sys.exit(code)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        lines = "\n".join(f"  {verb:<11} {does}" for verb, does in VERBS.items())
        print(_HELP.format(version=__version__, verbs=lines))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    verb, *rest = arguments
    if verb in ("--completion", "--complete"):
        print(_completed(verb, " ".join(rest)), end="")
        return 0
    if verb not in VERBS:
        raise UsageError(f"Unknown verb `{verb}`. {nearest(verb, VERBS)}")
    if {"-h", "--help"} & {*rest}:
        print(_help(verb, rest))
        return 0
    return _run_verb(verb, _with_action(verb, rest))


def _completed(asked: str, given: str) -> str:
    from distill.verbs.console.completion import candidates, script_of

    if asked == "--completion":
        return script_of(given)
    found = candidates(given, config_dir(), [*VERBS], ACTIONS)
    return "".join(f"{one}\n" for one in found)


def _help(verb: str, rest: list[str]) -> str:
    from distill.verbs.console.options import chosen_of, help_of

    line = " ".join(rest)
    own = re.search(r"(?:^| )(?:--config-dir|-cd)[= ](\S+)", line)
    overrides = [word for word in rest if "=" in word and not word.startswith("-")]
    told = chosen_of(config_dir(), verb, overrides, Path(own[1]) if own else None)
    action = f" [{'|'.join(ACTIONS[verb])}]" if verb in ACTIONS else ""
    return (
        f"distill {verb}{action} [key=value ...]: {VERBS[verb]}\n\n"
        f"{told or help_of(config_dir(), verb)}\n"
        f"distill {verb} --help group=option   what the options of groups can be told, as many\n"
        f"distill {verb} --cfg job             the configuration that comes of it\n"
        f"distill {verb} --hydra-help          further options"
    )


def _with_action(verb: str, rest: list[str]) -> list[str]:
    """Turn one bare word, wherever it stands, into `action=`."""
    bare = [
        at
        for at, word in enumerate(rest)
        if re.fullmatch(r"[A-Za-z_]+", word) and not (at and rest[at - 1].startswith("-"))
    ]
    if not bare:
        return rest
    actions, word = ACTIONS.get(verb, ()), rest[bare[0]]
    if word not in actions:
        known = nearest(word, actions) if actions else f"`{verb}` has none."
        raise UsageError(f"Unknown action `{word}` for `{verb}`. {known}")
    if len(bare) > 1:
        raise UsageError(f"Expected one action but got `{word}` and `{rest[bare[1]]}`.")
    return [f"action={word}", *(own for at, own in enumerate(rest) if at != bare[0])]


def _run_verb(verb: str, overrides: list[str]) -> int:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf

    from distill.verbs.console.documents import places
    from distill.verbs.console.sweeps import check_sweep, write_no_sweep
    from distill.verbs.console.words import readable, take_any_names

    sweeps = check_sweep(verb, overrides)
    write_no_sweep()
    take_any_names()
    check_shared_folder(overrides)
    OmegaConf.register_new_resolver("fastest_precision", _fastest_precision, replace=True)
    # A `_target_` may name a class in the user's folder; a file there never stands for a package.
    sys.path.append(os.getcwd())
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors reach us instead of being printed
    documents: list[dict[str, Any]] = []
    folders: list[Path | None] = []
    errors: list[Exception] = []
    multirun = False

    def task(cfg: DictConfig) -> None:
        nonlocal multirun
        multirun = HydraConfig.get().mode == RunMode.MULTIRUN
        OmegaConf.set_struct(cfg, False)
        if HydraConfig.get().run.dir != ".":  # a verb that makes no run folder names one as it is
            cfg.run_dir = str(Path(HydraConfig.get().runtime.output_dir).resolve())
        elif multirun and "out" in cfg:
            cfg.out = HydraConfig.get().runtime.output_dir
        log_to_stderr()
        try:
            documents.append(import_module(f"distill.verbs.{verb}").run(cfg))
            folder = cfg.get("run_dir") or cfg.get("out")
            folders.append(Path(folder) if folder else None)
        except Exception as error:  # the other jobs of a multirun go on; reported below
            errors.append(error)
            if multirun:
                _report(_as_usage_error(error, verb))

    overrides = [readable(override, sweeps=sweeps) for override in overrides]
    # Hydra's parser wants all overrides together: options such as --config-dir go first.
    is_override = re.compile(r"[^-][^=]*=|[~+]")
    sys.argv = [f"distill {verb}", *sorted(overrides, key=lambda o: bool(is_override.match(o)))]
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=verb)(task)()
    except Exception as error:
        no_folder = refused(error, NO_FOLDER)  # Hydra's own; a verb's errors are kept above
        raise no_folder or _as_usage_error(error, verb) from error
    if errors and not multirun:
        raise _as_usage_error(errors[0], verb) from errors[0]
    if multirun:
        document = {"runs": documents, "num_failed": len(errors)}
    elif documents:
        document = documents[0]
    else:
        return 0  # --help, --cfg, --info
    if launched().leads:
        text = json.dumps(document)
        if sys.stdout.isatty() and len(text) > MOST_IN_TERMINAL:
            text = places(zip(documents, folders, strict=True)) or text
        print(text, flush=True)
    judged = (done.get("verdict", done.get("promotion", "pass")) for done in documents)
    codes = [EXIT_CODES.get(outcome, 0) for outcome in judged]
    return 1 if errors else max(codes)


def _fastest_precision(accelerator: str) -> str:
    from distill.training.hardware import (
        fastest_precision,
    )  # pulls torch, which --help does not need

    return fastest_precision(accelerator)


def config_dir() -> Path:
    """Find the YAML files: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if folder.is_dir():
            return folder
    raise UserError(f"Expected the configuration in {package / 'conf'}. Install distill again.")


def _as_usage_error(error: Exception, verb: str) -> Exception:
    """Say what Hydra found wrong in a configuration, with the nearest names."""
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    from distill.verbs.console.words import unreadable

    if getattr(error, "exit_code", None) is not None:
        return error
    causes = causes_of(error)
    user_error = next((cause for cause in causes if hasattr(cause, "exit_code")), None)
    if user_error is not None:
        return user_error
    full = full_disk(error)
    if full is not None:
        return full
    denied = refused(error)
    if denied is not None:
        return denied
    text = "\n".join(str(cause) for cause in causes)
    if isinstance(error, MissingMandatoryValue):
        key = re.search(r"full_key: (\S+)", text) or re.search(r"value: (\S+)", text)
        name = key.group(1) if key else "a value"
        return UsageError(f"Expected a value for `{name}` but none is given. Add `{name}=...`.")
    if isinstance(error, OverrideParseException):
        return UsageError(unreadable(error))
    if isinstance(error, HydraException | OmegaConfBaseException):
        return UsageError(_nearest_config_names(text, verb))
    return error


def _nearest_config_names(text: str, verb: str) -> str:
    from distill.verbs.console.options import groups_of, keys_of

    option = re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text)
    if option:
        group, name = option.groups()
        known = [path.stem for path in (config_dir() / group).glob("*.yaml")]
        return f"Unknown option `{group}={name}`. {nearest(name, known)}"
    key = re.search(r"Key '([^']+)' is not in struct\n\s+full_key: (\S+)", text)
    if key:
        full, known = key.group(2), keys_of(config_dir(), verb)
        if full in known:
            return (
                f"Unknown config key `{full}` of the chosen options: another option of its group "
                f"has it. Look at `--cfg job -p {full.rpartition('.')[0]}`."
            )
        tops = {name.partition(".")[0] for name in known} | {*groups_of(config_dir(), verb)}
        near = tops if "." not in full and get_close_matches(full, tops) else known
        return f"Unknown config key `{full}`. {nearest(full, near)}"
    group = re.search(r"Could not override '([^']+)'\.?\s*\n?.*No match in the defaults", text)
    if group:
        name = group.group(1)
        groups = [*groups_of(config_dir(), verb)]
        known = {*keys_of(config_dir(), verb), *groups}
        keys = groups if get_close_matches(name, groups) else known
        return f"Unknown config key `{name}`. {nearest(name, keys)}"
    first = [line.strip() for line in text.splitlines() if line.strip()]
    text = " ".join(dict.fromkeys(first[:4]))
    return text.replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception.", ".")


def _report(error: BaseException) -> int:
    if os.environ.get("DISTILL_TRACEBACK") == "1":
        _print_traceback(error)
    if isinstance(error, KeyboardInterrupt):
        print(
            "Interrupted. The same command with `run_dir=` of this run folder goes on; with -m, of "
            "the folder of all runs.",
            file=sys.stderr,
        )
        return 130
    if isinstance(error, BrokenPipeError):  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    code = getattr(error, "exit_code", None)
    full = full_disk(error) if code is None else None
    if full is not None:
        print(f"error: The disk is full: {full}. Free some space and start again.", file=sys.stderr)
        return 1
    if code is None:
        if os.environ.get("DISTILL_TRACEBACK") != "1":
            _print_traceback(error)
        print("error: This is a defect in distill, not in your input.", file=sys.stderr)
        return 1
    print(f"error: {without_passwords(str(error))}", file=sys.stderr)
    return code


def _print_traceback(error: BaseException) -> None:
    print(without_passwords("".join(traceback.format_exception(error))), end="", file=sys.stderr)
