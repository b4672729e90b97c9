"""Commands as users give them: in this process, or in one of their own."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from distill.cli import main

REPOSITORY = Path(__file__).parent.parent
BRIEF = (  # where no claim is about latency, of which it says nothing
    "effort=quick",
    "effort.cold_starts=1",
    "effort.processes=1",
    "effort.warm_up_seconds=0",
    "effort.rounds=2",
    "effort.max_seconds=1",  # not until every limit is decided
)
SHORT = (
    "trainer.max_epochs=3",
    "teacher_training.trainer.max_epochs=3",
    "preflight_effort.processes=1",
    "preflight_effort.warm_up_seconds=0",
    "preflight_effort.rounds=2",
    *BRIEF,
)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict:
        """The JSON document that must be the last line of stdout."""
        return json.loads(self.stdout.splitlines()[-1])


def run_cli(*arguments: str, cwd: Path) -> Ran:
    """Call the command line in this process, which has imported all that takes seconds."""
    logger = logging.getLogger("distill")
    before = logger.handlers, logger.propagate, logger.level
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            with chdir(cwd), redirect_stdout(out), redirect_stderr(err), nothing_stays(cwd):
                main(list(arguments))
            code = 0
        except SystemExit as ended:
            code = ended.code
        finally:
            logger.handlers, logger.propagate, logger.level = before
        assert isinstance(code, int)
        said = [(file.seek(0), file.read())[1] for file in (out, err)]
    return Ran(code=code, stdout=said[0], stderr=said[1])


@contextmanager
def nothing_stays(cwd: Path) -> Iterator[None]:
    """Forget in the end what a command has left in this process, modules of its folder too."""
    path, argv, known = [*sys.path], sys.argv, {*sys.modules}
    try:
        yield
    finally:
        sys.path, sys.argv = path, argv
        for name in {*sys.modules} - known:
            file = getattr(sys.modules[name], "__file__", None)
            if file and file.startswith(f"{cwd}{os.sep}"):
                del sys.modules[name]


def run_process(*arguments: str, cwd: Path, timeout: float = 300, **environment: str) -> Ran:
    """Run `distill` in a process of its own, as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "distill", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    return Ran(code=done.returncode, stdout=done.stdout, stderr=done.stderr)
