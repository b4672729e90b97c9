"""Replicas in a Ray cluster, or in one of this machine alone, behind Ray Serve's proxy.

Ray places, watches and replaces them. Knows nothing of what they serve. Source: Moritz et al.,
"Ray: A Distributed Framework for Emerging AI Applications", OSDI 2018.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from distill.errors import UserError
from distill.production.fleet.hub import Hub
from distill.production.serving.guard import Message, Receive, Scope, Send
from distill.production.serving.peers import Board, Notices, Snapshot

log = logging.getLogger(__name__)

NAME = "distill"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers otherwise

Application = Callable[[Scope, Receive, Send], Any]
Opening = Callable[[str, Board], AbstractContextManager[Application]]


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """What is asked of a cluster.

    Attributes:
        opening: opens the application of a replica, given its name and the board; goes to another
            process.
        num: of them.
        num_cpus: that each reserves.
        max_in_flight: requests that each is given at once; others wait at the proxy.
        host, port: of the proxy; the port cannot be 0.
        address: of a cluster that is up; None starts one, of this machine alone.
    """

    opening: Opening
    num: int
    num_cpus: float
    max_in_flight: int
    host: str
    port: int
    address: str | None = None

    def run(self, on_start: Callable[[], None]) -> list[Snapshot]:
        """Serve until SIGINT or SIGTERM.

        Args:
            on_start: called once all answer.

        Returns:
            What every replica said last.

        Raises:
            UserError: Ray is not installed, or the cluster or a replica does not start.
        """
        ray = _imported()
        ended = threading.Event()
        with self._cluster(ray), _signals(ended):
            hub = ray.remote(num_cpus=0)(Hub).remote()
            self._deploy(ray.serve, _RayBoard(hub=hub))
            on_start()
            ended.wait()
            ray.serve.delete(NAME)  # waits until all have ended in order
            return ray.get(hub.said.remote())

    @contextmanager
    def _cluster(self, ray: ModuleType) -> Iterator[None]:
        options: dict[str, Any] = {"address": self.address} if self.address else {
            "_node_ip_address": "127.0.0.1",
            "include_dashboard": False,
            "num_cpus": max(os.cpu_count() or 1, int(self.num * self.num_cpus) + 1),
        }  # fmt: skip
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=True, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = f"at {self.address}" if self.address else "on this machine"
            raise UserError(f"Expected a Ray cluster {where} but: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()

    def _deploy(self, serve: ModuleType, board: "_RayBoard") -> None:
        quiet = {"log_level": "ERROR", "enable_access_log": False}
        logging.getLogger("ray.serve").setLevel(logging.ERROR)

        def build() -> Application:  # Ray takes nothing but a function for a factory
            return _application(self.opening, board)

        deployment = serve.deployment(
            serve.ingress(build)(_Replica),
            name=NAME,
            num_replicas=self.num,
            max_ongoing_requests=self.max_in_flight,
            ray_actor_options={"num_cpus": self.num_cpus},
            logging_config=quiet,
        )
        http = {"host": self.host, "port": self.port}
        try:
            serve.start(http_options=http, logging_config=quiet)
            serve.run(deployment.bind(), name=NAME, route_prefix="/")
        except (RuntimeError, ValueError, TimeoutError, OSError) as error:
            raise UserError(
                f"Expected {self.num} replicas to start but Ray says: {error}"
            ) from error


@dataclass(frozen=True, kw_only=True)
class _RayBoard:
    """A board in an actor of its own.

    Attributes:
        hub: its handle.
    """

    hub: Any

    async def exchange(self, own: Snapshot, num_calls: int) -> Notices:
        """See `Board`."""
        return await self.hub.exchange.remote(own, num_calls)


class _Replica:
    """Its application answers everything."""


def _application(opening: Opening, board: Board) -> Application:
    """Open a replica's application, in its process; it closes with the application's life."""
    from ray import serve

    context, stack = serve.get_replica_context(), ExitStack()
    application = stack.enter_context(opening(f"replica-{context.rank.rank + 1}", board))

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":  # after it, Ray ends the process
                await asyncio.to_thread(stack.close)
            await send(message)

        await application(scope, receive, closing if scope["type"] == "lifespan" else send)

    return answered


def _imported() -> ModuleType:
    try:
        import ray
        import ray.serve
    except ImportError as error:
        raise UserError(
            "Expected Ray for `engine=ray` but it is not installed. Install distill[ray]."
        ) from error
    return ray


@contextmanager
def _signals(ended: threading.Event) -> Iterator[None]:
    def end(*_: Any) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
