"""Where a device is, how the system's `ssh` is called to get there, and what its failures mean.

Nothing of it reaches a shell unquoted, on either side, or is taken for an option.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from distill.errors import UserError

_HOST = re.compile(r"([\w.+][\w.+-]*@)?[\w.:\[][\w.:\[\]%-]*", re.ASCII)
_PYTHON = re.compile(r"[^-~\x00-\x1f\x7f][^\x00-\x1f\x7f]*")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a device is and how to get in.

    Attributes:
        host: a name, an address or an entry of the ssh configuration, also with `user@`.
        port: None takes the ssh configuration's, or 22.
        python: the Python there, a name or a path.
        ssh_config: a file instead of the user's own configuration.
        connect_seconds: after which the device counts as unreachable.

    Raises:
        UserError: a value that ssh or a shell might take for something else.
    """

    host: str
    port: int | None = None
    python: str = "python3"
    ssh_config: str | None = None
    connect_seconds: float = 10

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise UserError(
                f"Expected a host name, an address or a name of the ssh configuration but got "
                f"{self.host!r}. Give letters, digits, dots and hyphens, not beginning with a "
                "hyphen, also as user@host."
            )
        if self.port is not None and not 0 < self.port < 65536:
            raise UserError(f"Expected a port from 1 to 65535 but got {self.port}. Correct `port`.")
        if not _PYTHON.fullmatch(self.python):
            raise UserError(
                f"Expected the name or the absolute path of a Python on {self.host} but got "
                f"{self.python!r}. Correct `python`."
            )
        if self.ssh_config and self.ssh_config != "none" and not Path(self.ssh_config).is_file():
            raise UserError(
                f"Expected an ssh configuration in {self.ssh_config} but there is no such file. "
                "Correct `ssh_config`, or leave it out to use your own."
            )

    def command(self, remote: Sequence[str], *options: str) -> list[str]:
        """Build the local command that runs a remote one; every word of it stays one word."""
        settings = [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            f"ConnectTimeout={max(1, round(self.connect_seconds))}",
            "ConnectionAttempts=1",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            "ClearAllForwardings=yes",
            "ForwardAgent=no",
            "ForwardX11=no",
            "PermitLocalCommand=no",
            "RemoteCommand=none",
            "RequestTTY=no",
            *options,
        ]
        command = ["ssh", "-F", self.ssh_config] if self.ssh_config else ["ssh"]
        for setting in settings:
            command += ["-o", setting]
        if self.port is not None:
            command += ["-p", str(self.port)]
        return [*command, "--", self.host, shlex.join(remote)]

    def explain(self, code: int, stderr: str) -> UserError:
        """Turn a failure of ssh into one message."""
        said = stderr.strip().splitlines()
        last = said[-1].strip().rstrip(".") if said else f"ssh ended with code {code}"
        for pattern, expected, remedy in _FAILURES:
            if re.search(pattern, stderr):
                return UserError(
                    f"Expected {expected.format(host=self.host)} but found: {last}. "
                    f"{remedy.format(host=self.host, port=self._port_option)}"
                )
        return UserError(
            f"Expected to reach {self.host} but found: {last}. Try "
            f"`ssh {self._port_option}{self.host}` by hand."
        )

    def too_slow(self, task: str, seconds: float, remedy: str) -> UserError:
        """Say which task did not end within which limit, and what to do."""
        return UserError(
            f"Expected {self.host} {task} within {seconds:.0f} s but it did not. {remedy}"
        )

    @property
    def _port_option(self) -> str:
        return f"-p {self.port} " if self.port is not None else ""


_UNREACHABLE = "Look whether the device is up, on this network, and runs an ssh server."
_FAILURES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of {host} to be the one known here",
        "If the device was set up anew, remove the old key with `ssh-keygen -R` and connect once "
        "by hand; if not, do not trust it.",
    ),
    (
        r"Host key verification failed|host key is known",
        "to know the host key of {host}",
        "Connect once by hand with `ssh {port}{host}`, compare its fingerprint with the device's, "
        "and accept it.",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "{host} to let this user in without a password",
        "Put your key there with `ssh-copy-id {port}{host}`, or load it with `ssh-add`.",
    ),
    (
        r"Could not resolve",
        "the name {host} to be known on this network",
        "Correct `host`, or give the device's address.",
    ),
    (r"timed? ?out", "{host} to answer in time", _UNREACHABLE),
    (r"refused|No route|unreachable|closed|reset", "to reach {host}", _UNREACHABLE),
)


def run_program(
    address: Address, source: str, *, seconds: float, task: str, remedy: str
) -> subprocess.CompletedProcess[str]:
    """Run a program with the Python there, over a connection of its own; it is read from stdin.

    Args:
        address: of the device.
        source: of the program.
        seconds: for all of it.
        task: what the device has to do in them, such as "to say what it is".
        remedy: what to do where it does not.

    Raises:
        UserError: the device is not reached, does not let us in, or is not done in time.
    """
    command = address.command([address.python, "-s", "-"])
    done = run_ssh(command, address, source, seconds=seconds, task=task, remedy=remedy)
    if done.returncode == 255:
        raise address.explain(done.returncode, done.stderr)
    return done


def find_answer(stdout: str, key: str) -> Any:
    """Find the line of JSON that has a key, whatever login scripts print around it; or None."""
    for line in stdout.splitlines():
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(answer, dict) and key in answer:
            return answer[key]
    return None


def run_ssh(
    command: list[str],
    address: Address,
    stdin: "str | IO[bytes]",
    *,
    seconds: float,
    task: str,
    remedy: str,
) -> subprocess.CompletedProcess[str]:
    """Run ssh to its end; what it says is text.

    Raises:
        UserError: it is not done in time, with task and remedy as `run_program` takes them.
    """
    given: dict[str, Any] = {"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}
    try:
        return subprocess.run(
            command,
            **given,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
            env=quiet_environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise address.too_slow(task, seconds, remedy) from error
    except FileNotFoundError as error:
        raise UserError(
            "Expected the program `ssh` for this target but it is not installed. Install "
            "OpenSSH's client."
        ) from error


def quiet_environment() -> dict[str, str]:
    """Messages in English, no window that asks for a password."""
    return {**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}
