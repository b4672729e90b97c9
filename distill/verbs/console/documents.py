"""Where the documents that verbs end with lie, for people who read the table above instead.

Looks at files that are as long as such a document alone; whatever else lies there is not read.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill.files import to_json


def places(made: Iterable[tuple[Mapping[str, Any], Path | None]]) -> str:
    """Say in which file each document lies, a line for each; nothing if one lies nowhere.

    Args:
        made: documents, each with the folder that its verb has written to; None where it has none.
    """
    found = [folder and _file_of(document, folder) for document, folder in made]
    return "\n".join(f"result: {file}" for file in found) if all(found) else ""


def _file_of(document: Mapping[str, Any], folder: Path) -> Path | None:
    whole = json.loads(json.dumps(to_json(document)))
    shortest = len(json.dumps(whole, separators=(",", ":")))
    longest = len(json.dumps(whole, indent=2)) + 1  # as `write_json` has it
    for path in sorted(folder.glob("*.json")):
        try:
            likely = path.is_file() and shortest <= path.stat().st_size <= longest
            if likely and json.loads(path.read_bytes()) == whole:
                return path.resolve()
        except (OSError, ValueError, RecursionError):  # somebody else's, and no document
            continue
    return None
