"""Getting to a device over ssh, or one message why not."""

import shlex
import socket
import sys
from pathlib import Path

import pytest
from sshd import asked, free_port

from distill.deployment.targets import ssh
from distill.deployment.targets.ssh import SshTarget
from distill.errors import UserError

pytestmark = pytest.mark.ssh


def test_an_unknown_host_key_is_refused(device, artefacts, inputs):
    device.known_hosts.write_text("")
    with pytest.raises(UserError, match=r"Expected to know the host key .* Connect once by hand"):
        device.target().measure(artefacts, inputs, asked())
    assert device.known_hosts.read_text() == ""


def test_a_changed_host_key_is_refused(device, artefacts, inputs):
    other = (device.known_hosts.parent / "user.pub").read_text()
    device.known_hosts.write_text(f"[127.0.0.1]:{device.port} {other}")
    with pytest.raises(UserError, match="do not trust it"):
        device.target().measure(artefacts, inputs, asked())


def test_a_key_that_is_not_accepted_is_one_message(device, artefacts, inputs):
    (device.known_hosts.parent / "authorized_keys").write_text("")
    with pytest.raises(UserError, match=r"Permission denied \(publickey\)\. .*ssh-copy-id"):
        device.target().measure(artefacts, inputs, asked())


def test_a_host_that_is_down_is_one_message(require, artefacts, inputs):
    require("ssh", "ssh")
    target = SshTarget(name="pi", host="127.0.0.1", port=free_port(), ssh_config="none")
    with pytest.raises(UserError, match=r"refused\. Look whether the device is up"):
        target.measure(artefacts, inputs, asked())


def test_a_host_that_says_nothing_is_one_message(require, artefacts, inputs):
    require("ssh", "ssh")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        target = SshTarget(
            name="pi",
            host="127.0.0.1",
            port=silent.getsockname()[1],
            ssh_config="none",
            connect_seconds=1,
        )
        with pytest.raises(UserError, match=r"Expected 127\.0\.0\.1 to answer in time"):
            target.measure(artefacts, inputs, asked())


def test_a_probe_that_takes_too_long_names_its_own_limit(
    device, artefacts, inputs, tmp_path, monkeypatch
):
    monkeypatch.setattr(ssh, "PROBE_SECONDS", 1)
    hangs = tmp_path / "python"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o755)
    target = device.target(python=str(hangs), connect_seconds=2)
    with pytest.raises(UserError, match=r"import onnxruntime within 3 s but it did not\. Try `ssh"):
        target.measure(artefacts, inputs, asked())


def test_a_copy_that_takes_too_long_names_its_own_limit(device, artefacts, inputs, monkeypatch):
    monkeypatch.setattr(ssh, "_patience", lambda num_bytes: 1e-6)
    with pytest.raises(
        UserError, match=r"device to take 0\.\d MB into .*/run within 0 s but it did"
    ):
        device.target().measure(artefacts, inputs, asked())
    assert device.leftovers() == []


@pytest.mark.parametrize(
    "options",
    [
        {"host": "-oProxyCommand=touch marker"},
        {"host": "-F/etc/passwd"},
        {"host": "pi@-oProxyCommand=id"},
        {"host": "pi host"},
        {"host": "pi\nhost"},
        {"host": "pi;id"},
        {"host": "$(id)"},
        {"host": ""},
        {"host": "pi", "port": 0},
        {"host": "pi", "port": 70000},
        {"host": "pi", "python": ""},
        {"host": "pi", "python": "-c"},
        {"host": "pi", "python": "python3\ntouch marker"},
        {"host": "pi", "python": "~/bin/python"},
        {"host": "pi", "ssh_config": "/nonexistent"},
    ],
)
def test_what_might_be_taken_for_an_option_or_a_command_is_refused(options):
    with pytest.raises(UserError, match=r"^Expected "):
        SshTarget(name="pi", **options)


@pytest.mark.parametrize("host", ["pi", "pi@10.0.0.7", "fe80::1%eth0", "pi-4_b.local"])
def test_usual_hosts_are_accepted(host):
    assert SshTarget(name="pi", host=host).address.command(["true"])[-3:] == ["--", host, "true"]


def test_a_python_path_is_one_word_for_every_shell_on_the_way(device, artefacts, inputs, tmp_path):
    marker = tmp_path / "marker"
    folder = tmp_path / f"it's; touch {marker.name} & $(touch {marker.name}) `id` \" #"
    folder.mkdir()
    python = folder / "my python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    report = device.target(python=str(python)).measure(artefacts, inputs, asked())
    assert report.incomplete is None
    wrong = device.target(python=f"/nonexistent; touch {marker}")
    with pytest.raises(UserError, match="Expected Python"):
        wrong.measure(artefacts, inputs, asked())
    assert not marker.exists()
    assert not Path("~", marker.name).expanduser().exists()
