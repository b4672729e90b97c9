"""The process: a socket, uvicorn around it, and an orderly end at a signal.

Knows uvicorn; knows nothing of what is served.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from distill.production.serving.documents import write_document
from distill.production.serving.guard import Guard
from distill.production.serving.listening import Listening
from distill.production.serving.refusals import Kind, RefusedError

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005  # a model's thread that is done waits for Python no longer than this

MAX_HEADER_BYTES = 64 * 1024


class Server(uvicorn.Server):
    """uvicorn, which leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing; see `serve`."""
        yield


def make_server(application: Guard, listening: Listening) -> Server:
    """Set uvicorn up.

    Args:
        application: to be served.
        listening: how.
    """
    config = uvicorn.Config(
        application,
        http=patient(listening.read_timeout_s, application.on_refusal),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=listening.keep_alive_s,
        timeout_graceful_shutdown=listening.shutdown_s,
    )
    return Server(config)


def serve(server: Server, bound: socket.socket, on_start: Callable[[], None]) -> None:
    """Run until SIGINT or SIGTERM; requests under way are answered first.

    Args:
        server: see `make_server`.
        bound: where it listens.
        on_start: called once it does.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, setattr, server, "should_exit", True)
        running = asyncio.create_task(server.serve(sockets=[bound]))
        while not server.started and not running.done():
            await asyncio.sleep(0.01)
        if server.started:
            on_start()
        await running

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(main())


class Joined:
    """A transport that sends a response's head together with what follows it.

    uvicorn writes them one after the other; each write is a system call, and wakes the client.

    Args:
        transport: that sends.
        loop: in which.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hold a head back until the body comes, or the loop's next turn."""
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.writelines((head, data) if data else (head,))
        elif data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n"):
            self._head = data
            self._loop.call_soon(self.flush)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send a head that is still held."""
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)

    def close(self) -> None:
        """Send what is held, then close."""
        self.flush()
        self._transport.close()


def patient(
    read_timeout_s: float, on_refusal: Callable[[RefusedError], None]
) -> type[HttpToolsProtocol]:
    """Make a protocol that hangs up on a client whose request does not come, or does not end."""
    slow = RefusedError(
        Kind.SLOW_CLIENT,
        f"Expected the whole request within {read_timeout_s:g} s but it took longer.",
        status=408,
    )

    class Patient(HttpToolsProtocol):
        """uvicorn's own waits for a request for ever, and takes any number of headers.

        Trailers count as headers do, and so does what a chunk says beside its size; none of it is
        handed on.
        """

        _hang_up: asyncio.TimerHandle | None = None
        _in_request = _in_headers = _in_body = False
        _num_bytes = 0  # since the request began, or the last of its body came

        def connection_made(self, transport: Any) -> None:
            """Wait for the first request."""
            super().connection_made(Joined(transport, self.loop))  # type: ignore[arg-type]
            self._wait()

        def data_received(self, data: bytes) -> None:
            """Wait for the rest of a request that has begun."""
            self._in_body = False
            super().data_received(data)
            if self._in_request and self._hang_up is None:
                self._wait()
            if self._in_headers or (self._in_request and not self._in_body):
                self._num_bytes += len(data)
                if self._num_bytes > MAX_HEADER_BYTES:
                    self.transport.close()

        def on_message_begin(self) -> None:
            """A request begins."""
            self._in_request = self._in_headers = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            """Its headers are there."""
            self._in_headers, self._num_bytes = False, 0
            super().on_headers_complete()

        def on_header(self, name: bytes, value: bytes) -> None:
            """Keep a header; a trailer, which comes when the request was looked at, is none."""
            if self._in_headers:
                super().on_header(name, value)

        def on_body(self, body: bytes) -> None:
            """Some of the body is there."""
            self._in_body, self._num_bytes = True, 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            """All of it is there."""
            self._in_request, self._num_bytes = False, 0
            self._stop()
            super().on_message_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            """Nobody is there any more."""
            self._stop()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._hang_up = self.loop.call_later(read_timeout_s, self._give_up)

        def _give_up(self) -> None:
            self._stop()
            if self.transport.is_closing():
                return
            unanswered = self._in_headers or self.cycle is None or not self.cycle.response_started
            if self._in_request and unanswered:
                on_refusal(slow)
                self.transport.write(raw_response(slow))
            self.transport.close()

        def _stop(self) -> None:
            if self._hang_up is not None:
                self._hang_up.cancel()
                self._hang_up = None

    return Patient


def raw_response(refusal: RefusedError) -> bytes:
    """Write a refusal as HTTP, for a request that has reached no application."""
    body = write_document({"error": refusal.message})
    status = HTTPStatus(refusal.status)
    return (
        b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode())
        + b"content-type: application/json\r\nconnection: close\r\n"
        + b"content-length: %d\r\n\r\n" % len(body)
        + body
    )
