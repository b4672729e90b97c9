"""Who was in production when, read off the ledger's entries.

Knows entries and times; needs no server.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from distill.errors import UsageError
from distill.production.registry.ledger import Entry


@dataclass(frozen=True, kw_only=True)
class Period:
    """A stretch of time with one champion.

    Attributes:
        version: in production.
        since: UTC, ISO 8601.
        until: the same; None for now.
        entry: number of the entry that began it.
    """

    version: int
    since: str
    until: str | None
    entry: int


def periods(entries: Sequence[Entry]) -> list[Period]:
    """List the champions in order of time."""
    changes = [entry for entry in entries if entry.alias == "champion"]
    ends = [entry.time for entry in changes[1:]] + [None]
    return [
        Period(version=entry.version, since=entry.time, until=end, entry=entry.number)
        for entry, end in zip(changes, ends, strict=False)
    ]


def champions_at(entries: Sequence[Entry], when: str) -> list[Period]:
    """Find who was champion on a day (UTC), or at a moment.

    Args:
        entries: of the ledger.
        when: ISO 8601, such as 2026-11-01 or 2026-11-01T12:00; without an offset it is UTC.

    Raises:
        UsageError: it is no time.
    """
    try:
        start = datetime.fromisoformat(when)
    except ValueError as error:
        raise UsageError(
            f"Expected `at` as a day or a time such as 2026-11-01 or 2026-11-01T12:00 but got "
            f"{when!r}."
        ) from error
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    end = start + (timedelta(days=1) if _is_day(when) else timedelta(microseconds=1))
    return [
        period
        for period in periods(entries)
        if datetime.fromisoformat(period.since) < end
        and (period.until is None or datetime.fromisoformat(period.until) > start)
    ]


def _is_day(when: str) -> bool:
    try:
        date.fromisoformat(when)
    except ValueError:
        return False
    return True
