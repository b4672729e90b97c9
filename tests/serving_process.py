"""The verb `serve` in a process of its own, for the tests that need one."""

import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx

INFER = "/v2/models/pets/infer"
ENTRY = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [1, 2, 3, 4]}
WATCHER = """
import atexit, sys
heavy = ("torch", "lightning", "matplotlib", "mlflow", "pandas", "sklearn", "pyarrow")
atexit.register(lambda: print("heavy:", *(m for m in heavy if m in sys.modules), file=sys.stderr))
from distill.cli import main
main(["serve", *sys.argv[1:]])
"""


@contextmanager
def process(*arguments, cwd, **environment):
    """Start the verb; yields the process, and a client once it answers."""
    running = subprocess.Popen(
        [sys.executable, "-c", WATCHER, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    alarm = threading.Timer(120, running.kill)  # ends a test that would hang
    alarm.start()
    try:
        said, address = "", None
        while address is None and (line := running.stderr.readline()):
            said, address = said + line, re.search(r"http://\S+", line)
        assert address, said
        running.said = said
        with httpx.Client(base_url=address[0], timeout=60) as client:
            yield running, client
    finally:
        alarm.cancel()
        running.kill()
        running.communicate()
