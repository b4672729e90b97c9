"""What nobody may read in a file, a message or a log: passwords, tokens and keys, blanked.

Rather too much is blanked than too little. Knows names and texts; knows no configuration.
"""

import re
from typing import Any

BLANK = "<redacted>"

_SECRET_PARTS = re.compile(
    r"passw(or)?d|passphrase|secret|credential"
    r"|(api|access|account|private|signing|encryption|shared|master|license)_?key"
)
_SECRET_WORDS = {"pwd", "auth", "authorization", "bearer", "cookie", "cookies"}
_LAST_WORDS = {"token", "tokens", "pass"}  # as in api_token, not as in token_dim
_COUNTS = {"num", "max", "min", "n"}  # as in num_tokens

_USERINFO_OF_PAGES = re.compile(
    r"(?<![\w+.-])((?:[\w.-]+\+)?https?://)(?:[^:/?#\s]+|[^:/?#@\s]*:(?!\d*[/?#])\S*)@",
    re.IGNORECASE,
)
_PASSWORD_OF_OTHERS = re.compile(
    r"(?<![\w+.-])((?!(?:[\w.-]+\+)?https?://)\w[\w+.-]*://[^:/@\s]*:)\S*@", re.IGNORECASE
)
_ASSIGNED = re.compile(
    r"(?<![\w.-])(?P<name>[\w.-]+)(?P<is>\s?=\s?)"
    r"(?P<value>\"[^\"]+\"|'[^']+'|(?!\.\.\.|=)[^\s&\"'`]+?(?=[\"'`)\]},.;]*(?:[\s&]|$)))"
)
_QUOTED = re.compile(
    r"(?P<quote>[\"'])(?P<name>[\w.-]+)(?P=quote)(?P<is>:\s?)(?P<value>\"[^\"]*\"|'[^']*'|\d+)"
)


def without_secrets(value: Any, key: str = "") -> Any:
    """Copy plain values with what is secret blanked: by the name of its key, or in a text.

    Args:
        value: mappings, lists, texts and numbers.
        key: what it stands under.
    """
    if is_secret(key) and value is not None and not isinstance(value, bool):
        return BLANK
    if isinstance(value, dict):
        return {name: without_secrets(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return without_passwords(value) if isinstance(value, str) else value


def is_secret(key: str) -> bool:
    """Tell by its name whether a value is secret: `db_password` and `apiKey` are, `author` not."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", key.rpartition(".")[2])
    words = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
    parts = words.split("_")
    if parts[0] in _COUNTS:
        return False
    found = _SECRET_PARTS.search(words) or _SECRET_WORDS & {*parts} or parts[-1] in _LAST_WORDS
    return bool(found)


def without_passwords(text: str) -> str:
    """Blank the passwords in a text: in URLs, their queries, and where one is assigned."""
    text = _USERINFO_OF_PAGES.sub(rf"\1{BLANK}@", text)
    text = _PASSWORD_OF_OTHERS.sub(rf"\1{BLANK}@", text)
    return _QUOTED.sub(_blanked, _ASSIGNED.sub(_blanked, text))


def _blanked(found: re.Match[str]) -> str:
    if not is_secret(found["name"]):
        return found[0]
    head = found[0][: found.start("value") - found.start()]
    return f"{head}{BLANK}"
