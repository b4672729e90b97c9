"""What runs beside the requests: the registry followed, skew written down, the log kept short.

Knows the service; knows nothing of HTTP.
"""

import asyncio
import contextlib
import logging
import threading
from types import TracebackType

from distill.errors import UserError
from distill.production.serving.overview import snapshot
from distill.production.serving.service import Service

log = logging.getLogger(__name__)

SKEW_S = 5.0
TIDY_S = 3600.0


class Background:
    """Starts with the service and ends with it.

    Args:
        service: that it is about.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._running: list[asyncio.Task[None]] = []
        self._is_over = threading.Event()  # for threads, which no cancellation reaches

    async def __aenter__(self) -> "Background":
        """Begin."""
        own = (self._service.catalogue.watch, self._tell_peers, self._write_skew, self._tidy)
        jobs = (job() for job in (*own, *self._service.beside))
        self._running = [asyncio.create_task(job) for job in jobs]
        return self

    async def _tell_peers(self) -> None:
        service = self._service
        await service.peers.keep(lambda: snapshot(service), service.catalogue.reload)

    async def _write_skew(self) -> None:
        while True:
            await asyncio.sleep(SKEW_S)
            self._service.recorder.flush()

    async def _tidy(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._service.recorder.log.tidy, self._is_over.is_set)
            except UserError as error:
                log.warning("What is too old in the prediction log stays for now. %s", error)
            await asyncio.sleep(TIDY_S)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        self._is_over.set()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._service.recorder.flush()
        with contextlib.suppress(Exception):  # whoever hears us may be gone
            await self._service.peers.tell(snapshot(self._service))
