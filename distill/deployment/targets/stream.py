"""Reads a runner's results line by line while it works, here or at the end of a connection."""

import json
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.deployment.measurement import Progress, Result


def run_runner(
    command: Sequence[str], *, progress: Progress, seconds: float, **options: Any
) -> tuple[list[Result], str | None]:
    """Run a command that runs `device.runner`.

    Args:
        command: without a shell.
        progress: told what is being done.
        seconds: after which it is ended.
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
            **options,
        ) as process,
    ):
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                result = _parsed(line)
                if result is not None:
                    results.append(result)
                    progress(_told(results) or "starting")
            process.wait()
        finally:
            timed_out = not timer.is_alive()
            timer.cancel()
            if process.poll() is None:
                process.kill()
        errors.seek(0)
        said = errors.read().strip().splitlines()
    last = results[-1] if results else {"step": None}
    if last["step"] == "done":
        return results, None
    if last["step"] == "error":
        return results[:-1], last["message"]
    if timed_out:
        return results, f"it was ended after {seconds:.0f} s"
    return results, said[-1] if said else f"the runner ended with code {process.returncode}"


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
        "measure": f"measuring process {count} done",
    }
    return words.get(last["step"], "")
