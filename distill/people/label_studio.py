"""What people said in Label Studio, read from its full JSON export.

Knows the format; which samples and classes are meant is for whoever asks.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one person chose.

    Attributes:
        key: of the sample, as its task has it.
        choice: the class's name.
        annotator: an e-mail address, a name or a number; `label studio` is nobody in particular.
        seconds: it took; None where that is unknown.
        time: UTC, in seconds since 1970; likewise.
        data: of its task.
    """

    key: str | int
    choice: str
    annotator: str
    seconds: float | None
    time: float | None
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Export:
    """A file.

    Attributes:
        by: the name in `data` by which its tasks tell their samples.
        answers: that people gave.
        num_tasks: in it.
        num_left_out: answers that were cancelled or are empty.
    """

    by: str
    answers: tuple[Answer, ...]
    num_tasks: int
    num_left_out: int


def read_export(path: Path, keys: Sequence[str], made_by: str) -> Export:
    """Read an export.

    Args:
        path: of the file.
        keys: names in `data` of which tasks have one; the first that the first task has counts.
        made_by: the command that makes such tasks, for the message.

    Raises:
        UserError: the file is missing, truncated or something else, or an answer has several
            choices.
    """
    tasks = _tasks(path)
    by = next((key for key in keys if tasks and key in _data(tasks[0])), keys[0])
    answers, num_left_out = [], 0
    for number, task in enumerate(tasks):
        key = _data(task).get(by)
        annotations = task.get("annotations") if isinstance(task, Mapping) else None
        if type(key) not in (str, int) or not isinstance(annotations, list):
            wanted = " or ".join(f"`{name}`" for name in keys)
            found = ", ".join(map(str, _data(task))) or "none"
            raise UserError(
                f"Expected tasks with {wanted} in their `data`, and `annotations`, in {path} but "
                f"found {found} in task {number}. Export tasks that `{made_by}` made, as JSON (not "
                "JSON-MIN)."
            )
        for annotation in annotations:
            if not isinstance(annotation, Mapping):
                raise UserError(
                    f"Expected annotations as objects in {path} but {by} {key} has "
                    f"{type(annotation).__name__}. Export it again."
                )
            chosen = _choices(annotation)
            if annotation.get("was_cancelled") or not chosen:
                num_left_out += 1
                continue
            if len(chosen) > 1:
                raise UserError(
                    f"Expected one choice for each answer in {path} but {by} {key} has "
                    f"{len(chosen)}: {', '.join(chosen)[:200]}. Let people choose a single class."
                )
            answers.append(_answer(key, chosen[0], annotation, _data(task)))
    return Export(by=by, answers=tuple(answers), num_tasks=len(tasks), num_left_out=num_left_out)


def _tasks(path: Path) -> list[Any]:
    if not path.is_file():
        raise UserError(f"Expected an export of Label Studio at {path} but there is none.")
    try:
        tasks = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"Expected JSON in {path} but it is truncated or something else: {error}. Export it "
            "again; nothing was taken."
        ) from error
    if not isinstance(tasks, list):
        raise UserError(
            f"Expected a list of tasks in {path} but found {type(tasks).__name__}. Export the "
            "project as JSON."
        )
    return tasks


def _data(task: Any) -> Mapping[str, Any]:
    data = task.get("data") if isinstance(task, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def _answer(
    key: Any, choice: str, annotation: Mapping[str, Any], data: Mapping[str, Any]
) -> Answer:
    lead = annotation.get("lead_time")
    return Answer(
        key=key,
        choice=choice,
        annotator=_annotator(annotation.get("completed_by")),
        seconds=float(lead) if isinstance(lead, int | float) and math.isfinite(lead) else None,
        time=_time(annotation.get("created_at")),
        data=data,
    )


def _choices(annotation: Mapping[str, Any]) -> list[str]:
    result = annotation.get("result")
    results = result if isinstance(result, list) else []
    values = [one.get("value") for one in results if isinstance(one, Mapping)]
    lists = [value.get("choices") for value in values if isinstance(value, Mapping)]
    return [str(name) for names in lists if isinstance(names, list) for name in names]


def _annotator(who: Any) -> str:
    """Name whoever completed it: an e-mail address, or a number, without which all are one."""
    if isinstance(who, Mapping):
        who = who.get("email") or who.get("username") or who.get("id")
    return "label studio" if who is None else str(who)


def _time(text: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(str(text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
