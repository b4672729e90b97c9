"""What passes between the front of the service and whoever decides which model answers.

A handler checks a request against an edition, hands it to a `Router`, and gets an `Answer` that
says who gave it. Knows nothing of HTTP, nor of experiments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from distill.production.prediction_log.records import Role
from distill.production.serving.editions import Edition


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceRequest:
    """A checked request.

    Attributes:
        ids: of the predictions that the answer will be, one for each row.
        edition: that the inputs were checked against; the champion when the request came.
        feeds: inputs by name.
        num_rows: that they have.
        unit: who is asking, for assignments that stick; None where nobody says.
        is_pinned: whether the client asked for this very version.
        deadline: by `time.monotonic`.
        odd_rows: numbers of those with a value that the edition's training has not seen.
    """

    ids: tuple[str, ...]
    edition: Edition
    feeds: Mapping[str, NDArray[Any]]
    num_rows: int
    unit: str | None
    is_pinned: bool
    deadline: float
    odd_rows: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a request is answered, and by whom.

    Attributes:
        outputs: by name.
        model: that answered.
        version: of it; None of a plain path.
        artefact_sha256: of its file.
        role: champion, challenger, shadow or fallback.
        experiment: that it is part of.
        stage: of the experiment.
        odd_rows: of the request, with a value that the training of whoever answered has not seen;
            None where that is the edition of the request.
    """

    outputs: Mapping[str, NDArray[Any]]
    model: str
    version: int | None
    artefact_sha256: str
    role: Role = "champion"
    experiment: str | None = None
    stage: str | None = None
    odd_rows: frozenset[int] | None = None


class Router(Protocol):
    """Decides which model answers."""

    async def route(self, request: InferenceRequest) -> Answer:
        """Get an answer by the request's deadline.

        Raises:
            RefusedError: there is none.
        """
        ...

    def status(self) -> dict[str, Any] | None:
        """Say which experiment is under way, for the dashboard; None where there is none."""
        ...


class SingleRouter:
    """Asks the edition that the request was checked against."""

    async def route(self, request: InferenceRequest) -> Answer:
        """Ask it."""
        edition = request.edition
        outputs = await edition.batcher.submit(
            dict(request.feeds), request.num_rows, deadline=request.deadline
        )
        names = edition.signature.output_names
        return Answer(
            outputs=dict(zip(names, outputs, strict=True)),
            model=edition.model,
            version=edition.version,
            artefact_sha256=edition.artefact_sha256,
        )

    def status(self) -> dict[str, Any] | None:
        """There is no experiment."""
        return None
