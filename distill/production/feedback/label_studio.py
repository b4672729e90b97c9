"""Tasks for Label Studio, and what its people say, as its JSON has them.

Tasks carry `data.pred_id`, by which answers find their prediction again, and the model's answer as
a prediction whose `score` sorts them. Knows nothing of a log's tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.errors import UserError, nearest
from distill.people.annotating import CHOICES, PICTURE, ROW, data_uri
from distill.people.label_studio import Answer, read_export
from distill.production.feedback.shown import as_picture, as_row
from distill.production.prediction_log.queue import Reviewed
from distill.production.prediction_log.records import Annotation


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
        to_name, shown = PICTURE, {PICTURE: data_uri(as_picture(own.input))}
    else:
        to_name, shown = ROW, {ROW: dict(as_row(own.input, columns))}
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


def read_annotations(path: Path, classes: Sequence[str]) -> Imported:
    """Read what people said, from Label Studio's full JSON export.

    Raises:
        UserError: the file is missing, truncated or something else, or a choice is no class.
    """
    export = read_export(path, ("pred_id",), "feedback export")
    unknown = [own.choice for own in export.answers if own.choice not in classes]
    if unknown:
        names = ", ".join(map(repr, dict.fromkeys(unknown)))[:200]
        raise UserError(
            f"Expected choices among the {len(classes)} classes in {path} but {len(unknown)} are "
            f"none: {names}. {nearest(unknown[0], classes)} Nothing was taken: mend the labelling "
            "configuration, or the file."
        )
    return Imported(
        annotations=tuple(_annotation(own, classes) for own in export.answers),
        num_tasks=export.num_tasks,
        num_cancelled=export.num_left_out,
    )


def _annotation(given: Answer, classes: Sequence[str]) -> Annotation:
    own = Annotation(
        prediction=str(given.key),
        annotator=given.annotator,
        label=list(classes).index(given.choice),
        lead_time_s=given.seconds,
    )
    return own if given.time is None else replace(own, time=given.time)


def _prediction(version: str, confidence: float | None, name: str, to_name: str) -> dict[str, Any]:
    result = {
        "from_name": CHOICES,
        "to_name": to_name,
        "type": "choices",
        "value": {"choices": [name]},
    }
    return {"model_version": version, "score": confidence, "result": [result]}
