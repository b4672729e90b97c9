"""What a device says of itself: whether it will do, and what it lacks."""

import dataclasses
import subprocess
import sys

import pytest
from sshd import asked, fake_python, probe_answer

from distill.deployment.measurement import Runtime
from distill.errors import UserError

pytestmark = pytest.mark.ssh


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
