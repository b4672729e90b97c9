"""From the words that a user types to what Hydra's grammar reads.

The grammar knows ASCII letters and few other signs; a value with others has to be quoted, which is
done here. What it reads as it is, stays as it is: lists, sweeps, functions, `~key` and `+key=`.
"""

import re
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException

from distill.errors import causes_of

_PLAIN = re.compile(r"[\w./:@+-]*", re.ASCII)
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=, \t])")  # as Hydra has it outside of quotes
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
    if _is_read(value):
        return override
    if value.startswith("[") and value.endswith("]"):
        mended = f"[{_each(value[1:-1])}]"
    elif value[0] in "[{'\"" or _FUNCTION.fullmatch(value):
        return override
    else:
        mended = _each(value) if sweeps and "," in value else _one(value)
    return f"{key}={mended}" if _is_read(mended) else override


def unreadable(error: OverrideParseException) -> str:
    """Say which override Hydra does not read, and how it would."""
    override = str(error.override)
    key, sign, value = override.partition("=")
    said = (str(cause).split("\n")[0] for cause in causes_of(error))
    why = next((text for text in said if not text.startswith("LexerNoViableAlt")), "")
    if not sign or not value or not key.isascii():
        how = "A key is of ASCII letters, digits and dots: `key=value`, `+key=value`, `~key`."
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


def _each(values: str) -> str:
    """Quote what has to be among values with commas between; with brackets or quotes, nothing."""
    if re.search(r"[\[\]{}()'\"\\]", values):
        return values
    return ",".join(value if _is_read(value) else _one(value) for value in values.split(","))


def _one(value: str) -> str:
    if value == "~" or value.startswith("~/"):
        value = str(Path(value).expanduser())
    plain = _ESCAPED.sub(r"\1", value)
    return plain if _PLAIN.fullmatch(plain) else _quoted(plain)


def _quoted(value: str) -> str:
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)  # backslashes count before a quote alone
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f'"{escaped}"'
