"""The ledger of one model: who was in production when, why, and on what evidence.

A file of JSON lines, only ever appended to; each line carries the hash of the one before, so that
an edit shows, and a truncation against a head that was kept elsewhere. What stands in it is so;
aliases elsewhere follow. Knows nothing of MLflow, of files of versions, or of rules.
"""

import dataclasses
import errno
import functools
import getpass
import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill import __version__
from distill.errors import UserError
from distill.files import canonical_json, from_json, sha256_json, to_json

IS_HASH = re.compile(r"[0-9a-f]{64}")
GENESIS = "0" * 64  # what the first entry follows


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that was done.

    Attributes:
        number: from 1.
        time: UTC, ISO 8601.
        action: register, promote, rollback, or rollout: a step of an experiment.
        alias: what a promotion made of the version: champion or challenger.
        version: of the model, as numbered by the store.
        content: hash of all that the version holds.
        artefact: file name of what ships.
        artefact_sha256: its hash.
        previous_champion: who was in production until then.
        evidence: the checks, with their figures.
        forced: whether checks that did not pass were set aside.
        reason: why, in the words of whoever did it.
        source: the run folder that a version came from; of what an experiment did, which one.
        who: user@host.
        hash: of all the rest.
    """

    number: int
    time: str
    action: str
    alias: str | None = None
    version: int
    content: str
    artefact: str
    artefact_sha256: str
    previous_champion: int | None = None
    evidence: tuple[Mapping[str, Any], ...] = ()
    forced: bool = False
    reason: str | None = None
    source: str | None = None
    who: str
    distill: str
    previous_hash: str
    hash: str = ""

    def sealed(self) -> "Entry":
        """Fill in the hash."""
        return dataclasses.replace(self, hash=_sealed(to_json(self)))

    @property
    def line(self) -> str:
        """The entry as it stands in the file."""
        return canonical_json(self) + "\n"


@dataclass(frozen=True, kw_only=True)
class State:
    """What the entries so far amount to.

    Attributes:
        registered: version number to the entry that registered it.
        champions: those in production, one after another; a rollback takes the last ones off.
        challenger: the version that is to be tried against the champion.
    """

    registered: Mapping[int, Entry] = field(default_factory=dict)
    champions: tuple[int, ...] = ()
    challenger: int | None = None

    @property
    def champion(self) -> int | None:
        """The version in production."""
        return self.champions[-1] if self.champions else None

    @property
    def fallback(self) -> int | None:
        """The version that a rollback would bring back."""
        return self.champions[-2] if len(self.champions) > 1 else None

    @property
    def aliases(self) -> dict[str, int]:
        """Alias to version, of those that are set."""
        named = {
            "champion": self.champion,
            "challenger": self.challenger,
            "fallback": self.fallback,
        }
        return {alias: version for alias, version in named.items() if version is not None}

    def after(self, entry: Entry) -> "State":
        """Apply one more entry.

        Raises:
            ValueError: it cannot have followed.
        """
        version = entry.version
        if entry.action == "register":
            return dataclasses.replace(self, registered={**self.registered, version: entry})
        if version not in self.registered:
            raise ValueError(f"version {version} was never registered")
        if entry.action == "rollout":
            return self
        if entry.action == "rollback":
            if version not in self.champions[:-1]:
                raise ValueError(f"version {version} was not champion before")
            below = len(self.champions) - 1 - self.champions[-2::-1].index(version)
            return dataclasses.replace(self, champions=self.champions[:below])
        if entry.alias == "challenger":
            return dataclasses.replace(self, challenger=version)
        challenger = None if self.challenger == version else self.challenger
        return dataclasses.replace(
            self, champions=(*self.champions, version), challenger=challenger
        )


@dataclass(frozen=True, kw_only=True)
class Head:
    """The last entry, as one keeps it elsewhere to notice a truncation."""

    number: int
    hash: str

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return f"{self.number}:{self.hash}"

    @staticmethod
    def parse(text: str) -> "Head":
        """Read `<number>:<hash>`.

        Raises:
            UserError: it is something else.
        """
        number, _, digest = text.partition(":")
        if not number.isdigit() or len(digest) != len(GENESIS):
            raise UserError(
                f"Expected an anchor `<number>:<hash>` as `promote history` prints it but got "
                f"{text!r}."
            )
        return Head(number=int(number), hash=digest)


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The entries of one file and what they amount to.

    Attributes:
        path: of the file.
        entries: all of them, in order.
        num_bytes: that they take; what follows was torn by a kill and never happened.
    """

    path: Path
    entries: tuple[Entry, ...] = ()
    num_bytes: int = 0

    @staticmethod
    def read(path: Path) -> "Ledger":
        """Read and verify a ledger; without a file it is empty. Takes milliseconds.

        Raises:
            UserError: an entry was edited, removed or moved; the message names it.
        """
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]  # an append is one write that ends in a newline
        entries: list[Entry] = []
        state = State()
        for line in whole.split(b"\n")[:-1]:
            entry = _verified(path, line, entries)
            try:
                state = state.after(entry)
            except ValueError as error:
                raise _damaged(path, entry.number, str(error)) from error
            entries.append(entry)
        return Ledger(path=path, entries=tuple(entries), num_bytes=len(whole))

    @functools.cached_property
    def state(self) -> State:
        """What all entries amount to."""
        return functools.reduce(State.after, self.entries, State())

    @property
    def head(self) -> Head:
        """The last entry's number and hash."""
        if not self.entries:
            return Head(number=0, hash=GENESIS)
        return Head(number=self.entries[-1].number, hash=self.entries[-1].hash)

    def check_anchor(self, anchor: Head, where: str) -> None:
        """Hold the ledger against a head that was kept elsewhere.

        Raises:
            UserError: the ledger ends before it, or has another entry in its place.
        """
        if anchor.number > len(self.entries):
            raise UserError(
                f"Expected {self.path} to reach entry {anchor.number}, which {where} has seen, but "
                f"it ends at entry {len(self.entries)}: it was truncated, or it is another one. "
                "Put the whole ledger back, or point `registry.folder=` to where it is."
            )
        known = self.entries[anchor.number - 1].hash if anchor.number else GENESIS
        if known != anchor.hash:
            raise UserError(
                f"Expected entry {anchor.number} of {self.path} to be the one that {where} has "
                "seen but it is another: the ledger was rewritten. Put the true one back."
            )

    def append(self, action: str, version: int, **facts: Any) -> "Ledger":
        """Write one more entry, and let it reach the disk: then it has happened.

        The caller holds the lock. What a kill tore off the end before is overwritten.

        Args:
            action: see `Entry`.
            version: of the model.
            facts: further fields of `Entry`.

        Raises:
            UserError: the disk is full, or a version would be registered under the number of
                another; nothing has happened.
        """
        known = self.state.registered.get(version)
        if action == "register" and known is not None and known.content != facts["content"]:
            raise UserError(
                f"Expected a number that no version has but {version} is {known.content[:12]} in "
                f"{self.path} since entry {known.number}, and not {facts['content'][:12]}. Look at "
                "`promote history`, and whether `registry.folder=` and `registry.tracking_uri=` "
                "belong together."
            )
        entry = Entry(
            number=len(self.entries) + 1,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            action=action,
            version=version,
            previous_champion=self.state.champion,
            who=_who(),
            distill=__version__,
            previous_hash=self.head.hash,
            **facts,
        ).sealed()
        _ = self.state.after(entry)
        data = entry.line.encode()
        _write_at(self.path, self.num_bytes, data)
        return Ledger(
            path=self.path,
            entries=(*self.entries, entry),
            num_bytes=self.num_bytes + len(data),
        )


def _write_at(path: Path, start: int, data: bytes) -> None:
    fresh = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.ftruncate(descriptor, start)
        try:
            written = os.pwrite(descriptor, data, start)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, start)
            raise UserError(
                f"Expected room to append to {path} but found: {error.strerror}. Nothing has "
                "happened; free some space and start again."
            ) from error
    finally:
        os.close(descriptor)
    if fresh:  # the name must reach the disk, too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _verified(path: Path, line: bytes, before: list[Entry]) -> Entry:
    number = len(before) + 1
    try:
        values = json.loads(line)
        entry = from_json(Entry, values)
    except (ValueError, UserError) as error:
        raise _damaged(path, number, "it is no entry") from error
    # There is one way to write an entry, so that no byte can change and the values stay.
    if canonical_json(values).encode() != line or _sealed(values) != entry.hash:
        raise _damaged(path, number, "it was edited: its hash does not fit what it says")
    if not all(map(IS_HASH.fullmatch, (entry.content, entry.artefact_sha256))):
        raise _damaged(path, number, "what it names as the hash of its content is none")
    if entry.number != number or entry.previous_hash != (before[-1].hash if before else GENESIS):
        raise _damaged(path, number, "it does not follow the one before: entries were removed")
    return entry


def _damaged(path: Path, number: int, what: str) -> UserError:
    return UserError(
        f"Expected {path} to be as it was written but entry {number} is damaged: {what}. Put the "
        "true file back; nothing is promoted until then."
    )


def _sealed(values: Mapping[str, Any]) -> str:
    """Hash all that an entry says but its own hash."""
    return sha256_json({name: value for name, value in values.items() if name != "hash"})


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
