"""Threads for what would hold up the event loop: a few, with a bounded queue before them.

Knows nothing of what is done in them.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from distill.production.serving.refusals import Kind, RefusedError

Result = TypeVar("Result")


class Pool:
    """A few threads.

    Args:
        what: is done in them.
        num_threads: how many.
        max_waiting: jobs at once; more are refused.
    """

    def __init__(self, what: str, *, num_threads: int, max_waiting: int) -> None:
        self._what, self._max_waiting = what, max_waiting
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=what)
        self._num_jobs = 0  # touched by the event loop alone

    async def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Do something in a thread.

        Raises:
            RefusedError: too many wait.
        """
        if self._num_jobs >= self._max_waiting:
            raise RefusedError(
                Kind.OVERLOAD,
                f"Expected at most {self._max_waiting} requests to wait for {self._what}. Try "
                "again in a second.",
                status=503,
                retry_after_s=1,
            )
        self._num_jobs += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, work, *arguments)
        finally:
            self._num_jobs -= 1

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
