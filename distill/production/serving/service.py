"""The service without HTTP: a checked input goes to the router, its answer to log and counters.

What all doors to a model have in common. Knows neither paths nor bodies.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from distill.production.serving.catalogue import Catalogue
from distill.production.serving.editions import Edition
from distill.production.serving.exchange import Answer, InferenceRequest, Router, SingleRouter
from distill.production.serving.experiment_metrics import ExperimentCollector
from distill.production.serving.peers import Peers
from distill.production.serving.protocol import non_finite
from distill.production.serving.recording import Recorder, new_ids
from distill.production.serving.refusals import Kind, RefusedError
from distill.production.serving.signature import Checked
from distill.production.serving.telemetry import Telemetry

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who asks, where, and since when.

    Attributes:
        endpoint: infer or predict.
        unit: who is asking.
        is_pinned: whether for this very version.
        started: by `time.perf_counter`.
    """

    endpoint: str
    unit: str | None = None
    is_pinned: bool = False
    started: float


@dataclass(kw_only=True)
class Service:
    """What answers.

    Attributes:
        catalogue: the editions at hand.
        recorder: of the prediction log.
        telemetry: counters.
        router: decides which model answers.
        deadline_ms: of a request.
        max_rows: of a request.
        admin_token: that admin routes ask for; None turns them off.
        peers: other processes of the same service.
        beside: what runs until the service ends, then is cancelled.
    """

    catalogue: Catalogue
    recorder: Recorder
    telemetry: Telemetry
    router: Router = field(default_factory=SingleRouter)
    deadline_ms: float = 1_000.0
    max_rows: int = 10_000
    admin_token: str | None = None
    peers: Peers = field(default_factory=Peers)
    beside: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()

    def __post_init__(self) -> None:
        """Tie the counters to what they count."""
        self.telemetry.watch_queue(lambda: self.catalogue.current.batcher.waiting)
        self.telemetry.registry.register(ExperimentCollector(self.router_status))
        self.catalogue.on_change = self._changed
        self._changed(self.catalogue.current)

    def router_status(self) -> dict[str, Any] | None:
        """What whoever is the router now says of its experiment."""
        return self.router.status()

    def _changed(self, edition: Edition) -> None:
        self.telemetry.changed(edition.model, edition.label, edition.artefact_sha256)

    async def ask(
        self, edition: Edition, checked: Checked, asker: Asker
    ) -> tuple[tuple[str, ...], Answer]:
        """Get an answer, and write down that it was given.

        Returns:
            The ids of the predictions, one for each row, and the answer.

        Raises:
            RefusedError: there is none.
        """
        if checked.num_rows > self.max_rows:
            raise RefusedError(
                Kind.TOO_LARGE,
                f"Expected a request of at most {self.max_rows:,} rows but got "
                f"{checked.num_rows:,}. Send them in several requests.",
                status=413,
            )
        late_s = time.perf_counter() - asker.started
        request = InferenceRequest(
            ids=new_ids(checked.num_rows),
            edition=edition,
            feeds=checked.feeds,
            num_rows=checked.num_rows,
            unit=asker.unit,
            is_pinned=asker.is_pinned,
            deadline=time.monotonic() + self.deadline_ms / 1000 - late_s,
            odd_rows=checked.odd_rows,
        )
        if checked.oddities:
            self.telemetry.odd(edition.model, checked.oddities)
            self.recorder.odd(edition.model, edition.version, checked.oddities)
        try:
            answer = await self.router.route(request)
            _check_finite(edition, answer)
        except RefusedError as refusal:
            await self.recorder.failed(request, refusal, _since_ms(asker.started))
            raise
        latency_ms = _since_ms(asker.started)
        await self._record(request, answer, latency_ms)
        version = "" if answer.version is None else str(answer.version)
        self.telemetry.answered(asker.endpoint, version, answer.role, _since_ms(asker.started))
        return request.ids, answer

    async def _record(self, request: InferenceRequest, answer: Answer, latency_ms: float) -> None:
        waits = await self.recorder.record(request, answer, latency_ms, ids=request.ids)
        if waits and not await _all_safe(waits):
            raise RefusedError(
                Kind.DEFECT,
                "Expected the prediction log to keep the answer, as `log.sync` promises, but it "
                "does not. Look at the service's health.",
                status=503,
                retry_after_s=1,
            )

    def refused(self, endpoint: str, refusal: RefusedError) -> None:
        """Count a refusal; it is an error, and never skew."""
        self.telemetry.refused(endpoint, refusal.kind.value, refusal.oddity)


def defect(error: Exception) -> RefusedError:
    """Say that it is our fault; the log has the traceback."""
    log.error("A request failed by a defect of the service.", exc_info=error)
    return RefusedError(
        Kind.DEFECT, "The service failed; its log says why. Please report it.", status=500
    )


async def _all_safe(waits: list[Future[Any]]) -> bool:
    done = await asyncio.gather(*map(asyncio.wrap_future, waits), return_exceptions=True)
    return all(kept is not False and not isinstance(kept, BaseException) for kept in done)


def _check_finite(edition: Edition, answer: Answer) -> None:
    if edition.contract is not None and any(map(non_finite, answer.outputs.values())):
        refusal = RefusedError(
            Kind.MODEL,
            "Expected a finite answer but the model gives none to this input: it is far from all "
            "that it was trained on.",
            status=422,
        )
        refusal.part_of = answer.experiment, answer.stage
        raise refusal


def _since_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000
