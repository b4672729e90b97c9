"""Tasks for Label Studio, and what its people say, as its JSON has them.

Tasks carry `data.pred_id`, by which answers find their prediction again, and the model's answer as
a prediction whose `score` sorts them. Knows the format; knows nothing of a log's tables.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from distill.annotating import data_uri, keys_of
from distill.errors import UserError, nearest
from distill.production.feedback.shown import as_picture, as_row
from distill.production.prediction_log.queue import Reviewed
from distill.production.prediction_log.records import Annotation

_NAME, _PICTURE, _ROW = "label", "image", "row"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What a file says.

    Attributes:
        annotations: of people, with class numbers.
        num_tasks: in it.
        num_cancelled: answers that were skipped, or are empty.
    """

    annotations: tuple[Annotation, ...] = ()
    num_tasks: int = 0
    num_cancelled: int = 0


@dataclass(kw_only=True)
class _Reading:
    classes: Sequence[str]
    path: Path
    found: list[Annotation] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    num_cancelled: int = 0


def task_of(row: Reviewed, classes: Sequence[str], columns: Sequence[Any] | None) -> dict[str, Any]:
    """Write an item as a task.

    Args:
        row: of the queue, with its input.
        classes: names in the order of the labels.
        columns: of a table; None of images.

    Raises:
        UserError: the logged input cannot be shown.
    """
    own, item = row.prediction, row.item
    assert own.input is not None
    if columns is None:
        to_name, shown = _PICTURE, {_PICTURE: data_uri(as_picture(own.input))}
    else:
        to_name, shown = _ROW, {_ROW: dict(as_row(own.input, columns))}
    said = []
    if own.label is not None:
        version = "" if own.version is None else f":{own.version}"
        said.append(
            _prediction(f"{own.model}{version}", own.confidence, classes[own.label], to_name)
        )
    return {
        "data": {"pred_id": own.id, "unit": own.unit, "reason": item.reason, **shown},
        "predictions": said,
    }


def config(classes: Sequence[str], *, is_table: bool) -> str:
    """Write the labelling configuration that fits the tasks, as XML."""
    shown = (
        '<Table name="row" value="$row"/>' if is_table else '<Image name="image" value="$image"/>'
    )
    choices = "".join(
        f"    <Choice value={quoteattr(name)}" + (f' hotkey="{key}"' if key else "") + "/>\n"
        for name, key in zip(classes, keys_of(classes), strict=True)
    )
    to_name = _ROW if is_table else _PICTURE
    return (
        f'<View>\n  {shown}\n  <Choices name="{_NAME}" toName="{to_name}" choice="single" '
        f'required="true">\n{choices}  </Choices>\n</View>\n'
    )


def read_export(path: Path, classes: Sequence[str]) -> Imported:
    """Read what people said, from Label Studio's full JSON export.

    Raises:
        UserError: the file is missing, truncated or something else, or a choice is no class.
    """
    tasks = _tasks(path)
    reading = _Reading(classes=classes, path=path)
    for number, task in enumerate(tasks):
        data = task.get("data") if isinstance(task, dict) else None
        one = data.get("pred_id") if isinstance(data, dict) else None
        annotations = task.get("annotations") if isinstance(task, dict) else None
        if not isinstance(one, str) or not isinstance(annotations, list):
            raise UserError(
                f"Expected `data.pred_id` and `annotations` in each task of {path} but task "
                f"{number} lacks them. Export tasks that `feedback export` made, as JSON (not "
                "JSON-MIN)."
            )
        for annotation in annotations:
            _read(reading, one, annotation)
    if reading.unknown:
        first, _ = reading.unknown.most_common(1)[0]
        raise UserError(
            f"Expected choices among the {len(classes)} classes in {path} but "
            f"{reading.unknown.total()} are none: {', '.join(map(repr, reading.unknown))[:200]}. "
            f"{nearest(first, classes)} Nothing was taken: mend the labelling configuration, or "
            "the file."
        )
    return Imported(
        annotations=tuple(reading.found),
        num_tasks=len(tasks),
        num_cancelled=reading.num_cancelled,
    )


def _prediction(version: str, confidence: float | None, name: str, to_name: str) -> dict[str, Any]:
    result = {
        "from_name": _NAME,
        "to_name": to_name,
        "type": "choices",
        "value": {"choices": [name]},
    }
    return {"model_version": version, "score": confidence, "result": [result]}


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


def _read(reading: _Reading, prediction: str, annotation: Any) -> None:
    if not isinstance(annotation, Mapping):
        raise UserError(
            f"Expected annotations as objects in {reading.path} but {prediction} has "
            f"{type(annotation).__name__}. Export it again."
        )
    chosen = _choices(annotation)
    if annotation.get("was_cancelled") or not chosen:
        reading.num_cancelled += 1
        return
    if len(chosen) > 1:
        raise UserError(
            f"Expected one choice for each answer in {reading.path} but {prediction} has "
            f"{len(chosen)}: {', '.join(chosen)[:200]}. Let people choose a single class."
        )
    if chosen[0] not in reading.classes:
        reading.unknown[chosen[0]] += 1
        return
    moment = _time(annotation.get("created_at"))
    lead = annotation.get("lead_time")
    own = Annotation(
        prediction=prediction,
        annotator=_annotator(annotation.get("completed_by")),
        label=list(reading.classes).index(chosen[0]),
        lead_time_s=float(lead) if isinstance(lead, int | float) and np.isfinite(lead) else None,
    )
    reading.found.append(own if moment is None else replace(own, time=moment))


def _choices(annotation: Mapping[str, Any]) -> list[str]:
    result = annotation.get("result")
    values = [r.get("value") for r in result if isinstance(r, dict)] if result else []
    lists = [v.get("choices") for v in values if isinstance(v, dict)]
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
