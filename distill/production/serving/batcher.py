"""Micro-batching: one thread for each model takes what waits, together, within a bound on time.

A request that comes alone is answered at once; those that come while the model is busy go into its
next batch. The queue is bounded, an answer has a deadline, and a batch that fails is asked again
one by one, so that nobody suffers from a neighbour. Knows arrays; knows nothing of HTTP.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.production.serving.refusals import Kind, RefusedError

Feeds = dict[str, NDArray[Any]]
Outputs = list[NDArray[Any]]
Run = Callable[[Feeds], Outputs]


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How requests are put together.

    Attributes:
        max_size: rows in a batch; 1 runs every request alone.
        max_delay_ms: how long a batch waits for more; 0 takes what is there.
        max_waiting: requests in the queue; more are refused at once.
    """

    max_size: int = 32
    max_delay_ms: float = 0.0
    max_waiting: int = 256


class _Item:
    """A request in the queue."""

    __slots__ = ("answer", "deadline", "feeds", "num_rows", "timer")

    def __init__(self, feeds: Feeds, num_rows: int, deadline: float) -> None:
        self.feeds, self.num_rows, self.deadline = feeds, num_rows, deadline
        self.answer: asyncio.Future[Outputs]
        self.timer: asyncio.TimerHandle


Result = tuple[_Item, Outputs | Exception]


class Batcher:
    """The queue of a model and the thread that runs it.

    Args:
        run: the model: feeds to outputs.
        batching: how; of a model that cannot take several requests at once, `max_size` is 1.
        on_batch: told the rows of each batch.
        name: of the thread.
    """

    def __init__(
        self,
        run: Run,
        batching: Batching,
        *,
        on_batch: Callable[[int], None] = lambda rows: None,
        name: str = "model",
    ) -> None:
        self._run, self._batching, self._on_batch = run, batching, on_batch
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._held: _Item | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.waiting = 0  # touched by the event loop alone
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def submit(self, feeds: Feeds, num_rows: int, *, deadline: float) -> Outputs:
        """Wait for the model's answer.

        Args:
            feeds: checked inputs.
            num_rows: that they have.
            deadline: by `time.monotonic`.

        Raises:
            RefusedError: too many wait (503), the deadline passed (504), or the model fails on
                these inputs (422).
        """
        if self.waiting >= self._batching.max_waiting:
            raise RefusedError(
                Kind.OVERLOAD,
                f"Expected at most {self._batching.max_waiting:,} requests to wait but there are "
                "as many: the model cannot follow. Try again in a second.",
                status=503,
                retry_after_s=1,
            )
        loop = self._loop = asyncio.get_running_loop()
        item = _Item(feeds, num_rows, deadline)
        item.answer = loop.create_future()
        item.timer = loop.call_later(deadline - time.monotonic(), self._expire, item)
        self.waiting += 1
        self._queue.put(item)
        try:
            return await item.answer
        finally:
            item.timer.cancel()

    def _expire(self, item: _Item) -> None:
        if not item.answer.done():
            item.answer.set_exception(
                RefusedError(
                    Kind.TIMEOUT,
                    "Expected an answer within the deadline but the model took longer. Try again, "
                    "or give it more time.",
                    status=504,
                )
            )

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        self._queue.put(None)

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; tell whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (batch := self._collect()) is not None:
            results = self._answered(batch)
            loop = self._loop
            assert loop is not None
            try:
                loop.call_soon_threadsafe(self._deliver, results)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _collect(self) -> list[_Item] | None:
        """Take the next batch; None at the end."""
        first = self._held or self._queue.get()
        self._held = None
        if first is None:
            return None
        batch, rows = [first], first.num_rows
        until = time.monotonic() + self._batching.max_delay_ms / 1000
        while rows < self._batching.max_size:
            try:
                wait_s = until - time.monotonic() if self._batching.max_delay_ms else 0.0
                item = self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:  # the end: seen again once this batch is answered
                self._queue.put(None)
                break
            if rows + item.num_rows > self._batching.max_size or not _alike(first, item):
                self._held = item
                break
            batch.append(item)
            rows += item.num_rows
        return batch

    def _answered(self, batch: list[_Item]) -> list[Result]:
        now = time.monotonic()
        alive = [item for item in batch if item.deadline > now and not item.answer.done()]
        late: list[Result] = [(item, []) for item in batch if item not in alive]
        if not alive:
            return late
        self._on_batch(sum(item.num_rows for item in alive))
        if len(alive) > 1:
            try:
                return late + _divided(alive, self._run(_together(alive)))
            except Exception:  # whose fault it is shows one by one
                pass
        return late + [(item, self._alone(item)) for item in alive]

    def _alone(self, item: _Item) -> Outputs | Exception:
        try:
            return self._run(item.feeds)
        except Exception as error:  # onnxruntime has no common base for these
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            refusal = RefusedError(
                Kind.MODEL, f"Expected the model to answer but it fails: {reason}", status=422
            )
            refusal.__cause__ = error
            return refusal

    def _deliver(self, results: Sequence[Result]) -> None:
        self.waiting -= len(results)
        for item, outcome in results:
            if item.answer.done():
                continue
            if isinstance(outcome, Exception):
                item.answer.set_exception(outcome)
            elif outcome:
                item.answer.set_result(outcome)
            else:
                self._expire(item)


def _alike(one: _Item, other: _Item) -> bool:
    return all(
        values.shape[1:] == other.feeds[name].shape[1:] for name, values in one.feeds.items()
    )


def _together(items: Sequence[_Item]) -> Feeds:
    return {name: np.concatenate([item.feeds[name] for item in items]) for name in items[0].feeds}


def _divided(items: Sequence[_Item], outputs: Outputs) -> list[Result]:
    """Give every request its rows.

    Raises:
        ValueError: the model did not answer row by row.
    """
    rows = sum(item.num_rows for item in items)
    if any(len(output) != rows for output in outputs):
        raise ValueError("the outputs have other rows than the inputs")
    results: list[Result] = []
    at = 0
    for item in items:
        end = at + item.num_rows
        results.append((item, [output[at:end] for output in outputs]))
        at = end
    return results
