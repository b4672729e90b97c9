"""What a run is made of, in words: its teacher, its student and its loss.

Knows how the configuration writes them; builds none of them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILES = ("path", "test_path", "checkpoint")  # told by their names, without folders
ELSEWHERE = ("classes", "drop_classes", "weight")  # told by the data, or before the rest


def teacher_words(teacher: Mapping[str, Any], *, is_numeric: bool = False) -> str:
    """Say what answers: a network and where its weights are from, a file, or several of them.

    Args:
        teacher: its configuration.
        is_numeric: whether numbers are asked for: of two estimators one is in use.
    """
    idle = "estimator" if is_numeric else "regressor"
    if "members" not in teacher:
        return node_words({key: value for key, value in teacher.items() if key != idle})
    members = (
        f"{name}: {teacher_words(own, is_numeric=is_numeric)}"
        for name, own in teacher["members"].items()
    )
    return f"ensemble of {'; '.join(members)}"


def node_words(node: Mapping[str, Any]) -> str:
    """Name a class, or the class of a network that something is about, and its settings."""
    network = node.get("network")
    if network:
        rest = _settings({key: value for key, value in node.items() if key != "network"})
        return ", ".join([node_words(network), *rest])
    kind, settings = str(node.get("_target_", "")).rpartition(".")[2], _settings(node)
    return f"{kind} ({', '.join(settings)})" if kind and settings else kind or ", ".join(settings)


def loss_words(losses: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the terms of a loss as a sum: `ce 0.1 + kd 0.9 (temperature 4)`."""
    said = []
    for name, term in losses.items():
        settings = ", ".join(_settings(term))
        weight = f" {_value('weight', term['weight'])}" if "weight" in term else ""
        said.append(f"{name}{weight}" + (f" ({settings})" if settings else ""))
    return " + ".join(said)


def _settings(node: Mapping[str, Any]) -> list[str]:
    return [
        f"{str(key).replace('_', ' ')} {_value(str(key), value)}"
        for key, value in node.items()
        if not str(key).startswith("_") and key not in ELSEWHERE and not _is_nothing(value)
    ]


def _is_nothing(value: Any) -> bool:
    return value is None or value is False or value in ([], {}, "")


def _value(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return node_words(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(key, item) for item in value)}]"
    if isinstance(value, float):
        return f"{value:g}"
    return Path(value).name if key in FILES else str(value)
