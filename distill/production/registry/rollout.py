"""What an experiment did, in a model's history: it may make a champion, and bring back the old one.

Needs no server, so that a service can write it: the server's aliases follow at the next command.
Every entry names its experiment, so that what is written, and undone, is looked up and not guessed.
Knows nothing of experiments but their words.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from distill.budget import Outcome
from distill.errors import UserError
from distill.files import HeldError, exclusive
from distill.production.registry.ledger import Entry, Ledger
from distill.production.registry.place import Place, cached, registered
from distill.production.registry.promotion import verdict_finding

_TRIES, _PAUSE_S = 5, 0.2  # while another process changes the registry; we are asked again
_CLOCKS_S = 60.0  # by which two machines may differ

Evidence = Sequence[Mapping[str, Any]]  # the checks, with their figures
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A challenger that became champion by an experiment's log.

    Attributes:
        experiment: which one; no other in any log has the same name.
        version: of the challenger.
        artefact_sha256: of its file.
        former_sha256: of the file of the champion that it was tried against, whichever version that
            is by now.
        since: when, UTC seconds.
        reason: why. Histories from before entries named their experiment know it by that.
    """

    experiment: str
    version: int
    artefact_sha256: str
    former_sha256: str
    since: float
    reason: str


def note(
    place: Place, experiment: str, version: int, steps: Sequence[tuple[str, Evidence]]
) -> list[Entry]:
    """Add the steps of an experiment that changed nobody, as far as they are not there yet.

    Args:
        place: where the model's history is.
        experiment: which one.
        version: of the challenger.
        steps: where it was and why, and on what evidence, in order.

    Returns:
        What was added.

    Raises:
        UserError: another process holds the registry, the version was never registered, or the
            disk is full.
    """

    def lacking(ledger: Ledger) -> list[tuple[str, Evidence]]:
        known = [e for e in ledger.entries if e.action == "rollout"]
        return [one for one in steps if not any(_is_of(e, experiment, one[0]) for e in known)]

    def noted(ledger: Ledger) -> list[Entry]:
        before = len(ledger.entries)
        for reason, evidence in lacking(ledger):
            ledger = _with(ledger, "rollout", version, experiment, reason, evidence)
        return list(ledger.entries[before:])

    return _held(place, noted) if lacking(place.read()) else []


def pending(
    place: Place, promotion: Promotion, evidence: Evidence = (), *, back: str | None = None
) -> Callable[[], Entry | None] | None:
    """Find what the history lacks of who is champion by an experiment's log.

    Args:
        place: where the model's history is.
        promotion: by the log.
        evidence: for it, or for taking it back.
        back: why the champion before is to answer again; None where it is not.

    Returns:
        What writes it; None where nothing is lacking, or somebody has chosen otherwise.

    Raises:
        UserError: the ledger is damaged.
    """
    if back is None:
        is_due, write = _is_to_come, lambda: promote(place, promotion, evidence)
    else:
        is_due, write = _is_to_go, lambda: take_back(place, promotion, back, evidence)
    return write if is_due(place.read(), promotion) else None


def promote(place: Place, promotion: Promotion, evidence: Evidence = ()) -> Entry | None:
    """Make a challenger champion, unless that was done before, or somebody was faster.

    Returns:
        The entry; None where there was nothing to do.

    Raises:
        UserError: another process holds the registry, the version's verdict has not passed, or the
            disk is full.
    """

    def promoted(ledger: Ledger) -> Entry | None:
        if not _is_to_come(ledger, promotion):
            return None
        hindrance = unproven(place, promotion.version)
        if hindrance is not None:
            raise UserError(
                f"Expected a version that an experiment may make champion but of version "
                f"{promotion.version} {hindrance}."
            )
        version, experiment, reason = promotion.version, promotion.experiment, promotion.reason
        after = _with(ledger, "promote", version, experiment, reason, evidence, alias="champion")
        return after.entries[-1]

    return _held(place, promoted) if _is_to_come(place.read(), promotion) else None


def take_back(
    place: Place, promotion: Promotion, reason: str, evidence: Evidence = ()
) -> Entry | None:
    """Bring back the champion before, unless that was done before, or somebody was faster.

    Whoever makes the version champion again knows why.

    Returns:
        The entry; None where there was nothing to do.

    Raises:
        UserError: another process holds the registry, or the disk is full.
    """

    def taken_back(ledger: Ledger) -> Entry | None:
        former = ledger.state.fallback
        if former is None or not _is_to_go(ledger, promotion):
            return None
        experiment = promotion.experiment
        after = _with(ledger, "rollback", former, experiment, reason, evidence, alias="champion")
        return after.entries[-1]

    return _held(place, taken_back) if _is_to_go(place.read(), promotion) else None


def unproven(place: Place, version: int) -> str | None:
    """Say why an experiment may not make a version champion: its verdict; None where it may.

    Requests show whether a challenger is better than the champion, not whether it holds its budget.

    Raises:
        UserError: the version was never registered, or is not whole.
    """
    found = verdict_finding(cached(place, registered(place.read(), version)))
    if found.outcome is Outcome.PASS:
        return None
    return (
        f"{found.note}, and a rollout promotes what has passed alone: `promote to=champion "
        f'version={version} force=true reason="..."` is for a person to say'
    )


def replaced(place: Place, promotion: Promotion) -> Entry | None:
    """Find the entry that put another in the place of a champion, or that somebody chose instead.

    Returns:
        What brought the champion before back, or went back further, else what came first; None
        while the promotion stands, or is about to.

    Raises:
        UserError: the ledger is damaged.
    """
    ledger = place.read()
    changes, own = _changes(ledger, promotion)
    if own is None:
        return changes[-1] if changes and not _is_to_come(ledger, promotion) else None
    later = changes[own + 1 :]
    return next((e for e in later if _is_back(e, promotion)), later[0] if later else None)


def _is_back(entry: Entry, promotion: Promotion) -> bool:
    """Tell whether an entry has undone a promotion, and not only followed it."""
    if entry.artefact_sha256 == promotion.artefact_sha256:
        return False
    return entry.action == "rollback" or entry.artefact_sha256 == promotion.former_sha256


def _is_to_come(ledger: Ledger, promotion: Promotion) -> bool:
    """Tell whether a promotion is not there yet, and is still wanted."""
    changes, own = _changes(ledger, promotion)
    known = ledger.state.registered.get(promotion.version)
    if own is not None or not changes or known is None:
        return False
    if known.artefact_sha256 != promotion.artefact_sha256:
        return False  # the log is about another registry
    if changes[-1].artefact_sha256 != promotion.former_sha256:
        return False
    return _time(changes[-1]) < promotion.since + _CLOCKS_S  # or a person has chosen since


def _is_to_go(ledger: Ledger, promotion: Promotion) -> bool:
    """Tell whether an experiment's own promotion is what made the champion."""
    changes, own = _changes(ledger, promotion)
    return own is not None and own + 1 == len(changes)


def _changes(ledger: Ledger, promotion: Promotion) -> tuple[list[Entry], int | None]:
    """List who became champion; and where in that list the experiment's own promotion is."""
    changes = [entry for entry in ledger.entries if entry.alias == "champion"]
    own = (
        at
        for at, entry in enumerate(changes)
        if entry.action == "promote" and _is_of(entry, promotion.experiment, promotion.reason)
    )
    return changes, next(own, None)


def _is_of(entry: Entry, experiment: str, reason: str) -> bool:
    """Tell whether an entry is an experiment's own, for that reason."""
    return entry.source in (experiment, None) and entry.reason == reason


def _time(entry: Entry) -> float:
    return datetime.fromisoformat(entry.time).timestamp()


def _with(
    ledger: Ledger,
    action: str,
    version: int,
    experiment: str,
    reason: str,
    evidence: Evidence,
    **facts: Any,
) -> Ledger:
    known = registered(ledger, version)
    return ledger.append(
        action,
        version,
        content=known.content,
        artefact=known.artefact,
        artefact_sha256=known.artefact_sha256,
        source=experiment,
        reason=reason,
        evidence=tuple(evidence),
        **facts,
    )


def _held(place: Place, change: Callable[[Ledger], T]) -> T:
    """Change the ledger while nobody else does."""
    path = place.ledger_path
    for left in reversed(range(_TRIES)):
        try:
            with exclusive(
                path.parent / ".lock",
                wanted=f"write the history of `{place.model}`",
                otherwise="Nothing was written.",
            ):
                return change(Ledger.read(path))
        except HeldError:
            if not left:
                raise
            time.sleep(_PAUSE_S)
    raise AssertionError
