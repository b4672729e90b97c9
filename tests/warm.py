"""Commands in processes of their own that have imported already: forks of one that is kept warm."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["lightning", "onnx", "distill.cli", "distill.verbs.search"])


def command(*arguments: str, cwd: Path) -> Callable[[], None]:
    """Give a verb to call in another process."""
    return partial(_call, arguments, cwd)


def _call(arguments: tuple[str, ...], cwd: Path) -> None:
    from distill.cli import main

    os.chdir(cwd)
    main([*arguments])


def _alone(call: Callable[[], object], said: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(said, os.O_WRONLY), 2)
    call()


def signal_when(
    is_there: Callable[[], object],
    call: Callable[[], object],
    sent: int,
    said: Path | None = None,
) -> int | None:
    """Call in another process, send it a signal as soon as something is there; give how it ended.

    What it says on stderr goes into a file, `said`.
    """
    if said:
        said.touch()
    process = _FORKS.Process(target=_alone, args=(call, str(said or os.devnull)))
    process.start()
    deadline = time.monotonic() + 200
    while not is_there() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.is_alive(), "the command ended before it got its signal"
    assert process.pid is not None
    os.kill(process.pid, sent)
    process.join()
    return process.exitcode


def kill_when(is_there: Callable[[], object], call: Callable[[], object]) -> None:
    """Call in another process; kill it with SIGKILL as soon as something is there, and wait."""
    signal_when(is_there, call, signal.SIGKILL)
