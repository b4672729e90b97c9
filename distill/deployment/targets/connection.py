"""A connection to a device: one login, one private folder, both gone with this process.

Hands archives to the device's Python, which unpacks them. Knows nothing of what is measured.
"""

import contextlib
import os
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from distill.deployment.device import guard, receive
from distill.deployment.targets.address import (
    Address,
    find_answer,
    quiet_environment,
    run_ssh,
)
from distill.errors import UserError

GREETING_SECONDS = 30.0  # for the device's Python to start and make a folder, once connected
HEARTBEAT_SECONDS = guard.SILENCE_SECONDS / 4
LEAVING_SECONDS = 20.0  # for the device to end what runs and remove the folder

# Reads a program of the length that the first line says; what follows on stdin is for the program.
_STARTER = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"


class Connection:
    """A private folder on a device, for as long as this is open.

    The device removes the folder, and ends what works in it, as soon as the connection or this
    process is gone, however that happens.

    Args:
        address: of the device; its Python has been found to work.

    Raises:
        UserError: the connection does not come about.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        # A socket's path must be short, and a per cent sign means something to ssh.
        parent = tempfile.gettempdir()
        usable = len(parent) < 50 and "%" not in parent
        self._sockets = tempfile.TemporaryDirectory(
            prefix="distill-ssh-", dir=parent if usable else "/tmp"
        )
        self._socket = f"ControlPath={self._sockets.name}/socket"
        self._closing = threading.Event()
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.folder = ""

    def __enter__(self) -> "Connection":
        program = Path(guard.__file__).read_bytes()
        self._process = subprocess.Popen(
            self.address.command(
                [self.address.python, "-s", "-c", _STARTER],
                "ControlMaster=yes",
                "ControlPersist=no",
                self._socket,
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # an interrupt is for us, who then take leave in order
            env=quiet_environment(),
        )
        try:
            self.folder = self._greet(program)
        except BaseException:
            self._leave()
            raise
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def is_lost(self) -> bool:
        """Tell whether the connection has ended although nobody closed it."""
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return False
        return True

    def command(self, remote: Sequence[str]) -> list[str]:
        """Build the local command that runs a remote one over this connection."""
        return self.address.command(remote, "ControlMaster=no", self._socket)

    def send(self, folder: Path, target: str, *, seconds: float) -> None:
        """Copy a folder as one archive; over there it is whole or absent.

        Raises:
            UserError: it did not arrive.
        """
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        program = Path(receive.__file__).read_bytes()
        with tempfile.TemporaryFile() as parcel:
            parcel.write(b"%d\n%s" % (len(program), program))
            # Plain names and modes: nothing of this machine's users travels.
            with tarfile.open(fileobj=parcel, mode="w:gz", compresslevel=1) as archive:
                for path in files:
                    archive.add(path, str(path.relative_to(folder)), filter=_anonymous)
            words = [self.address.python, "-s", "-c", _STARTER, target, str(len(files))]
            megabytes = parcel.seek(0, os.SEEK_END) / 1e6
            parcel.seek(0)
            done = run_ssh(
                self.command(words),
                self.address,
                parcel,
                seconds=seconds,
                task=f"to take {megabytes:.1f} MB into {target}",
                remedy="The connection or the device's disk is too slow for it: use a faster one, "
                "or carry a bundle there (`export bundle.write=true`).",
            )
        if find_answer(done.stdout, "received") is None:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise UserError(
                f"Expected to copy {folder.name} to {target} on {self.address.host} but found: "
                f"{said}. Look whether that folder can be written and has room."
            )

    def _greet(self, program: bytes) -> str:
        """Start the guard; return the folder it made."""
        process, lines = self._process, []
        assert process.stdin is not None
        assert process.stdout is not None
        seconds = self.address.connect_seconds + GREETING_SECONDS
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(b"%d\n%s" % (len(program), program))
            process.stdin.flush()
            for line in process.stdout:
                lines.append(line.decode(errors="replace"))
                folder = find_answer(lines[-1], "guard")
                if folder is not None:
                    return folder
        except BrokenPipeError:
            pass
        finally:
            timer.cancel()
        code = process.wait()
        self._errors.seek(0)
        if code == -signal.SIGKILL:
            raise self.address.too_slow(
                "to let us in and make a folder",
                seconds,
                "Look whether the device is up and not busy, or raise `target.connect_seconds`.",
            )
        raise self.address.explain(code, self._errors.read())

    def _beat(self) -> None:
        """Say from time to time that we are still there."""
        stdin = self._process.stdin
        assert stdin is not None
        while not self._closing.wait(HEARTBEAT_SECONDS):
            try:
                stdin.write(b"\n")
                stdin.flush()
            except (OSError, ValueError):  # the connection is gone
                return

    def _leave(self) -> None:
        self._closing.set()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # gone already
            self._process.stdin.close()
        try:
            self._process.wait(timeout=LEAVING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._process.stdout.close()
            self._errors.close()
            self._sockets.cleanup()


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry
