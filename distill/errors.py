"""What a user can get wrong, said in one message.

The command line prints such an error without a traceback and exits with its code. An exception
without an `exit_code` is a defect of ours and keeps its traceback.
"""

import difflib
import errno
import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
FULL_IN_SQLITE = "database or disk is full"


class UserError(Exception):
    """A mistake the user can mend: the message says what was expected, found, and what to do."""

    exit_code = 1


class UsageError(UserError):
    """Wrong usage: an unknown verb, key, option or field."""

    exit_code = 2


@contextmanager
def settings_of(group: str, part: str) -> Iterator[None]:
    """Name the settings of a part of a group where a message names those of the group.

    Args:
        group: of settings that a message of any part names, such as `teacher`.
        part: whose they are, such as `teacher.members.first`; the group itself changes nothing.
    """
    try:
        yield
    except UserError as error:
        rest = re.escape(part.removeprefix(f"{group}."))
        pattern = rf"(`|-p ){re.escape(group)}\.(?!{rest}\b)"
        text = re.sub(pattern, lambda found: f"{found[1]}{part}.", str(error))
        if text == str(error):
            raise
        raise type(error)(text) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """Name the known words nearest to a mistyped one, or the first few if none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if near:
        return "Did you mean " + " or ".join(f"`{name}`" for name in near) + "?"
    shown = [name for name in known if "." not in name] or known
    return "Known: " + ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else ".")


def kind_advice(column: str, kind: str = "category") -> str:
    """Write the option that names a column's kind, as a shell takes it."""
    if re.fullmatch(r"[A-Za-z_]\w*", column, re.ASCII):
        return f"+data.kinds.{column}={kind}"
    name = re.sub(r'(\\*)("|$)', r"\1\1\2", column).replace('"', '\\"')  # as Hydra has quotes
    return shlex.quote(f'+data.kinds={{"{name}": {kind}}}')


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


def refused(error: BaseException, numbers: Collection[int] = REFUSED) -> UserError | None:
    """Find out whether an error comes from a file or folder that may not be used, and say so.

    Follows what was raised from it alone: what was met while going on in another way is no cause.

    Args:
        error: any.
        numbers: of the system's errors that are looked for.
    """
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError) and current.errno in numbers and current.filename:
            path = Path(os.fsdecode(current.filename)).absolute()
            near = next((one for one in (path, *path.parents) if os.path.exists(one)), path)
            return UserError(
                f"Expected to read or write {path} but found: {current.strerror}. See that "
                f"{near} may be used by you (`ls -ld` shows by whom), or name another: `run_dir=` "
                "or `out=` is the folder of results."
            )
        current = current.__cause__
    return None
