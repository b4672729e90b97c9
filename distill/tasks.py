"""What a model is asked for: a class, several labels at once, or numbers.

Knows the names and the units of the outputs; knows nothing of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


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
        scale: standard deviation, likewise. A network learns (label - mean) / scale.
    """

    kind: TaskKind
    outputs: tuple[str, ...]
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()


def classification(classes: Sequence[str]) -> Task:
    """Make the task of telling one of several classes."""
    return Task(kind=TaskKind.CLASSIFICATION, outputs=tuple(classes))
