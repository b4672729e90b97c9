"""A request that gets no answer: why, in one message, and the HTTP status that says whose fault.

Knows nothing of HTTP frameworks; whoever answers turns it into the protocol's `{"error": ...}`.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What errors are counted by."""

    MALFORMED = "malformed"  # no JSON, no image, no such form
    INPUT = "input"  # names, types, shapes, values
    UNKNOWN = "unknown"  # no such model, version, prediction or page
    TOO_LARGE = "too_large"
    SLOW_CLIENT = "slow_client"
    FORBIDDEN = "forbidden"
    CONFLICT = "conflict"
    OVERLOAD = "overload"
    TIMEOUT = "timeout"
    MODEL = "model"  # the model fails on an input that passed every check
    DEFECT = "defect"  # ours


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """One way in which inputs are not as those that a model was trained on.

    Attributes:
        kind: category or gap; of an input that is refused missing, unknown, dtype, shape or range.
        column: of the input; empty where it has no name of ours, which a client could make up.
        count: of rows.
    """

    kind: str
    column: str
    count: int = 1


class RefusedError(Exception):
    """Why a request gets no answer.

    Args:
        kind: what it is counted by.
        message: what was expected, what was found, and what to do.
        status: of HTTP.
        retry_after_s: when it is worth trying again.
        oddity: what was wrong with the input, to be counted among the errors: it is a mistake of
            the client's, and no model was asked.

    Attributes:
        part_of: name and stage of the experiment in which the champion failed, as one compared.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        status: int = 400,
        retry_after_s: int | None = None,
        oddity: Oddity | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.status = kind, message, status
        self.retry_after_s, self.oddity = retry_after_s, oddity
        self.part_of: tuple[str | None, str | None] = (None, None)


def malformed(message: str) -> RefusedError:
    """The body is not what it says it is."""
    return RefusedError(Kind.MALFORMED, message)


def bad_input(message: str, oddity: Oddity | None = None) -> RefusedError:
    """The body is well formed but no input of this model."""
    return RefusedError(Kind.INPUT, message, oddity=oddity)
