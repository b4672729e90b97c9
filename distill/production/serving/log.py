"""What the service asks of a prediction log, and how it refuses; on a database, and in memory.

Knows records; what a database is, the prediction log knows.
"""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from distill.errors import UserError
from distill.production.prediction_log.annotations import (
    ConflictingAnnotationError,
    UnknownItemError,
)
from distill.production.prediction_log.connection import LogUnavailableError
from distill.production.prediction_log.feedback import (
    ConflictingFeedbackError,
    UnknownPredictionError,
    add_feedback,
)
from distill.production.prediction_log.reader import find, wait_for
from distill.production.prediction_log.records import Feedback, Prediction, Record, is_id
from distill.production.prediction_log.retention import purge
from distill.production.prediction_log.writer import LogWriter
from distill.production.serving.refusals import Kind, RefusedError, bad_input


def refusal_of(error: UserError) -> RefusedError:
    """Say in HTTP what a log says."""
    if isinstance(error, LogUnavailableError):
        return RefusedError(Kind.DEFECT, str(error), status=503, retry_after_s=1)
    if isinstance(error, UnknownPredictionError | UnknownItemError):
        return RefusedError(Kind.UNKNOWN, str(error), status=404)
    if isinstance(error, ConflictingFeedbackError | ConflictingAnnotationError):
        return RefusedError(Kind.CONFLICT, str(error), status=409)
    return bad_input(str(error))


class Log(Protocol):
    """Where predictions and the truth about them go. All but `put` may block."""

    def put(self, record: Record) -> Future[Any] | None:
        """Take a record, at once; what is returned is true once the record is safe."""
        ...

    def find(self, prediction_id: str) -> Prediction | None:
        """Find a prediction.

        Raises:
            LogUnavailableError: the log cannot be read now.
        """
        ...

    def feedback(self, feedback: Feedback) -> bool:
        """Keep what turned out; False where the same was said before.

        Raises:
            UnknownPredictionError: there is no such prediction.
            ConflictingFeedbackError: something else was said before.
            LogUnavailableError: the log cannot be written now.
        """
        ...

    def problem(self) -> str | None:
        """Say what is wrong with it; None where nothing is."""
        ...

    def tidy(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Let go of what is too old; `is_over` says when to leave the rest to the next time."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


@dataclass(frozen=True, kw_only=True)
class KeptLog:
    """A log in a database.

    Attributes:
        engine: what `open_log` gave.
        writer: to it.
        retention_days: what is older goes; None keeps everything.
    """

    engine: Any
    writer: LogWriter
    retention_days: float | None = None

    def put(self, record: Record) -> Future[bool] | None:
        """Hand a record to the writer."""
        return self.writer.put(record)

    def find(self, prediction_id: str) -> Prediction | None:
        """Find a prediction; one that was just answered is waited for."""
        if not is_id(prediction_id):
            return None
        found = wait_for(lambda: find(self.engine, prediction_id), prediction_id)
        return None if found is None else found.prediction

    def feedback(self, feedback: Feedback) -> bool:
        """Keep what turned out."""
        return add_feedback(self.engine, feedback)

    def problem(self) -> str | None:
        """Say what the writer complains about, and what was lost."""
        health = self.writer.health
        lost = health.num_lost + health.num_refused
        said = [health.problem or "", f"{lost:,} records were lost" if lost else ""]
        return "; ".join(part for part in said if part) or None

    def tidy(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Let go of what is too old."""
        if self.retention_days is not None:
            purge(self.engine, self.retention_days, is_over=is_over)

    def close(self) -> None:
        """Write what is left, and let the database go."""
        self.writer.close()
        self.engine.dispose()


class MemoryLog:
    """The last predictions, gone with the process.

    Args:
        capacity: how many predictions.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self.predictions: OrderedDict[str, Prediction] = OrderedDict()
        self.truths: dict[str, dict[str, Feedback]] = {}  # by prediction, by name
        self._capacity = capacity

    def put(self, record: Record) -> None:
        """Keep a prediction; skew is counted by the metrics."""
        if not isinstance(record, Prediction):
            return
        self.predictions[record.id] = record
        if len(self.predictions) > self._capacity:
            gone, _ = self.predictions.popitem(last=False)
            self.truths.pop(gone, None)

    def find(self, prediction_id: str) -> Prediction | None:
        """Find a prediction."""
        return self.predictions.get(prediction_id)

    def feedback(self, feedback: Feedback) -> bool:
        """Keep what turned out."""
        own = self.truths.setdefault(feedback.prediction, {})
        known = own.setdefault(feedback.name, feedback)
        if known is feedback:
            return True
        if (known.label, known.value) != (feedback.label, feedback.value):
            raise ConflictingFeedbackError(
                f"Expected one truth about `{feedback.name}` of the prediction "
                f"{feedback.prediction} but another was given before. The first stands."
            )
        return False

    def problem(self) -> str | None:
        """Memory has none."""
        return None

    def tidy(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """It is bounded as it is."""

    def close(self) -> None:
        """It goes by itself."""
