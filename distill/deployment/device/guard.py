"""Keeps a run folder on a device for as long as someone holds the line: `python3 -c ... < line`.

Makes a private folder, says where, and waits. When its stdin ends, or says nothing for long (the
other side was killed, or the network is gone), it ends whatever still works in the folder and
removes it. Standard library, Python 3.9 syntax, Linux.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from typing import Any, List

SILENCE_SECONDS = 90


def main() -> None:
    """Guard a folder until the line goes quiet."""
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, leave)
    folder = os.path.realpath(tempfile.mkdtemp(prefix="distill-"))
    try:
        print(json.dumps({"guard": folder}), flush=True)
        while True:
            signal.alarm(SILENCE_SECONDS)
            if not sys.stdin.buffer.readline():
                break
    finally:
        signal.alarm(0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        clear(folder)


def leave(number: int, frame: Any) -> None:
    """Stop waiting."""
    sys.exit(0)


def clear(folder: str) -> None:
    """End what works in a folder, and remove it."""
    for _ in range(50):
        workers = working_in(folder)
        for pid in workers:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        if not workers and not os.path.exists(folder):
            return
        time.sleep(0.1)


def working_in(folder: str) -> List[int]:
    """Find our own processes that have their working folder there, by the kernel's list."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            where = os.readlink("/proc/%s/cwd" % name)
        except OSError:  # another user's, or gone
            continue
        if (where + "/").startswith(folder + "/"):
            found.append(int(name))
    return found


if __name__ == "__main__":
    main()
