"""Measuring over ssh: what comes back, also from a device or a connection that dies."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from sshd import ENDLESS, asked, end, until

from distill.deployment import bundle
from distill.deployment.targets import ssh

pytestmark = pytest.mark.ssh


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


def test_a_runner_that_dies_half_way_leaves_what_it_had_measured(device, artefacts, inputs):
    def kill_runner(said):
        if said == "measuring process 2 done":
            end(device.workers())

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
            end(device.sessions())

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


@pytest.mark.slow
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
