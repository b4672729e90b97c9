"""A headless Chromium that one can type into, by the DevTools protocol."""

import base64
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from websockets.sync.client import ClientConnection, connect

PATIENCE_S = 300.0  # a machine may be busy with something else


@contextmanager
def browsing(chromium: str, profile: Path) -> Iterator["Page"]:
    """Start a browser with one page.

    Args:
        chromium: the program.
        profile: an empty folder.
    """
    process = subprocess.Popen(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        port = _port(profile / "DevToolsActivePort")
        pages = httpx.get(f"http://127.0.0.1:{port}/json/list").json()
        page = next(own for own in pages if own["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None, ping_interval=None) as socket:
            yield Page(socket)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its helpers
        process.wait()


class Page:
    """A page of a browser; `problems` is what it complained about."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to an address."""
        self._call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def js(self, expression: str) -> object:
        """Say what an expression gives."""
        found = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + timeout_s
        while not self.js(f"Boolean({expression})"):
            assert time.monotonic() < deadline, (
                f"{expression}: {self.js('document.body.innerText')}"
            )
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        text = {"text": key} if len(key) == 1 else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self._call("Input.insertText", text=text)

    def picture(self, path: Path, *, width: int, height: int, dark: bool = False) -> None:
        """Take a screenshot."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._call("Emulation.setEmulatedMedia", features=scheme)
        found = self._call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def _call(self, method: str, **params: object) -> dict:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv(timeout=PATIENCE_S))
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]
            self._note(said)

    def _note(self, said: dict) -> None:
        """Keep what the page complains about."""
        if said.get("method") == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(said["params"]["exceptionDetails"]))
        if said.get("method") == "Log.entryAdded":
            entry = said["params"]["entry"]
            if entry["level"] == "error":
                self.problems.append(entry["text"])


def _port(path: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while not path.is_file() or not path.read_text().strip():
        assert time.monotonic() < deadline, "the browser does not start"
        time.sleep(0.05)
    return path.read_text().splitlines()[0]
