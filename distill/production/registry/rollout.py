"""What an experiment did, in a model's history; a promotion among it makes the new champion.

Needs no server, so that a service can write it: the server's aliases follow at the next command.
Knows nothing of experiments but their words.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from distill.files import HeldError, exclusive
from distill.production.registry.ledger import Entry, Ledger
from distill.production.registry.place import Place, registered

_TRIES, _PAUSE_S = 25, 0.2  # while another process changes the registry


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
    path, known = place.ledger_path, registered(place.read(), version)
    for left in reversed(range(_TRIES)):
        try:
            with exclusive(
                path.parent / ".lock",
                wanted=f"write the history of `{place.model}`",
                otherwise="Nothing was written.",
            ):
                ledger = Ledger.read(path).append(
                    "promote" if promotes else "rollout",
                    version,
                    alias="champion" if promotes else None,
                    reason=reason,
                    evidence=tuple(evidence),
                    content=known.content,
                    artefact=known.artefact,
                    artefact_sha256=known.artefact_sha256,
                )
                return ledger.entries[-1]
        except HeldError:
            if not left:
                raise
            time.sleep(_PAUSE_S)
    raise AssertionError
