"""Which editions are at hand, and how the registry's changes reach them without a dropped request.

One reference is swapped: a request goes on with the edition that it began with, the one before
stays warm, and one that does not load changes nothing but the health report, and is tried again.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from distill.errors import UserError
from distill.files import sha256
from distill.production.registry.ledger import Entry
from distill.production.registry.place import Place, cached
from distill.production.serving.editions import Artefact, Edition, Loading, load
from distill.production.serving.refusals import Kind, RefusedError
from distill.runtime import ModelError

log = logging.getLogger(__name__)

POLL_S = 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # before what did not load is tried again
NUM_WARM = 2  # the one that answers, and the one before
RETIRE_S = 120.0  # longer than any request that began with an edition can still be under way


Name = tuple[int | None, str]  # version in the registry, and hash of the file


class Source(Protocol):
    """Where it is said which artefact is in production."""

    def mark(self) -> Any:
        """Something cheap to read that changes when the artefact may have changed."""
        ...

    def read(self) -> Artefact:
        """The artefact now in production.

        Raises:
            UserError: there is none, or it cannot be had.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """One artefact. A file that was replaced is seen when an operator asks for a reload."""

    artefact: Artefact

    def mark(self) -> Any:
        """It does not change by itself."""
        return None

    def read(self) -> Artefact:
        """The artefact, and what its file holds now."""
        return replace(self.artefact, sha256=sha256(self.artefact.path))


@dataclass(frozen=True, kw_only=True)
class RegistrySource:
    """The champion of a registry, by its ledger; what was fetched once needs no server."""

    place: Place

    def mark(self) -> Any:
        """When and how long the ledger was written."""
        return mark_of(self.place.ledger_path)

    def read(self) -> Artefact:
        """The champion's artefact, whole."""
        return artefact_of(self.place, self.place.champion())


@dataclass(frozen=True, kw_only=True)
class ChallengerSource:
    """The challenger of a registry, likewise."""

    place: Place

    def mark(self) -> Any:
        """When and how long the ledger was written."""
        return mark_of(self.place.ledger_path)

    def read(self) -> Artefact:
        """The challenger's artefact, whole."""
        state = self.place.read().state
        if state.challenger is None:
            raise UserError(
                f"Expected a challenger of `{self.place.model}` but there is none. Run "
                "`promote to=challenger`."
            )
        return artefact_of(self.place, state.registered[state.challenger])


def artefact_of(place: Place, entry: Entry) -> Artefact:
    """Get the artefact of a version, whole.

    Raises:
        UserError: it is gone, or is not what the ledger says.
    """
    package = cached(place, entry)
    return Artefact(
        path=package.artefact_path,
        model=place.model,
        version=entry.version,
        sha256=package.artefact_sha256,
    )


def mark_of(path: Path) -> tuple[int, int, int] | None:
    """Tell versions of a file apart without reading it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@dataclass(kw_only=True)
class Catalogue:
    """The editions at hand. Changed on the event loop alone.

    Attributes:
        source: that says what is in production.
        loading: how models are loaded.
        current: what answers.
        warm: all that can be asked for by version, the current one last.
        problem: why the newest version is not the current one; None where it is.
        on_change: told the edition that answers from now on.
    """

    source: Source
    loading: Loading
    current: Edition
    warm: list[Edition] = field(default_factory=list)
    problem: str | None = None
    on_change: Callable[[Edition], None] = lambda edition: None
    _mark: Any = None
    _pause_s: float = FIRST_PAUSE_S  # after the next failure
    _again_at: float = math.inf  # what did not load is tried again, by `time.monotonic`
    _rejected: Name | None = None  # does not answer, though the source may name it
    _instead: Callable[[], Artefact] | None = None  # does
    _reloading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @staticmethod
    def open(source: Source, loading: Loading) -> "Catalogue":
        """Load what is in production.

        Raises:
            UserError: there is nothing, or it does not load.
        """
        mark = source.mark()  # before it is read: what comes in between is seen by the next look
        edition = load(source.read(), loading)
        return Catalogue(
            source=source, loading=loading, current=edition, warm=[edition], _mark=mark
        )

    def find(self, model: str, version: str | None = None) -> Edition:
        """Find what a request asks for.

        Raises:
            RefusedError: there is no such model, or it has no such version at hand.
        """
        current = self.current
        if model != current.model:
            raise RefusedError(
                Kind.UNKNOWN,
                f"Expected the model `{current.model}` but got `{model[:60]}`.",
                status=404,
            )
        if version is None or version == current.label:
            return current
        for edition in self.warm:
            if edition.label == version and version:
                return edition
        known = ", ".join(edition.label for edition in self.warm if edition.label) or "none"
        raise RefusedError(
            Kind.UNKNOWN,
            f"Expected a version of `{model}` that is at hand but got `{version[:20]}`. At hand: "
            f"{known}.",
            status=404,
        )

    async def watch(self) -> None:
        """Follow the source until cancelled.

        What did not load is tried again after a pause that grows: it may have been for want of
        memory or files, and the source need not change any more.
        """
        while True:
            await asyncio.sleep(POLL_S)
            if time.monotonic() >= self._again_at or self.source.mark() != self._mark:
                await self.reload()

    async def reload(self) -> bool:
        """Load what is in production now, if it is another; tell whether it answers from now on."""
        async with self._reloading:
            try:
                edition = await self._newest()
            except (UserError, ModelError, OSError) as error:
                self._failed(str(error))
                log.error("%s goes on answering: %s", self.current, error)
                return False
            except Exception as error:  # whatever a file does, the old edition answers
                self._failed(f"The new version does not load: {error}")
                log.exception("%s goes on answering.", self.current)
                return False
            self.problem = self._held_back(edition) if self._instead else None
            self._pause_s, self._again_at = FIRST_PAUSE_S, math.inf
            return self._swap(edition)

    async def _newest(self) -> Edition:
        """Get what the source names once it is loaded, and not what it named before."""
        edition: Edition | None = None
        try:
            while True:
                mark = self.source.mark()
                if mark != self._mark:  # perhaps another one, which has failed at nothing yet
                    self._mark, self._pause_s = mark, FIRST_PAUSE_S
                artefact = await asyncio.to_thread(self.source.read)
                if self._instead and (artefact.version, artefact.sha256) == self._rejected:
                    artefact = await asyncio.to_thread(self._instead)
                else:
                    self.release()
                if edition is None or not _is_of(edition, artefact.version, artefact.sha256):
                    self._let_go(edition)
                    edition = self._at_hand(artefact.version, artefact.sha256)
                if edition is None:
                    edition = await asyncio.to_thread(load, artefact, self.loading)
                if self.source.mark() == mark:
                    return edition
        except BaseException:
            self._let_go(edition)
            raise

    def _let_go(self, edition: Edition | None) -> None:
        """End an edition that was loaded and does not answer."""
        if edition is not None and all(edition is not one for one in self.warm):
            edition.batcher.close()

    def _held_back(self, instead: Edition) -> str:
        version, artefact_sha256 = self._rejected or (None, "")
        return (
            f"{instead.model} version {version} ({artefact_sha256[:8]}) has done harm and answers "
            f"nobody, though the registry still names it: {instead} answers until that is written."
        )

    def _failed(self, problem: str) -> None:
        self.problem, self._again_at = problem, time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    async def keep_warm(self, artefact: Artefact | None) -> None:
        """Load an edition that does not answer now, so that it can at once; if there is room.

        Raises:
            UserError: it cannot be loaded.
            ModelError: it is no ONNX file.
        """
        async with self._reloading:
            if artefact is None or len(self.warm) == NUM_WARM:
                return
            if self._at_hand(artefact.version, artefact.sha256) is None:
                self.warm.insert(0, await asyncio.to_thread(load, artefact, self.loading))

    async def bring_back(
        self, former: Name, rejected: Name, instead: Callable[[], Artefact]
    ) -> None:
        """Let another answer from now on, also while the source names one that does harm.

        That holds until the source names a third, or `release`; repeated it does nothing.

        Args:
            former: who answers.
            rejected: who does not.
            instead: gets the former's artefact, where it is not at hand.
        """
        if rejected == self._rejected:
            return
        self._rejected, self._instead = rejected, instead
        edition = self._at_hand(*former)
        if edition is not None:
            self.problem = self._held_back(edition)
            self._swap(edition)
        else:
            await self.reload()

    def release(self) -> bool:
        """Let the source alone say who answers; tell whether somebody was rejected till now."""
        was, self._rejected, self._instead = self._rejected, None, None
        return was is not None

    def _at_hand(self, version: int | None, artefact_sha256: str | None) -> Edition | None:
        return next((e for e in self.warm if _is_of(e, version, artefact_sha256)), None)

    def _swap(self, edition: Edition) -> bool:
        if edition is self.current:
            return False
        if (edition.version, edition.artefact_sha256) == self._rejected:  # since it was read
            self._let_go(edition)
            return False
        before, self.current = self.current, edition
        self.warm = [*(e for e in self.warm if e is not edition), edition]
        for old in self.warm[:-NUM_WARM]:
            asyncio.get_running_loop().call_later(RETIRE_S, old.batcher.close)
        self.warm = self.warm[-NUM_WARM:]
        log.info("%s answers now, after %s.", edition, before)
        self.on_change(edition)
        return True

    def close(self) -> None:
        """Let every edition answer what waits, and end."""
        for edition in self.warm:
            edition.batcher.close()


def _is_of(edition: Edition, version: int | None, artefact_sha256: str | None) -> bool:
    return (edition.version, edition.artefact_sha256) == (version, artefact_sha256)
