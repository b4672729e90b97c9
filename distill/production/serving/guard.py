"""What every request passes before the service looks at it: size, host and origin.

A body that is too large is refused by its announced length, or as soon as it grows past the limit;
a browser's page from elsewhere cannot write. Every refusal is the
protocol's `{"error": ...}`. Pure ASGI; knows nothing of models.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from distill.production.serving.documents import write_document
from distill.production.serving.refusals import Kind, RefusedError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_READS = ("GET", "HEAD", "OPTIONS")
_LINGER_S = 2.0  # a refused client is listened to so long: else its own sending hides our answer
_BODY = "distill.body"  # where a scope keeps the body that was read


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may do.

    Attributes:
        max_body_bytes: of a request.
        max_held_bytes: of all requests at once.
        max_rows: of a request.
        allowed_hosts: names in `Host` under which writes are taken; `*` takes any.
        guard_reads: whether reads, too, are taken under these names alone.
        allowed_origins: `Origin` of browsers that may write, besides our own pages'.
    """

    max_body_bytes: int = 16 * 2**20
    max_held_bytes: int = 64 * 2**20
    max_rows: int = 10_000
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    allowed_origins: tuple[str, ...] = ()
    guard_reads: bool = False

    def check_host(self, headers: dict[bytes, bytes]) -> str:
        """Refuse what is asked under another name; return the name.

        Raises:
            RefusedError: `Host` is not among those allowed.
        """
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if "*" not in self.allowed_hosts and name not in map(str.lower, self.allowed_hosts):
            raise RefusedError(
                Kind.FORBIDDEN,
                f"Expected `Host` to be one of {', '.join(self.allowed_hosts)} but got "
                f"{host[:60]!r}. Add it to `limits.allowed_hosts` if it is yours.",
                status=403,
            )
        return host

    def check_sender(self, headers: dict[bytes, bytes]) -> None:
        """Refuse writes under another name, and those of a browser's page from elsewhere.

        Raises:
            RefusedError: `Host` or `Origin` is not among those allowed.
        """
        host = self.check_host(headers)
        origin = headers.get(b"origin")
        if origin is not None:
            self._check_origin(origin.decode("latin-1").lower(), host)
        elif headers.get(b"sec-fetch-site") == b"cross-site":
            raise _foreign("a page of another site")

    def _check_origin(self, origin: str, host: str) -> None:
        if origin in map(str.lower, self.allowed_origins):
            return
        try:
            own = urlsplit(origin).netloc == host and bool(host)
        except ValueError:
            own = False
        if not own:
            raise _foreign(origin)


def _foreign(origin: str) -> RefusedError:
    return RefusedError(
        Kind.FORBIDDEN,
        f"Expected a request from a page of this service but it comes from {origin[:60]}. Add it "
        "to `limits.allowed_origins` if it is yours.",
        status=403,
    )


class _Held:
    """How many bytes of one request are in memory."""

    __slots__ = ("num_bytes",)

    def __init__(self) -> None:
        self.num_bytes = 0


def _full() -> RefusedError:
    return RefusedError(
        Kind.OVERLOAD,
        "Expected room for the body but those of other requests fill it. Try again in a second.",
        status=503,
        retry_after_s=1,
    )


def _ending() -> RefusedError:
    return RefusedError(
        Kind.OVERLOAD,
        "Expected to answer before the service ends but there is no time left. Ask again.",
        status=503,
        retry_after_s=1,
    )


class Guard:
    """Stands before an application.

    Args:
        application: that is guarded.
        limits: see there.
        on_refusal: told what is refused here.
    """

    def __init__(
        self, application: Any, limits: Limits, on_refusal: Callable[[RefusedError], None]
    ) -> None:
        self._application, self._limits = application, limits
        self.on_refusal = on_refusal
        self._num_held = 0  # bytes of bodies that were read and are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, read its body, hand it on."""
        if scope["type"] != "http" or scope["method"] in _READS:
            await self._read_on(scope, receive, send)
            return
        held = _Held()
        try:
            headers = dict(scope["headers"])
            self._limits.check_sender(headers)
            body = await self._read(headers, receive, held)
            if body is not None:
                scope[_BODY] = body
                await self._application(scope, _replay(body, receive), send)
        except RefusedError as refusal:  # an application answers its own
            self.on_refusal(refusal)
            await _refuse_and_linger(refusal, receive, send)
        except asyncio.CancelledError:  # the service ends, and waits no longer
            refusal = _ending()
            self.on_refusal(refusal)
            await send_refusal(refusal, send, further=((b"connection", b"close"),))
        finally:
            self._num_held -= held.num_bytes

    async def _read_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._limits.guard_reads:
            try:
                self._limits.check_host(dict(scope["headers"]))
            except RefusedError as refusal:
                self.on_refusal(refusal)
                await send_refusal(refusal, send)
                return
        await self._application(scope, receive, send)

    async def _read(
        self, headers: dict[bytes, bytes], receive: Receive, held: "_Held"
    ) -> bytes | None:
        """Read the whole body; None where the client is gone.

        Raises:
            RefusedError: it is too large, encoded, or one too many.
        """
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > self._limits.max_body_bytes:
            raise self._too_large(f"{int(announced[:20]):,}")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise RefusedError(
                Kind.MALFORMED,
                "Expected a body without `Content-Encoding`: compressed ones are not taken.",
                status=415,
            )
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            part = message.get("body", b"")
            held.num_bytes += len(part)
            self._num_held += len(part)
            if held.num_bytes > self._limits.max_body_bytes:
                raise self._too_large("more")
            if self._num_held > self._limits.max_held_bytes:
                raise _full()
            if not message.get("more_body"):
                return part if not parts else b"".join([*parts, part])
            parts.append(part)

    def _too_large(self, found: str) -> RefusedError:
        return RefusedError(
            Kind.TOO_LARGE,
            f"Expected a body of at most {self._limits.max_body_bytes:,} bytes but got {found}. "
            "Send less at once.",
            status=413,
        )


def body_of(scope: Scope) -> bytes:
    """Take the body that the guard has read."""
    return scope.get(_BODY, b"")


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def error_headers(refusal: RefusedError, length: int) -> list[tuple[bytes, bytes]]:
    """Headers of a refusal's response."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % length)]
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after_s))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


async def send_refusal(
    refusal: RefusedError, send: Send, *, further: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with `{"error": ...}`."""
    body = write_document({"error": refusal.message})
    headers = [*error_headers(refusal, len(body)), *further]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse_and_linger(refusal: RefusedError, receive: Receive, send: Send) -> None:
    """Answer, read on for a moment without keeping it, then close the connection."""
    body = write_document({"error": refusal.message})
    headers = [*error_headers(refusal, len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    try:
        async with asyncio.timeout(_LINGER_S):
            while (message := await receive())["type"] == "http.request":
                if not message.get("more_body"):
                    break
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})
