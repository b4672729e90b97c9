"""Reads a runner's results line by line while it works, here or at the end of a connection."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.deployment.device.runner import STEP_SECONDS
from distill.deployment.measurement import Progress, Result

SILENCE_SECONDS = STEP_SECONDS + 600  # while the runner checks its files, and between its steps


def run_runner(
    command: Sequence[str],
    *,
    progress: Progress,
    seconds: float = SILENCE_SECONDS,
    **options: Any,
) -> tuple[list[Result], str | None]:
    """Run a command that runs `device.runner`.

    Args:
        command: without a shell.
        progress: told what is being done.
        seconds: of silence after which it is ended, with all that it started. The runner ends steps
            that are stuck, and says itself where one may take longer.
        options: of `subprocess.Popen`, such as `cwd` and `env`.

    Returns:
        The results, and why there are no more of them; None where it came to its end.
    """
    results: list[Result] = []
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            start_new_session=True,  # a group of its own; an interrupt is for us alone
            **options,
        ) as process,
    ):
        watch = _Watch(process, seconds)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                result = _parsed(line)
                if result is not None:
                    results.append(result)
                    progress(_told(results) or "starting")
                    if result["step"] == "limit":
                        watch.seconds = max(seconds, result["seconds"] + 600)
                watch.restart()
            # Not waited for yet: until then nobody else is given its number, and its group's.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        finally:
            watch.stop()
            end_group(process)
            process.wait()
        errors.seek(0)
        said = errors.read().strip().splitlines()
    last = results[-1] if results else {"step": None}
    if last["step"] == "done":
        return results, None
    if last["step"] == "error":
        return results[:-1], last["message"]
    if watch.rang:
        return results, f"it was ended after {watch.seconds:.0f} s without a result"
    return results, said[-1] if said else f"the runner ended with code {process.returncode}"


class _Watch:
    """Ends a process that says nothing for too long."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self.process, self.seconds, self.rang = process, seconds, False
        self._start()

    def restart(self) -> None:
        """Begin to wait anew."""
        self.stop()
        if not self.rang:
            self._start()

    def stop(self) -> None:
        """Wait no longer."""
        self._timer.cancel()
        self._timer.join()

    def _start(self) -> None:
        self._timer = threading.Timer(self.seconds, self._ring)
        self._timer.daemon = True
        self._timer.start()

    def _ring(self) -> None:
        self.rang = True
        end_group(self.process)


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill a process that was started in a session of its own, with all that it started there.

    One that has been waited for is left alone: its number may be another's by now.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def has_figures(results: Sequence[Result], *, golden: bool = False) -> bool:
    """Tell whether anything was measured; `golden` answers count if they are another machine's."""
    kinds = {"cold", "measure"} | ({"golden"} if golden else set())
    return any(result["step"] in kinds for result in results)


def read_results(path: Path) -> tuple[list[Result], str | None]:
    """Read results that a runner left in a file."""
    results = [r for line in path.read_text(errors="replace").splitlines() if (r := _parsed(line))]
    last = results[-1] if results else {"step": None}
    if last["step"] == "done":
        return results, None
    if last["step"] == "error":
        return results[:-1], last["message"]
    return results, f"{path} ends before the measurement does"


def _parsed(line: str) -> Result | None:
    """Read a result; a line that is none (a login banner, half a line) is passed over."""
    try:
        result = json.loads(line)
    except json.JSONDecodeError:
        return None
    return result if isinstance(result, dict) and "step" in result else None


def _told(results: Sequence[Result]) -> str:
    last = results[-1]
    count = sum(result["step"] == last["step"] for result in results)
    words = {
        "machine": "machine described",
        "golden": f"golden answers compared: {last.get('name')}",
        "cold": f"cold start {count}: {last.get('name')}",
        "limit": "measuring",
        "measure": f"measuring process {count} done",
    }
    return words.get(last["step"], "")
