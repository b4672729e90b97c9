"""What was looked at, what was found, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["good", "limited", "absent", "broken"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: it is.
        state: good; limited: it works, and less well; absent: what is there for those who want
            it; broken: what was asked for does not work.
        found: in words.
        advice: what to do; None where there is nothing.
    """

    what: str
    state: State
    found: str
    advice: str | None = None
