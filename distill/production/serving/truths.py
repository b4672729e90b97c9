"""What turned out about a prediction, as somebody says it, to the log's feedback.

Of one of several classes the log keeps its number as `label`; of all other tasks numbers, as
`truth.<number of the output>`; further outcomes by their names. Knows nothing of HTTP.
"""

import math
import re
import reprlib
from typing import Any

from distill.contract import Contract
from distill.errors import nearest
from distill.production.prediction_log.records import LABEL, TRUTH, Feedback, Prediction
from distill.production.serving.documents import text_field
from distill.production.serving.editions import Edition
from distill.production.serving.refusals import bad_input, malformed
from distill.tasks import TaskKind

MAX_OUTCOMES = 20

_OUTCOME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


def truths(document: dict[str, Any], prediction: Prediction, edition: Edition) -> list[Feedback]:
    """Read what turned out.

    Args:
        document: with `label`: a class, a list of labels that hold, or a number (or several by
            name); with `outcome`: further numbers by name, such as click or revenue.
        prediction: that it is about.
        edition: whose classes count.

    Raises:
        RefusedError: there is nothing, or it is not of the task.
    """
    source = text_field(document, "source") or "api"
    given: dict[str, tuple[int | None, float | None]] = {}
    if document.get("label") is not None:
        given |= _label(document["label"], edition.contract)
    outcome = document.get("outcome")
    if outcome is not None:
        if type(outcome) is not dict or not 1 <= len(outcome) <= MAX_OUTCOMES:
            raise malformed(f"Expected `outcome` to be 1 to {MAX_OUTCOMES} numbers by name.")
        for name, value in outcome.items():
            if not _OUTCOME.fullmatch(name) or name == LABEL or name.startswith(TRUTH):
                raise bad_input(
                    f"Expected names of outcomes such as click, of at most 64 letters, digits, "
                    f"`_`, `.` and `-`, other than {LABEL} and {TRUTH}*, but got {name[:60]!r}."
                )
            given[name] = None, _finite(value, name)
    if not given:
        raise malformed("Expected `label`, or `outcome` with numbers by name.")
    return [
        Feedback(prediction=prediction.id, name=name, label=label, value=value, source=source)
        for name, (label, value) in given.items()
    ]


def _label(given: Any, contract: Contract | None) -> dict[str, tuple[int | None, float | None]]:
    if contract is None:
        raise bad_input(
            "Expected `outcome` but got `label`: a bare ONNX file has no classes that it could be."
        )
    names = contract.asks.outputs
    if contract.asks.kind is TaskKind.CLASSIFICATION:
        return {LABEL: (_class(given, names), None)}
    if contract.asks.kind is TaskKind.MULTI_LABEL:
        if type(given) is not list:
            raise bad_input("Expected `label` to be a list of the labels that hold.")
        held = {_class(name, names) for name in given}
        return {f"{TRUTH}{i}": (None, float(i in held)) for i in range(len(names))}
    if len(names) == 1 and type(given) in (int, float):
        given = {names[0]: given}
    if type(given) is not dict or not given or not given.keys() <= set(names):
        raise bad_input(
            f"Expected `label` to be numbers by name, of {', '.join(names[:10])}. Leave out what "
            "is not known yet."
        )
    return {
        f"{TRUTH}{i}": (None, _finite(given[name], name))
        for i, name in enumerate(names)
        if name in given
    }


def _class(given: Any, names: tuple[str, ...]) -> int:
    if type(given) is not str:
        raise bad_input(
            f"Expected `label` to be the name of a class, as text, but got {reprlib.repr(given)}. "
            f"{nearest(str(given)[:60], names)}"
        )
    if given not in names:
        raise bad_input(
            f"Expected `label` to be one of the classes but got {given[:60]!r}. "
            f"{nearest(given[:60], names)}"
        )
    return names.index(given)


def _finite(value: Any, name: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise bad_input(f"Expected `{name[:60]}` to be a number.")
    return float(value)
