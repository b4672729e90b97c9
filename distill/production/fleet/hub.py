"""The middle of several processes: keeps what each said last, and hands it to the others."""

import threading

from distill.production.serving.peers import Notices, Snapshot

NUM_ENDED = 1000  # processes whose last words are kept


class Hub:
    """Heard and asked from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[tuple[str, int], Snapshot] = {}
        self._calls: dict[tuple[str, int], int] = {}

    def exchange(self, own: Snapshot, num_calls: int) -> Notices:
        """Keep a snapshot, and how often its process has called; hand out the rest."""
        key = (own["process"], own["pid"])
        with self._lock:
            self._said.pop(key, None)
            self._said[key] = own  # the latest come last
            self._calls[key] = num_calls
            while len(self._said) > NUM_ENDED:
                self._said.pop(next(iter(self._said)))
            others = tuple(said for other, said in self._said.items() if other != key)
            return Notices(others=others, num_calls=sum(self._calls.values()))

    def said(self) -> list[Snapshot]:
        """What all said last, also those that have ended."""
        with self._lock:
            return list(self._said.values())
