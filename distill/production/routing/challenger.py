"""A model in a process of its own, which may fail in every way without the service noticing.

Whatever it does (raise, answer nonsense, hang, stop, crash, eat memory), whoever asked hears of it
within the deadline, the process is ended if it must be, and a new one is started. Knows nothing of
champions, of experiments or of the log.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.production.routing.frames import PREFIX_BYTES, Prefix, pack, unpack

log = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[Any]]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 30.0  # between a death and the next start
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ChallengerError(Exception):
    """No answer from the challenger, and why.

    Attributes:
        kind: error, timeout, crash or busy.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a challenger may take.

    Attributes:
        num_threads: of its operators.
        niceness: how far it stands back for others, 0 to 19.
        max_in_flight: requests that it is asked at once; more are refused.
        max_in_flight_bytes: likewise, of their inputs; one alone may have more.
        max_shadows_per_second: requests that it is asked as a shadow; None asks it all. The
            service packs, sends and logs each beside the champion's own requests.
        hang_seconds: without any answer while it is asked, after which it is ended.
        start_seconds: in which it must be ready.
        max_rss_bytes: of memory, above which it is ended.
    """

    num_threads: int = 1
    niceness: int = 0
    max_in_flight: int = 64
    max_in_flight_bytes: int = 64 << 20
    max_shadows_per_second: float | None = None
    hang_seconds: float = 2.0
    start_seconds: float = 60.0
    max_rss_bytes: int = 2 << 30


@dataclass(frozen=True)
class _Waiting:
    """Who waits for an answer, or has given up on one that is not there yet."""

    answer: asyncio.Future[Arrays]
    num_bytes: int  # of what was asked


class Challenger:
    """A model that is asked through a socket; use `start` and `stop`.

    Args:
        path: of the ONNX file.
        limits: what it may take.
    """

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self.path, self.limits = path, limits or Limits()
        self.num_starts = 0
        self.last_error: str | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._number = 0
        self._writer: asyncio.StreamWriter | None = None
        self._pid: int | None = None
        self._heard = 0.0
        self._cause: str | None = None  # of the death that the watch is about to bring
        self._keeper: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked now."""
        return self._writer is not None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._pid

    async def start(self) -> None:
        """Start the process, and start it anew whenever it ends; does not wait for it."""
        self._keeper = asyncio.create_task(self._keep())

    async def ready(self, seconds: float) -> bool:
        """Wait until it can be asked."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), seconds)
        return self.is_ready

    async def finish(self, seconds: float) -> None:
        """End the process once it has answered what it was asked, or after some seconds."""
        waiting = [one.answer for one in self._waiting.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds)
        await self.stop()

    async def stop(self) -> None:
        """End the process."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None

    async def ask(self, feeds: Arrays, seconds: float) -> Arrays:
        """Get the outputs of one request.

        Args:
            feeds: by name.
            seconds: to wait at most.

        Returns:
            Outputs by name, all finite.

        Raises:
            ChallengerError: there are none, or none that can be used.
        """
        if self._writer is None:
            raise ChallengerError("crash", self.last_error or "it is not running")
        if len(self._waiting) >= self.limits.max_in_flight:
            raise ChallengerError("busy", f"it has not answered {len(self._waiting)} others yet")
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._heard = loop.time()
        self._number = number = self._number + 1
        answer: asyncio.Future[Arrays] = loop.create_future()
        frame = pack(number, {}, feeds)
        held = sum(other.num_bytes for other in self._waiting.values())
        if self._waiting and held + len(frame) > self.limits.max_in_flight_bytes:
            raise ChallengerError("busy", f"it has not answered others of {held:,} bytes yet")
        self._waiting[number] = _Waiting(answer, len(frame))
        try:
            self._writer.write(frame)
            async with asyncio.timeout(seconds):
                outputs = await answer
        except TimeoutError:
            raise ChallengerError("timeout", f"no answer within {seconds * 1e3:.0f} ms") from None
        finally:
            # One that is late counts as in flight until it is heard of, or a stopped process would
            # be written to without end.
            if answer.done() and not answer.cancelled():
                self._waiting.pop(number, None)
        if not all(np.isfinite(v).all() for v in outputs.values() if v.dtype.kind == "f"):
            raise ChallengerError("error", "it answers with numbers that are not finite")
        return outputs

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await self._live()
            except (OSError, ValueError, TimeoutError, EOFError) as error:
                self.last_error = str(error) or "it ended"
            if asyncio.get_running_loop().time() - started > _LONGEST_PAUSE_S:
                pause = _FIRST_PAUSE_S
            log.warning("The challenger %s ended: %s.", self.path, self.last_error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _live(self) -> None:
        """Start one process and hear it until it ends."""
        ours, theirs = socket.socketpair()
        limits = self.limits
        arguments = (theirs.fileno(), self.path, limits.num_threads, limits.niceness)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "distill.production.routing.challenger_process"),
                    *map(str, arguments),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # an interrupt at the terminal is the service's
                )
            await self._hear(process, ours)
        finally:
            ours.close()

    async def _hear(self, process: asyncio.subprocess.Process, ours: socket.socket) -> None:
        self._pid, self.num_starts, self._cause = process.pid, self.num_starts + 1, None
        async with contextlib.AsyncExitStack() as ending:
            ending.push_async_callback(process.wait)
            ending.callback(self._ended, process)
            reader, writer = await asyncio.open_connection(sock=ours.dup())
            ending.callback(writer.close)
            try:
                async with asyncio.timeout(self.limits.start_seconds):
                    _, (facts, _) = await _received(reader)
                if "error" in facts:
                    raise ValueError(facts["error"])
                self._writer = writer
                self._ready.set()
                watch = asyncio.create_task(self._watch(process.pid))
                ending.callback(watch.cancel)
                while True:
                    self._answered(*await _received(reader))
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise EOFError(self._cause or "it crashed") from error

    def _ended(self, process: asyncio.subprocess.Process) -> None:
        """Leave nothing of a process, and tell all who wait that there will be no answer."""
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        self._ready.clear()
        self._pid, self._writer = None, None
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            if not one.answer.done():
                one.answer.set_exception(ChallengerError("crash", "it ended before it answered"))

    def _answered(self, number: int, frame: tuple[dict[str, Any], Arrays]) -> None:
        self._heard = asyncio.get_running_loop().time()
        waiting, (facts, outputs) = self._waiting.pop(number, None), frame
        if waiting is None or waiting.answer.done():
            return
        answer = waiting.answer
        if "error" in facts:
            answer.set_exception(ChallengerError("error", facts["error"]))
        else:
            answer.set_result(outputs)

    async def _watch(self, pid: int) -> None:
        """End a process that does not answer, or takes too much memory."""
        while True:
            await asyncio.sleep(0.1)
            silent = asyncio.get_running_loop().time() - self._heard
            if self._waiting and silent > self.limits.hang_seconds:
                self._cause = f"it did not answer for {silent:.1f} s"
            elif _rss_bytes(pid) > self.limits.max_rss_bytes:
                self._cause = f"it took more than {self.limits.max_rss_bytes:,} bytes of memory"
            else:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return


async def _received(
    reader: asyncio.StreamReader,
) -> tuple[int, tuple[dict[str, Any], Arrays]]:
    prefix = Prefix.parse(await reader.readexactly(PREFIX_BYTES))
    header = await reader.readexactly(prefix.header_bytes)
    return prefix.number, unpack(header, await reader.readexactly(prefix.body_bytes))


def _rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):  # it has just ended, or this system has no /proc
        return 0
