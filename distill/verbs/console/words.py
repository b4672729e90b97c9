"""From the words that a user types to what Hydra's grammar reads.

The grammar knows ASCII letters and few other signs; a value with others has to be quoted, which is
done here, and so has a path that looks like a number. What it reads as it is, stays as it is:
lists, sweeps, functions, `~key` and `+key=`.
"""

import re
from functools import wraps
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.overrides_visitor import HydraOverrideVisitor
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException

from distill.errors import causes_of

_PATHS = re.compile(  # keys of files and folders
    r"\+{0,2}(?:.*\.)?(?:against|artefacts?|audit|checkpoint|files?|folder|humans|input|output|out|"
    r"path|results|root|run|run_dir|save_dir|scratch|ssh_config|start_from|test_file|test_path|"
    r"train_file|unlabelled|wheels)"
    r"|.*\bdata\.version"
)
_PLAIN = re.compile(r"[\w./:@+-]*", re.ASCII)
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")  # as Hydra has it outside of quotes
_NAME_OF = re.compile(r"(\+{0,2}(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)\.([^.@/]+)", re.ASCII)
_KEYS = re.compile(  # of a dictionary; other texts in quotes are passed over
    r"""(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')(?P<colon>\s*:)?"""
    r"""|(?<=[{,])(?P<bare>[^{}\[\](),:=\"'\\]*[^\x00-\x7f][^{}\[\](),:=\"'\\]*)(?=:)"""
)
_SIGN = re.compile(r"%u([0-9a-f]+)%")
_FUNCTION = re.compile(r"[A-Za-z_]\w*\(.*\)", re.DOTALL)


def readable(override: str, *, sweeps: bool) -> str:
    """Quote a value that Hydra's grammar does not read, and expand `~/` where it begins one.

    Args:
        override: such as `input=Fotos_Köln`; whatever is none stays.
        sweeps: commas part the values of a multirun.
    """
    key, sign, value = override.partition("=")
    if not sign or key.startswith("-"):
        return override
    if key == "reason":  # free text
        return override if value[:1] in ("", '"', "'") else f"{key}={_quoted(value)}"
    mended = _read(value, sweeps=sweeps, is_path=bool(_PATHS.fullmatch(key)))
    return _with_name(f"{key}={mended}")


def _read(value: str, *, sweeps: bool, is_path: bool) -> str:
    if not is_path and _is_read(value):
        return value
    if value.startswith("[") and value.endswith("]"):
        mended = f"[{_each(value[1:-1], is_path)}]"
    elif value[:1] in ("", *"[{'\"") or _FUNCTION.fullmatch(value):
        return value
    else:
        is_many = sweeps and "," in value
        mended = _each(value, is_path) if is_many else _one(value, is_path)
    return mended if _is_read(mended) else value


class _Name(QuotedString):
    """A key in quotes: a multirun writes it down, and reads it again."""

    def __hash__(self) -> int:
        return hash(self.text)


def take_any_names() -> None:
    """Let keys of a dictionary be any names, in quotes or of any letters, and texts where quoted.

    Hydra's grammar has neither, and columns have such names: `+data.kinds={"inc.usd": number}`.
    """
    if hasattr(OverridesParser.parse_rule, "__wrapped__"):
        return
    parse, visit = OverridesParser.parse_rule, HydraOverrideVisitor.visitDictKey

    @wraps(parse)
    def parse_rule(self: OverridesParser, s: str, rule_name: str) -> Any:
        key, sign, value = s.partition("=")
        spelt = f"{key}={_KEYS.sub(_spelt, value)}" if sign and value[:1] == "{" else s
        found = parse(self, spelt, rule_name)
        if isinstance(found, Override):
            found.input_line = s
        return found

    @wraps(visit)
    def visit_key(self: HydraOverrideVisitor, ctx: Any) -> Any:
        key = visit(self, ctx)
        if not isinstance(key, str) or not _SIGN.search(key):
            return key
        name = _SIGN.sub(lambda own: chr(int(own[1], 16)), key)
        return _Name(text=name, quote=Quote.double)

    OverridesParser.parse_rule = parse_rule
    HydraOverrideVisitor.visitDictKey = visit_key


def _spelt(found: re.Match[str]) -> str:
    """Write a key in the signs of the grammar; the first one, too, or it may be a number."""
    if found["bare"] is not None:
        return re.sub(r"[^\x00-\x7f]", _sign, found["bare"])
    if found["colon"] is None:
        return found[0]
    name = OverridesParser.create().parse_rule(found["quoted"], "primitive").text
    return re.sub(r"^.|\W", _sign, name, flags=re.ASCII | re.DOTALL) + ":"


def _sign(found: re.Match[str]) -> str:
    return f"%u{ord(found[0]):x}%"


def _is_number(value: str) -> bool:
    """Whether the grammar reads a value as a number, or as true or false."""
    if not re.fullmatch(r"\s*[\w.+-]+\s*", value, re.ASCII):
        return False
    return isinstance(OverridesParser.create().parse_rule(value, "primitive"), int | float)


def _with_name(override: str) -> str:
    """Turn `key.name=value` into `key={"name": value}` where the grammar has no such name."""
    key, _, value = override.partition("=")
    parts = _NAME_OF.fullmatch(key)
    if parts is None or re.fullmatch(r"[\w$-]+", parts[2], re.ASCII):
        return override
    return f"{parts[1]}={{{_quoted(parts[2])}: {value}}}"


def unreadable(error: OverrideParseException) -> str:
    """Say which override Hydra does not read, and how it would."""
    override = str(error.override)
    key, sign, value = override.partition("=")
    said = (str(cause).split("\n")[0] for cause in causes_of(error))
    why = next((text for text in said if not text.startswith("LexerNoViableAlt")), "")
    if not sign or not value or not key.isascii():
        how = (
            "A key is of ASCII letters, digits and dots: `key=value`, `+key=value`, `~key`; what "
            "has another name stands in quotes: `'+data.kinds={\"credit amount\": category}'`."
        )
    else:
        how = (
            "Put quotes around a text with such signs, within the quotes of the shell: "
            f'\'{key}="..."\', \'{key}=["...","..."]\'.'
        )
    return f"Expected an override that can be read but got `{override}`: {why}. {how}"


def _is_read(value: str) -> bool:
    if _PLAIN.fullmatch(value):
        return True
    try:
        OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return False
    return True


def _each(values: str, is_path: bool) -> str:
    """Quote what has to be among values with commas between; with brackets or quotes, nothing."""
    if re.search(r"[\[\]{}()'\"\\]", values):
        return values
    return ",".join(_one(value, is_path) for value in values.split(","))


def _one(value: str, is_path: bool) -> str:
    if is_path and _is_number(value):
        return _quoted(value.strip())
    if _is_read(value):
        return value
    if value == "~" or value.startswith("~/"):
        value = str(Path(value).expanduser())
    plain = _ESCAPED.sub(r"\1", value)
    return plain if _PLAIN.fullmatch(plain) else _quoted(plain)


def _quoted(value: str) -> str:
    return QuotedString(text=value, quote=Quote.double).with_quotes()
