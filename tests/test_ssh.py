"""Measuring over ssh, against a real ssh server on this machine that plays the device."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from distill.deployment import bundle
from distill.deployment.device import probe
from distill.deployment.measurement import Effort, Measurement, Runtime
from distill.deployment.targets import ssh
from distill.deployment.targets.ssh import SshTarget
from distill.errors import UserError

pytestmark = pytest.mark.ssh

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") or "sshd"
QUICK = Effort(processes=2, rounds=3, cold_starts=1, max_seconds=5)
ENDLESS = Effort(processes=10_000, rounds=3, cold_starts=1, max_seconds=300)


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
        for pid in yield_device.sessions():
            os.kill(pid, signal.SIGKILL)
        server.terminate()
        server.wait()
        log.close()


@pytest.fixture
def artefacts(tmp_path):
    return [make_model(tmp_path / name, seed) for seed, name in enumerate(("a.onnx", "b.onnx"))]


@pytest.fixture
def inputs(rng):
    return rng.standard_normal((16, 8)).astype(np.float32)


def make_model(path, seed):
    weights = np.random.default_rng(seed).standard_normal((8, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weights"], ["logits"])],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


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


def test_a_device_is_measured_as_this_machine_is(device, artefacts, inputs):
    said = []
    report = device.target().measure(artefacts, inputs, asked(progress=said.append))
    assert report.incomplete is None
    assert report.target == "pi"
    assert [row.artefact for row in report.artefacts] == ["a.onnx", "b.onnx"]
    for row in report.artefacts:
        assert row.num_samples > 0
        assert row.p95_latency_ms.estimate > 0
        assert row.cold_start_ms.estimate > 0
        assert row.golden["max_abs"] < 1e-5
    assert report.conditions["machine"]["onnxruntime"] == ssh.version("onnxruntime")
    assert "measuring process 2 done" in said
    assert device.leftovers() == []
    assert not device.cache.exists()


def test_a_device_whose_answers_differ_is_seen_in_the_report(
    device, artefacts, inputs, monkeypatch
):
    def other_answers(folder, *rest):
        bundle.write_bundle(folder, *rest)
        with np.load(folder / "golden.npz") as golden:
            arrays = {name: -golden[name] if name != "input" else golden[name] for name in golden}
        np.savez(folder / "golden.npz", **arrays)
        bundle.pin_files(folder)

    monkeypatch.setattr(ssh, "write_bundle", other_answers)
    report = device.target().measure(artefacts, inputs, asked())
    assert report.artefacts[0].golden["top1_agreement"] < 0.5
    assert report.artefacts[0].golden["output_std"] > 1


@pytest.mark.slow
def test_numpy_and_onnxruntime_are_brought_along_once(
    device, artefacts, inputs, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache here"))
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    target = device.target(python=str(bare / "bin" / "python"))
    said = []
    report = target.measure(artefacts, inputs, asked(progress=said.append))
    assert report.incomplete is None
    assert report.artefacts[1].num_samples > 0
    assert "copying numpy and onnxruntime to device" in said
    (site,) = (device.cache / "distill").iterdir()
    (here,) = (tmp_path / "cache here" / "distill" / "site").glob("[!.]*")
    assert site.name == f"site-{here.name}"
    again = []
    target.measure(artefacts, inputs, asked(progress=again.append))
    assert "copying numpy and onnxruntime to device" not in again
    assert device.leftovers() == []
    (site / "numpy" / "conftest.py").write_text("damaged = True")
    with pytest.raises(UserError, match=r"Expected the files in .*site-.* Remove it and measure"):
        target.measure(artefacts, inputs, asked())


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


@pytest.mark.parametrize("python", ["/nonexistent", "/etc/hostname", "/bin/true"])
def test_a_device_without_python_is_one_message(python, device, artefacts, inputs):
    with pytest.raises(UserError, match=rf"Expected Python 3\.9 or newer as {python} on device"):
        device.target(python=python).measure(artefacts, inputs, asked())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "armv7l", "pointer_bits": 32},
            r"32-bit ARM programs: there are no wheel",
        ),
        ({"architecture": "aarch64", "pointer_bits": 32}, "32-bit ARM programs under a 64-bit ker"),
        ({"architecture": "riscv64"}, "x86_64 on device but found 64-bit riscv64"),
        ({"architecture": "x86_64", "pointer_bits": 32}, "found 32-bit x86_64"),
        ({"python": [3, 8, 10]}, r"CPython 3\.9 or newer on device but found CPython 3\.8\.10"),
        ({"python": [2, 7, 18]}, r"found CPython 2\.7\.18"),
        ({"implementation": "PyPy"}, "found PyPy"),
        ({"libc": "another than glibc"}, "Expected a system with glibc"),
        ({"system": "Darwin"}, "Expected Linux on device but found Darwin"),
        ({"cpus": 3}, r"Expected 4 CPUs on device but a process may use 3 there\. Lower"),
        ({"temporary_free_bytes": 1000}, r"MB of room in .* on device but only 0 MB are free"),
        (
            {"packages": None, "cache_free_bytes": 30_000_000, "sites": []},
            r"Expected \d{3} MB of room in .*distill on device but only 30 MB are free",
        ),
        (
            {"architecture": "aarch64", "packages": None, "python": [3, 12, 1]},
            r"for Python 3\.12 on aarch64 .* nothing is fetched unless asked",
        ),
        *(
            (
                {"architecture": "aarch64", "packages": ["1.26.0", version]},
                r"numpy and onnxruntime for Python .* nothing is fetched unless asked",
            )
            for version in ("1.9.0", "1.17.3")
        ),
    ],
)
def test_a_device_that_will_not_do_is_refused_before_anything_is_copied(
    changes, message, device, artefacts, inputs, tmp_path, monkeypatch
):
    if changes.get("architecture") == "aarch64":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    answer = probe_answer(**{"cpus": 4} | changes)
    target = device.target(python=fake_python(tmp_path / "python", answer), num_threads=4)
    with pytest.raises(UserError, match=message):
        target.measure(artefacts, inputs, asked())
    assert device.leftovers() == []


def test_a_device_without_openvino_is_refused_when_it_is_asked_for(
    device, artefacts, inputs, tmp_path
):
    asked_for = dataclasses.replace(asked(), runtime=Runtime(name="openvino"))
    target = device.target(python=fake_python(tmp_path / "python", probe_answer(openvino=None)))
    with pytest.raises(UserError, match=r"Expected OpenVINO on device .*pip install openvino"):
        target.measure(artefacts, inputs, asked_for)
    assert device.leftovers() == []


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


def test_a_runner_that_dies_half_way_leaves_what_it_had_measured(device, artefacts, inputs):
    def kill_runner(said):
        if said == "measuring process 2 done":
            for pid in device.workers():
                os.kill(pid, signal.SIGKILL)

    report = device.target().measure(artefacts, inputs, asked(ENDLESS, kill_runner))
    assert report.incomplete is not None
    assert "connection" not in report.incomplete
    assert report.conditions["processes"] >= 2
    assert report.artefacts[0].p50_latency_ms.estimate > 0
    assert device.leftovers() == []


def test_a_lost_connection_leaves_what_was_measured_and_nothing_on_the_device(
    device, artefacts, inputs
):
    def cut(said):
        if said == "measuring process 2 done":
            for pid in device.sessions():
                os.kill(pid, signal.SIGKILL)

    report = device.target().measure(artefacts, inputs, asked(ENDLESS, cut))
    assert "the connection to device was lost" in report.incomplete
    assert report.conditions["processes"] >= 2
    assert report.artefacts[1].p50_latency_ms.estimate > 0
    until(lambda: device.leftovers() == [])


def test_an_artefact_that_the_device_cannot_run_is_named(device, artefacts, inputs, monkeypatch):
    def newer_model(folder, *rest):
        bundle.write_bundle(folder, *rest)
        path = folder / "models" / "b.onnx"
        proto = onnx.load(path)
        proto.ir_version = 1000
        path.write_bytes(proto.SerializeToString())
        bundle.pin_files(folder)

    monkeypatch.setattr(ssh, "write_bundle", newer_model)
    report = device.target().measure(artefacts, inputs, asked())
    assert "b.onnx" in report.incomplete
    assert report.artefacts[0].golden is not None
    assert report.artefacts[1].p50_latency_ms is None


def test_an_interrupted_measurement_leaves_nothing_on_the_device(device, artefacts, inputs):
    def interrupt(said):
        if said == "measuring process 1 done":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.target().measure(artefacts, inputs, asked(ENDLESS, interrupt))
    assert device.leftovers() == []


def test_a_killed_measurement_leaves_nothing_on_the_device(device, artefacts, tmp_path):
    script = tmp_path / "measure.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from distill.deployment.measurement import Effort, Measurement\n"
        "from distill.deployment.targets.ssh import SshTarget\n"
        "effort = Effort(processes=10_000, rounds=3, cold_starts=1, max_seconds=300)\n"
        "measurement = Measurement(confidence=0.95, effort=effort, progress=print)\n"
        "target = SshTarget(name='pi', host='device', ssh_config=sys.argv[1], "
        "python=sys.executable)\n"
        "target.measure([Path(sys.argv[2])], np.zeros((16, 8), np.float32), measurement)\n"
    )
    command = [sys.executable, "-u", script, device.ssh_config, artefacts[0]]
    repository = Path(ssh.__file__).parents[3]
    # What the killed process cannot remove here is put where this test does: a short path.
    with tempfile.TemporaryDirectory() as here:
        environment = {**os.environ, "PYTHONPATH": str(repository), "TMPDIR": here}
        options = {"stdout": subprocess.PIPE, "text": True, "env": environment}
        with subprocess.Popen(command, **options) as process:
            for line in process.stdout:
                if line.startswith("measuring process 1"):
                    break
            assert device.workers()
            process.kill()
        until(lambda: device.leftovers() == [])
        until(lambda: device.sessions() == [])


def test_a_runner_whose_reader_is_gone_ends(artefacts, inputs, tmp_path):
    folder = tmp_path / "bundle"
    plan = ssh.make_plan(artefacts, asked(ENDLESS), num_threads=1, pin=False, spin=True)
    bundle.write_bundle(folder, artefacts, inputs, plan)
    runner = subprocess.Popen(
        [sys.executable, "-s", "-m", "distill.deployment.device.runner"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    with runner:
        runner.stdout.readline()
        runner.stdout.close()
        assert runner.wait(timeout=120) != 0
        assert b"BrokenPipeError" in runner.stderr.read()


def test_a_device_gives_up_a_run_that_nobody_asks_about(tmp_path):
    program = "from distill.deployment.device import guard; guard.SILENCE_SECONDS = 1; guard.main()"
    command = [sys.executable, "-c", program]
    options = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "cwd": Path(ssh.__file__).parents[3],
    }
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, **options) as guard:
        folder = Path(json.loads(guard.stdout.readline())["guard"])
        with subprocess.Popen(["sleep", "1000"], cwd=folder) as worker:
            assert worker.wait(timeout=120) == -signal.SIGKILL
        assert guard.wait(timeout=120) == 0  # although its stdin is still open
    assert not folder.exists()
