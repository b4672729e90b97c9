"""What a model is asked for: a class, several labels at once, or numbers.

Knows the names and the units of the outputs; knows nothing of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class TaskKind(StrEnum):
    """The kinds of answers.

    - `classification`: one of several classes; labels int64 [N], outputs logits [N, C];
    - `multi_label`: each of several labels or not; labels 0 and 1, float32 [N, C], outputs logits
      [N, C];
    - `regression`: numbers; labels float32 [N, D] in their own units, outputs likewise.
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
    """

    kind: TaskKind
    outputs: tuple[str, ...]
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    has_one_unit: bool = False

    @property
    def unit(self) -> NDArray[np.float64]:
        """What errors of each number are divided by before they are put together, [D].

        1 where there is one unit, else the scale: the largest unit would rule.
        """
        alike = self.has_one_unit or len(self.outputs) == 1
        return np.ones(len(self.outputs)) if alike else np.array(self.scale)


def classification(classes: Sequence[str]) -> Task:
    """Make the task of telling one of several classes."""
    return Task(kind=TaskKind.CLASSIFICATION, outputs=tuple(classes))
