"""What the processes of one service know of each other.

Each says every second how it fares and hears what the others said. How that travels is a `Board`'s
matter. Knows neither models nor HTTP.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

log = logging.getLogger(__name__)

Snapshot = dict[str, Any]  # of a process, as JSON; see `overview`
EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Notices:
    """What hangs at the board.

    Attributes:
        others: the last snapshot of every other process, also of those that have ended.
        num_calls: how often somebody called all to look at the registry.
    """

    others: tuple[Snapshot, ...] = ()
    num_calls: int = 0


class Board(Protocol):
    """Where processes tell each other."""

    async def exchange(self, own: Snapshot, num_calls: int) -> Notices:
        """Hang up a snapshot, and how often this process has called; read the rest."""
        ...


@dataclass(kw_only=True)
class Peers:
    """The other processes of a service; none without a board.

    Attributes:
        name: of this process among them; empty where it is alone.
        board: where they tell each other.
    """

    name: str = ""
    board: Board | None = None
    _notices: Notices = field(default_factory=Notices)
    _num_calls: int = 0

    @property
    def others(self) -> tuple[Snapshot, ...]:
        """What the others said last."""
        return self._notices.others

    def call(self) -> None:
        """Call all to look at the registry; they do within two seconds."""
        self._num_calls += 1

    async def tell(self, own: Snapshot) -> bool:
        """Exchange once; tell whether somebody has called since the last time."""
        if self.board is None:
            return False
        before, self._notices = self._notices, await self.board.exchange(own, self._num_calls)
        return self._notices.num_calls > before.num_calls

    async def keep(
        self, snapshot: Callable[[], Snapshot], on_call: Callable[[], Awaitable[Any]]
    ) -> None:
        """Exchange until cancelled."""
        while self.board is not None:
            try:
                if await self.tell(snapshot()):
                    await on_call()
            except Exception as error:  # whatever becomes of the board, requests are answered
                log.warning("The other processes cannot be heard: %s", error)
            await asyncio.sleep(EVERY_S)
