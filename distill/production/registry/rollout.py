"""What an experiment did, in a model's history: it may make a champion, and bring back the old one.

Needs no server, so that a service can write it: the server's aliases follow at the next command.
Knows nothing of experiments but their words.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from distill.budget import Outcome
from distill.files import HeldError, exclusive
from distill.production.registry.ledger import Entry, Ledger
from distill.production.registry.place import Place, cached, registered
from distill.production.registry.promotion import verdict_finding

_TRIES, _PAUSE_S = 5, 0.2  # while another process changes the registry; we are asked again
_CLOCKS_S = 60.0  # by which two machines may differ
_WRITTEN_S = 1.0  # by which a time may be off that this machine wrote


def note(
    place: Place, version: int, reason: str, evidence: Sequence[Mapping[str, Any]] = ()
) -> Entry:
    """Add an entry that changes nobody.

    Args:
        place: where the model's history is.
        version: of the challenger.
        reason: where it is now, and why.
        evidence: the checks, with their figures.

    Raises:
        UserError: another process holds the registry, the version was never registered, or the
            disk is full.
    """
    known = registered(place.read(), version)

    def noted(ledger: Ledger) -> Ledger:
        return ledger.append(
            "rollout", version, reason=reason, evidence=tuple(evidence), **_of(known)
        )

    return _held(place, noted).entries[-1]


def promote(
    place: Place,
    version: int,
    former: int,
    reason: str,
    evidence: Sequence[Mapping[str, Any]] = (),
    *,
    since: float | None = None,
) -> Entry | None:
    """Make a challenger champion, unless that was done before, or somebody was faster.

    Args:
        place: where the model's history is.
        version: of the challenger.
        former: the champion that it was tried against.
        reason: why.
        evidence: the checks, with their figures.
        since: when that was decided, UTC seconds: a promotion since then is this one. None takes
            it for a new one.

    Returns:
        The entry; None where there was nothing to do.

    Raises:
        UserError: another process holds the registry, the version was never registered, or the
            disk is full.
    """
    asked = math.inf if since is None else since
    return _added(
        place,
        lambda ledger: _is_to_come(ledger, version, former, asked),
        "promote",
        version,
        reason=reason,
        evidence=tuple(evidence),
    )


def take_back(
    place: Place,
    version: int,
    former: int,
    reason: str,
    evidence: Sequence[Mapping[str, Any]] = (),
    *,
    since: float | None = None,
) -> Entry | None:
    """Bring back the champion before, unless that was done before, or somebody was faster.

    Args:
        place: where the model's history is.
        version: that is not to be champion any more.
        former: that was champion before it.
        reason: why.
        evidence: the checks, with their figures.
        since: when it was decided that the version becomes champion, UTC seconds: who makes it
            champion again after that promotion was taken back knows why. None takes the last one.

    Returns:
        The entry; None where there was nothing to do.

    Raises:
        UserError: another process holds the registry, or the disk is full.
    """
    return _added(
        place,
        lambda ledger: _is_to_go(ledger, version, former, since),
        "rollback",
        former,
        reason=reason,
        evidence=tuple(evidence),
    )


def is_behind(place: Place, version: int, former: int, since: float, *, is_back: bool) -> bool:
    """Tell whether the history has yet to follow what an experiment has decided.

    Args:
        place: where the model's history is.
        version: of the challenger.
        former: the champion that it was tried against.
        since: when it was decided that the challenger becomes champion, UTC seconds.
        is_back: whether the champion before is to answer again.

    Raises:
        UserError: the ledger is damaged.
    """
    ledger = place.read()
    if is_back:
        return _is_to_go(ledger, version, former, since)
    return _is_to_come(ledger, version, former, since)


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


def replaced(
    place: Place, version: int, since: float, *, former: int | None = None
) -> Entry | None:
    """Find the entry that put another in the place of a champion.

    Args:
        place: where the model's history is.
        version: that was made champion.
        since: when, UTC seconds.
        former: the champion that it was tried against; None where that is not known.

    Returns:
        A rollback or a promotion; None while it is champion, or is about to be.

    Raises:
        UserError: the ledger is damaged.
    """
    ledger = place.read()
    if former is not None and _is_to_come(ledger, version, former, since):
        return None
    changes, promotions = _promotions(ledger, version, since - _CLOCKS_S)
    if not promotions:
        return changes[-1] if changes and former is not None else None
    return None if promotions[-1] + 1 == len(changes) else changes[promotions[-1] + 1]


def _is_to_come(ledger: Ledger, version: int, former: int, since: float) -> bool:
    """Tell whether a promotion is not there yet, and is still wanted."""
    changes, promotions = _promotions(ledger, version, since - _WRITTEN_S)
    if promotions or ledger.state.champion != former:
        return False
    return _time(changes[-1]) < since + _CLOCKS_S  # or a person has chosen since


def _is_to_go(ledger: Ledger, version: int, former: int, since: float | None) -> bool:
    """Tell whether a promotion stands that is to be taken back: the first one since some time."""
    changes, promotions = _promotions(ledger, version, (since or 0.0) - _CLOCKS_S)
    if not promotions or former not in ledger.state.champions[:-1]:
        return False
    own = promotions[-1]
    if since is not None:  # that of a clock behind ours, where there is no other
        own = next((at for at in promotions if _time(changes[at]) > since - _WRITTEN_S), own)
    return own + 1 == len(changes)


def _promotions(ledger: Ledger, version: int, after: float) -> tuple[list[Entry], list[int]]:
    """List who became champion; and where in that list a version did, after some time."""
    changes = [entry for entry in ledger.entries if entry.alias == "champion"]
    promotions = [
        at
        for at, entry in enumerate(changes)
        if (entry.action, entry.version) == ("promote", version) and _time(entry) > after
    ]
    return changes, promotions


def _time(entry: Entry) -> float:
    return datetime.fromisoformat(entry.time).timestamp()


def _added(
    place: Place, is_due: Callable[[Ledger], bool], action: str, version: int, **facts: Any
) -> Entry | None:
    """Make a version champion if that is due; nobody is waited for where it is not."""
    ledger, added = place.read(), False
    known = registered(ledger, version)
    if not is_due(ledger):
        return None

    def change(ledger: Ledger) -> Ledger:
        nonlocal added
        added = is_due(ledger)
        if not added:
            return ledger
        return ledger.append(action, version, alias="champion", **facts, **_of(known))

    ledger = _held(place, change)
    return ledger.entries[-1] if added else None


def _held(place: Place, change: Callable[[Ledger], Ledger]) -> Ledger:
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


def _of(entry: Entry) -> dict[str, Any]:
    """What every later entry repeats of a version."""
    names = ("content", "artefact", "artefact_sha256")
    return {name: getattr(entry, name) for name in names}
