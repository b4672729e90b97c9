"""Workers: processes that accept from one socket, watched by the one that started them.

One that ends or hangs is replaced, and when the watcher is gone they end in order. Knows nothing of
what they serve.
"""

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from distill.errors import UserError
from distill.files import from_json, to_json
from distill.production.fleet.hub import Hub
from distill.production.serving.peers import Notices, Snapshot

log = logging.getLogger(__name__)

LOOK_S = 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 30.0  # between an end and the next start

Target = Callable[[str, Connection], None]


class Line:
    """A worker's connection with its watcher: a `Board`, and where it reports.

    Args:
        end: of the connection.
    """

    def __init__(self, end: Connection) -> None:
        self._end, self._lock = end, threading.Lock()

    def ready(self, model: str) -> None:
        """Report that requests are answered, and by which model."""
        self._end.send_bytes(json.dumps({"ready": model}).encode())

    def failed(self, error: Exception) -> None:
        """Report why they are not and never will be."""
        self._end.send_bytes(json.dumps({"failed": str(error)}).encode())

    async def exchange(self, own: Snapshot, num_calls: int) -> Notices:
        """See `Board`."""
        return await asyncio.to_thread(self._exchange, own, num_calls)

    def _exchange(self, own: Snapshot, num_calls: int) -> Notices:
        with self._lock:
            self._end.send_bytes(json.dumps({"own": own, "num_calls": num_calls}).encode())
            return from_json(Notices, json.loads(self._end.recv_bytes()), where="notices")


def end_with_parent() -> None:
    """Send this process a SIGTERM when the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


@dataclass(kw_only=True)
class _Worker:
    """A place, and the process in it.

    Attributes:
        name: of the place.
        process: now in it.
        started, heard: moments, by `time.monotonic`.
        is_ready: whether it answers requests.
        failure: why it never will.
        pause_s: before the next one is started.
        wait_until: when that is.
    """

    name: str
    process: SpawnProcess | None = None
    started: float = 0.0
    heard: float = 0.0
    is_ready: bool = False
    failure: str | None = None
    pause_s: float = FIRST_PAUSE_S
    wait_until: float = 0.0


@dataclass(kw_only=True)
class Workers:
    """Several processes, until SIGINT or SIGTERM.

    Attributes:
        target: what each does, given its name and its end of a line; goes to a new interpreter.
        num: of them.
        shutdown_s: for requests under way at the end.
        hang_s: without a word from one that was ready, after which it is replaced.
        hub: what they said.
        num_restarts: how many were replaced.
        model: that answers, as the last one to start has said.
    """

    target: Target
    num: int
    shutdown_s: float
    hang_s: float = 30.0
    hub: Hub = field(default_factory=Hub)
    num_restarts: int = 0
    model: str = ""
    _places: list[_Worker] = field(default_factory=list)
    _is_up: bool = False
    _is_ending: bool = False

    def run(self, on_start: Callable[[], None]) -> None:
        """Start, watch, and end all.

        Args:
            on_start: called once all answer.

        Raises:
            UserError: one does not start, by what it says.
        """
        before = {n: signal.signal(n, self._end) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._places = [_Worker(name=f"worker-{at + 1}") for at in range(self.num)]
            for place in self._places:
                self._start(place)
            while not self._is_ending:
                time.sleep(LOOK_S if self._is_up else LOOK_S / 10)
                for place in self._places:
                    self._look(place)
                if not self._is_up and all(place.is_ready for place in self._places):
                    self._is_up = True
                    on_start()
        finally:
            self._stop_all()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, *_: Any) -> None:
        self._is_ending = True

    def _start(self, place: _Worker) -> None:
        ours, theirs = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        process = spawn.Process(target=self.target, args=(place.name, theirs), name=place.name)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is ours
        process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.close()
        place.process, place.is_ready = process, False
        place.started = place.heard = time.monotonic()
        threading.Thread(target=self._hear, args=(place, ours), daemon=True).start()

    def _hear(self, place: _Worker, line: Connection) -> None:
        with line, contextlib.suppress(EOFError, OSError):  # it has ended
            while True:
                said = json.loads(line.recv_bytes())
                place.heard = time.monotonic()
                if "failed" in said:
                    place.failure = said["failed"]
                elif "ready" in said:
                    place.is_ready, self.model = True, said["ready"]
                else:
                    notices = self.hub.exchange(said["own"], said["num_calls"])
                    line.send_bytes(json.dumps(to_json(notices)).encode())

    def _look(self, place: _Worker) -> None:
        now = time.monotonic()
        if place.failure is not None and not self._is_up:
            raise UserError(place.failure)
        if place.process is None:
            if now >= place.wait_until:
                self._start(place)
            return
        if place.is_ready and now - place.heard > self.hang_s:
            log.error("%s has not moved for %.0f s and is ended.", place.name, now - place.heard)
            place.process.kill()
        if not place.process.is_alive() and not self._is_ending:
            self._ended(place, now)

    def _ended(self, place: _Worker, now: float) -> None:
        assert place.process is not None
        if not self._is_up:
            raise UserError(
                f"Expected {place.name} to start but it ended with exit status "
                f"{place.process.exitcode}. What it wrote says why."
            )
        if now - place.started > LONGEST_PAUSE_S:
            place.pause_s = FIRST_PAUSE_S
        why = place.failure or f"exit status {place.process.exitcode}"
        log.error("%s ended (%s); another one is started.", place.name, why)
        place.process.close()
        place.process, place.failure = None, None
        place.wait_until = now + place.pause_s
        place.pause_s = min(2 * place.pause_s, LONGEST_PAUSE_S)
        self.num_restarts += 1

    def _stop_all(self) -> None:
        running = [place.process for place in self._places if place.process is not None]
        for process in running:
            process.terminate()
        until = time.monotonic() + self.shutdown_s
        for process in running:
            process.join(max(until - time.monotonic(), 0))
            if process.exitcode is None:
                log.error("%s does not end and is killed.", process.name)
                process.kill()
                process.join()
