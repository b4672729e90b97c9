"""What a model is asked for: a class, several labels at once, or numbers.

Knows the names and the units of the outputs; knows nothing of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import UsageError, UserError, nearest

QUANTILES = "`data.quantiles`"  # where they are asked for


class TaskKind(StrEnum):
    """The kinds of answers.

    - `classification`: one of several classes; labels int64 [N], outputs logits [N, C];
    - `multi_label`: each of several labels or not; labels 0 and 1, float32 [N, C], outputs logits
      [N, C];
    - `regression`: numbers; labels float32 [N, D] in their own units, outputs likewise, or where
      quantiles are asked for [N, D * Q]: of each number its quantiles, in order.
    """

    CLASSIFICATION = "classification"
    MULTI_LABEL = "multi_label"
    REGRESSION = "regression"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of answer, and what each output is.

    Attributes:
        kind: of answer.
        outputs: names of the classes, labels or numbers.
        mean: of each number over the training labels; empty for classes and labels.
        scale: standard deviation, likewise.
        has_one_unit: whether all numbers are of one unit, as the steps of a forecast are.
        quantiles: levels at which each number is answered, ascending; empty for the number itself.
    """

    kind: TaskKind
    outputs: tuple[str, ...]
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    has_one_unit: bool = False
    quantiles: tuple[float, ...] = ()

    @property
    def answers(self) -> tuple[str, ...]:
        """Names of what a model answers: the outputs, or the quantiles of each, level fastest."""
        if not self.quantiles:
            return self.outputs
        return tuple(f"{name}[q{level}]" for name in self.outputs for level in self.quantiles)

    @property
    def middle(self) -> int:
        """Place of the level nearest the median; 0 without quantiles."""
        return int(np.argmin(np.abs(np.array(self.quantiles or (0.5,)) - 0.5)))

    @property
    def unit(self) -> NDArray[np.float64]:
        """What errors of each number are divided by before they are put together, [D].

        1 where there is one unit, else the scale: the largest unit would rule.
        """
        alike = self.has_one_unit or len(self.outputs) == 1
        return np.ones(len(self.outputs)) if alike else np.array(self.scale)

    def of_answers(self, figures: Sequence[float]) -> NDArray[np.float64]:
        """Repeat a figure of each number for each of its quantiles, [D] to [D * Q]."""
        return np.repeat(np.asarray(figures, np.float64), max(1, len(self.quantiles)))

    def standardized(self, answers: NDArray[np.floating]) -> NDArray[np.float32]:
        """Bring numbers, [N, D], or quantiles, [N, D * Q], to mean 0 and scale 1 of each number."""
        by_number = answers.astype(np.float64).reshape(len(answers), len(self.outputs), -1)
        mean, scale = (np.array(own)[:, None] for own in (self.mean, self.scale))
        return ((by_number - mean) / scale).astype(np.float32).reshape(answers.shape)

    def ascending(self, answers: NDArray[np.floating]) -> NDArray[np.floating]:
        """Sort the quantiles of each number, [N, D * Q]; without quantiles nothing changes.

        Sorted, they never err more (Chernozhukov, Fernandez-Val, Galichon, "Quantile and
        Probability Curves Without Crossing", 2010).
        """
        if not self.quantiles:
            return answers
        by_number = answers.reshape(len(answers), -1, len(self.quantiles))
        return np.sort(by_number, axis=2).reshape(answers.shape)


def classification(classes: Sequence[str]) -> Task:
    """Make the task of telling one of several classes."""
    return Task(kind=TaskKind.CLASSIFICATION, outputs=tuple(classes))


def class_name(value: Any) -> str:
    """Write a class as a file would: true, 3, setosa."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def as_names(values: Any) -> NDArray[Any]:
    """Take whole numbers of a file for text: class names may be numbers, and a CSV has text alone.

    Args:
        values: of a column, [A].
    """
    found = np.asarray(values)
    return found.astype(str) if found.dtype.kind in "iu" else found


def class_numbers(values: Any, classes: Sequence[str], where: str) -> NDArray[np.int64]:
    """Turn class names into class numbers.

    Numbers are class numbers; text is a name, or, where some of it is no name, all of it is numbers
    (a CSV file does not tell them apart). True and false may be written with capitals.

    Args:
        values: names, truth values or whole numbers, [A].
        classes: names in the order of the labels.
        where: the values come from, for the message.

    Raises:
        UserError: a value is no class; says which and how often.
    """
    found = np.asarray(values)
    if found.dtype.kind in "OSUb":
        text = found.astype(str)
        if {*classes} <= {"false", "true"}:
            text = np.strings.lower(text)
        number = {name: position for position, name in enumerate(classes)}
        kinds, inverse = np.unique(text, return_inverse=True)
        unknown = [name for name in kinds if name not in number]
        if not unknown:
            return np.array([number[name] for name in kinds], np.int64)[inverse]
        if not all(name.isdecimal() for name in kinds):
            count = int(np.isin(text, unknown).sum())
            raise UserError(
                f"Expected labels among the {len(classes)} classes in {where} but {count} of "
                f"{len(text)} are none, such as `{unknown[0]}`. {nearest(unknown[0], classes)}"
            )
        found = text.astype(np.int64)
    whole = found.dtype.kind in "iu"
    outside = ~((found >= 0) & (found < len(classes))) if whole else np.ones(len(found), bool)
    if outside.any():
        raise UserError(
            f"Expected names or numbers (0 to {len(classes) - 1}) of the {len(classes)} classes in "
            f"{where} but {outside.sum()} of {len(found)} are none, such as {found[outside][0]}. "
            "Mend them: class numbers count from 0 in the order of the data's classes."
        )
    return found.astype(np.int64)


def with_quantiles(task: Task, levels: Sequence[float] | None) -> Task:
    """Ask for quantiles of each number; None asks for the numbers themselves.

    Raises:
        UsageError: the task has no numbers, or the levels are none.
    """
    if levels is None:
        return task
    if task.kind is not TaskKind.REGRESSION:
        raise UsageError(
            f"Expected numbers for {QUANTILES} but the task is {task.kind.replace('_', ' ')}. Set "
            f"{QUANTILES} to null, or `data.task=regression`."
        )
    return replace(task, quantiles=check_levels(levels, QUANTILES))


def check_levels(levels: Sequence[float] | None, where: str) -> tuple[float, ...]:
    """Return the levels of quantiles, or refuse them.

    Raises:
        UsageError: there is none, or they do not ascend inside 0 to 1.
    """
    found = levels if isinstance(levels, list | tuple) else ()
    numbers = all(isinstance(level, int | float) for level in found)
    if not found or not numbers or not all(a < b for a, b in pairwise([0, *found, 1])):
        raise UsageError(
            f"Expected {where} to be levels that ascend inside 0 to 1 but got {levels}. Try "
            "`data.quantiles=[0.1,0.5,0.9]`."
        )
    return tuple(float(level) for level in found)
