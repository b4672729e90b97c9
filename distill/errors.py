"""What a user can get wrong, said in one message.

The command line prints such an error without a traceback and exits with its code. An exception
without an `exit_code` is a defect of ours and keeps its traceback.
"""

import difflib
import errno
from collections.abc import Iterable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_IN_SQLITE = "database or disk is full"


class UserError(Exception):
    """A mistake the user can mend: the message says what was expected, found, and what to do."""

    exit_code = 1


class UsageError(UserError):
    """Wrong usage: an unknown verb, key, option or field."""

    exit_code = 2


def nearest(word: str, known: Iterable[str]) -> str:
    """Name the known words nearest to a mistyped one, or the first few if none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return "Did you mean " + " or ".join(f"`{name}`" for name in near) + "?"
    shown = [name for name in known if "." not in name] or known
    return "Known: " + ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else ".")


def causes_of(error: BaseException) -> list[Exception]:
    """List an error, what it comes from, what that comes from, and so on."""
    found: list[Exception] = []
    current: BaseException | None = error
    while isinstance(current, Exception) and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def full_disk(error: BaseException) -> Exception | None:
    """Find out whether a full disk is what an error comes from, and give the cause.

    Whoever goes on without what has failed asks this first: with room it would not have failed.
    """
    for cause in causes_of(error):
        if isinstance(cause, OSError) and cause.errno in FULL:
            return cause
        if FULL_IN_SQLITE in str(cause):
            return OSError(FULL_IN_SQLITE)
    return None
