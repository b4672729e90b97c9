"""What an experiment did, in a model's history: it may make a champion, and bring back the old one.

Needs no server, so that a service can write it: the server's aliases follow at the next command.
Knows nothing of experiments but their words.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from distill.budget import Outcome
from distill.files import HeldError, exclusive
from distill.production.registry.ledger import Entry, Ledger
from distill.production.registry.place import Place, cached, registered
from distill.production.registry.promotion import verdict_finding

_TRIES, _PAUSE_S = 25, 0.2  # while another process changes the registry
_CLOCKS_S = 60.0  # by which two machines may differ


def note(
    place: Place,
    version: int,
    reason: str,
    evidence: Sequence[Mapping[str, Any]] = (),
    *,
    promotes: bool = False,
) -> Entry:
    """Add an entry.

    Args:
        place: where the model's history is.
        version: of the challenger.
        reason: where it is now, and why.
        evidence: the checks, with their figures.
        promotes: whether it is champion from now on.

    Raises:
        UserError: another process holds the registry for seconds, the version was never
            registered, or the disk is full.
    """
    known = registered(place.read(), version)

    def promoted(ledger: Ledger) -> Ledger:
        return ledger.append(
            "promote" if promotes else "rollout",
            version,
            alias="champion" if promotes else None,
            reason=reason,
            evidence=tuple(evidence),
            **_of(known),
        )

    return _held(place, promoted).entries[-1]


def take_back(
    place: Place,
    version: int,
    former: int,
    reason: str,
    evidence: Sequence[Mapping[str, Any]] = (),
) -> Entry | None:
    """Bring back the champion before, unless somebody was faster.

    Args:
        place: where the model's history is.
        version: that is not to be champion any more.
        former: that was champion before it.
        reason: why.
        evidence: the checks, with their figures.

    Returns:
        The entry; None where the version is not champion any more.

    Raises:
        UserError: another process holds the registry for seconds, or the disk is full.
    """
    known, is_champion = registered(place.read(), former), True

    def taken_back(ledger: Ledger) -> Ledger:
        nonlocal is_champion
        champions = ledger.state.champions
        is_champion = version in champions[-1:] and former in champions[:-1]
        if not is_champion:
            return ledger
        return ledger.append(
            "rollback",
            former,
            alias="champion",
            reason=reason,
            evidence=tuple(evidence),
            **_of(known),
        )

    ledger = _held(place, taken_back)
    return ledger.entries[-1] if is_champion else None


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


def replaced(place: Place, version: int, since: float) -> Entry | None:
    """Find the entry that put another in the place of a champion.

    Args:
        place: where the model's history is.
        version: that was made champion.
        since: when, UTC seconds.

    Returns:
        A rollback or a promotion; None while it is champion, or is about to be.

    Raises:
        UserError: the ledger is damaged.
    """
    changes = [entry for entry in place.read().entries if entry.alias == "champion"]
    promotions = [
        number
        for number, entry in enumerate(changes)
        if (entry.action, entry.version) == ("promote", version)
        and datetime.fromisoformat(entry.time).timestamp() > since - _CLOCKS_S
    ]
    if not promotions or promotions[-1] + 1 == len(changes):
        return None
    return changes[promotions[-1] + 1]


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
