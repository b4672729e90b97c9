"""A real ssh server on this machine that plays the device, and what is asked of it."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from distill.deployment.device import probe
from distill.deployment.measurement import Effort, Measurement
from distill.deployment.targets.ssh import SshTarget

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") or "sshd"


QUICK = Effort(processes=2, rounds=3, cold_starts=1, warm_up_seconds=0, max_seconds=5)


ENDLESS = Effort(processes=10_000, rounds=3, cold_starts=1, warm_up_seconds=0, max_seconds=300)


@dataclass(frozen=True)
class Device:
    """A server of its own: its process, its folders, and how ssh gets in."""

    sshd: subprocess.Popen
    port: int
    temporary: Path
    cache: Path
    ssh_config: Path
    known_hosts: Path

    def target(self, **options) -> SshTarget:
        given = {"name": "pi", "host": "device", "ssh_config": str(self.ssh_config)}
        return SshTarget(**given | {"python": sys.executable} | options)

    def leftovers(self) -> list:
        """Files of runs, and processes that work in their folders."""
        return [*self.temporary.iterdir(), *self.workers()]

    def workers(self) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if (path / "cwd").readlink().is_relative_to(self.temporary):
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def sessions(self) -> list[int]:
        """Processes of the server that hold a connection."""
        parents = {self.sshd.pid}
        found = []
        for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
            try:
                name, _, rest = (path / "stat").read_text().rpartition(") ")
            except OSError:
                continue
            if int(rest.split()[1]) in parents and "(sshd" in name:
                parents.add(int(path.name))
                found.append(int(path.name))
        return found


@pytest.fixture
def device(require, tmp_path):
    sshd = require("ssh", SSHD)
    require("ssh", "ssh")
    home = tmp_path / "device"
    temporary = home / """a 'folder' for "temporary" $(files); `here`"""
    cache = home / "its cache"
    temporary.mkdir(parents=True)
    for name in ("host", "user"):
        make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name)
        subprocess.run(make, check=True)
    shutil.copyfile(home / "user.pub", home / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    quoted = [json.dumps(f"{k}={v}") for k, v in (("TMPDIR", temporary), ("XDG_CACHE_HOME", cache))]
    (home / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nPidFile none\n"
        f"AuthorizedKeysFile {home}/authorized_keys\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv {' '.join(quoted)}\n"
    )
    known_hosts = home / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {(home / 'host.pub').read_text()}")
    ssh_config = home / "ssh_config"
    ssh_config.write_text(
        f"Host device\nHostName 127.0.0.1\nPort {port}\nIdentityFile {home}/user\n"
        f"IdentitiesOnly yes\nUserKnownHostsFile {known_hosts}\nGlobalKnownHostsFile /dev/null\n"
    )
    log = (home / "log").open("w")
    server = subprocess.Popen([sshd, "-D", "-e", "-f", home / "sshd_config"], stderr=log)
    yield_device = Device(server, port, temporary, cache, ssh_config, known_hosts)
    try:
        until(lambda: "Server listening" in (home / "log").read_text())
        yield yield_device
    finally:
        end(yield_device.sessions())
        server.terminate()
        server.wait()
        log.close()


def end(pids):
    """Kill what was found running; some may have ended by themselves since."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def asked(effort=QUICK, progress=lambda said: None):
    return Measurement(confidence=0.95, effort=effort, progress=progress)


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def until(happened, patience=60):
    """Wait for something that must happen; only a machine that hangs runs out of patience."""
    for _ in range(patience * 20):
        if happened():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen")


def probe_answer(**changes):
    """What this machine answers the probe, doctored."""
    done = subprocess.run(
        [sys.executable, "-s", probe.__file__], capture_output=True, text=True, check=True
    )
    return json.dumps({"probe": json.loads(done.stdout)["probe"] | changes})


def fake_python(path, answer):
    """A Python on the device that says what it is told to."""
    path.write_text(f"#!/bin/sh\ncat > /dev/null\necho Welcome!\necho {shlex.quote(answer)}\n")
    path.chmod(0o755)
    return str(path)
