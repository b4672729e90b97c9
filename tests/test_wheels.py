"""Wheels for other machines: chosen by tags, unpacked whole or not at all, fetched on request."""

import itertools
import stat
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from distill.deployment import wheels
from distill.deployment.wheels import own_packages, site_packages
from distill.errors import UserError

ARM = "manylinux_2_27_aarch64.manylinux_2_28_aarch64"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "distill"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "wheels"
    made.mkdir()
    return made


def kept(cache):
    """Folders of unpacked wheels; beside them lie nothing but locks."""
    return [path.name for path in (cache / "site").iterdir() if path.suffix != ".lock"]


def make_wheel(folder, name, version="1.0", tags=f"cp311-cp311-{ARM}", files=None):
    path = folder / f"{name}-{version}-{tags}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in (files or {f"{name}/__init__.py": f"VERSION = '{version}'"}).items():
            archive.writestr(inside, text)
    return path


def test_wheels_of_a_folder_are_unpacked_side_by_side_and_once(folder, cache):
    make_wheel(folder, "numpy")
    make_wheel(folder, "onnxruntime", files={"onnxruntime/__init__.py": "", "onnxruntime/a/b": "c"})
    site = site_packages("aarch64", "3.11", wheels=folder, download=False)
    assert site.parent == cache / "site"
    assert (site / "numpy" / "__init__.py").read_text() == "VERSION = '1.0'"
    assert (site / "onnxruntime" / "a" / "b").read_text() == "c"
    (site / "mark").touch()
    assert site_packages("aarch64", "3.11", wheels=folder, download=False) == site
    assert (site / "mark").exists()
    assert kept(cache) == [site.name]


def test_other_contents_are_another_folder(folder):
    make_wheel(folder, "numpy")
    make_wheel(folder, "onnxruntime")
    first = site_packages("aarch64", "3.11", wheels=folder, download=False)
    make_wheel(folder, "numpy", files={"numpy/__init__.py": "changed"})
    second = site_packages("aarch64", "3.11", wheels=folder, download=False)
    assert first != second
    assert (second / "numpy" / "__init__.py").read_text() == "changed"


@pytest.mark.parametrize(
    ("tags", "fits"),
    [
        ("cp311-cp311-manylinux2014_aarch64", True),
        ("cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64", True),
        ("cp38-abi3-manylinux_2_28_aarch64", True),
        ("py3-none-any", True),
        ("cp312-cp312-manylinux_2_28_aarch64", False),
        ("cp312-abi3-manylinux_2_28_aarch64", False),
        ("cp311-cp311t-manylinux_2_28_aarch64", False),
        ("cp311-cp311-manylinux_2_28_x86_64", False),
        ("cp311-cp311-manylinux_2_34_aarch64", False),
        ("cp311-cp311-musllinux_1_2_aarch64", False),
        ("cp311-cp311-macosx_11_0_arm64", False),
        ("cp311-cp311-linux_armv7l", False),
    ],
)
def test_a_wheel_is_taken_only_where_its_tags_fit_the_machine(tags, fits, folder):
    make_wheel(folder, "onnxruntime")
    make_wheel(folder, "numpy", tags=tags)
    if fits:
        assert site_packages("aarch64", "3.11", wheels=folder, download=False)
        return
    with pytest.raises(UserError, match=r"numpy for Python 3.11 on aarch64 with glibc 2.28"):
        site_packages("aarch64", "3.11", wheels=folder, download=False)


def test_the_newest_wheel_that_the_libc_can_load_wins(folder):
    make_wheel(folder, "onnxruntime", "1.9.0")
    make_wheel(folder, "onnxruntime", "1.10.0")
    make_wheel(folder, "onnxruntime", "1.11.0", "cp311-cp311-manylinux_2_34_aarch64")
    make_wheel(folder, "numpy")

    def version(libc):
        site = site_packages("aarch64", "3.11", wheels=folder, download=False, libc=libc)
        return (site / "onnxruntime" / "__init__.py").read_text()

    assert version((2, 31)) == "VERSION = '1.10.0'"
    assert version((2, 36)) == "VERSION = '1.11.0'"


def test_two_at_once_unpack_once(folder, cache, monkeypatch):
    make_wheel(folder, "numpy")
    make_wheel(folder, "onnxruntime")
    extract, unpacked = wheels._extract, []

    def slowly(archive, target):
        unpacked.append(archive.filename)
        time.sleep(0.05)
        extract(archive, target)

    monkeypatch.setattr(wheels, "_extract", slowly)
    with ThreadPoolExecutor(2) as pool:
        work = [
            pool.submit(site_packages, "aarch64", "3.11", wheels=folder, download=False)
            for _ in range(2)
        ]
        first, second = (made.result() for made in work)
    assert first == second
    assert len(unpacked) == 2
    assert kept(cache) == [first.name]


@pytest.mark.parametrize("name", ["../outside", "/outside", "numpy/../../outside", "..\\outside"])
def test_a_wheel_that_writes_outside_of_its_folder_is_refused(name, folder, cache, tmp_path):
    make_wheel(folder, "numpy", files={"numpy/__init__.py": "", name: "evil"})
    make_wheel(folder, "onnxruntime")
    with pytest.raises(UserError, match="Expected files below the wheel's own folder"):
        site_packages("aarch64", "3.11", wheels=folder, download=False)
    assert kept(cache) == []
    assert not list(tmp_path.rglob("*outside*"))


def test_a_wheel_with_a_link_is_refused(folder, cache):
    link = zipfile.ZipInfo("numpy/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    make_wheel(folder, "numpy", files={link: "/etc"})
    make_wheel(folder, "onnxruntime")
    with pytest.raises(UserError, match="numpy/link"):
        site_packages("aarch64", "3.11", wheels=folder, download=False)
    assert kept(cache) == []


@pytest.mark.parametrize("name", ["", "."])
def test_a_wheel_with_a_file_without_a_name_is_refused(name, folder, cache):
    path = make_wheel(folder, "numpy", files={"n": ""})
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist[0].filename = name  # as the list at the end has it
        archive.writestr("numpy/__init__.py", "")
    make_wheel(folder, "onnxruntime")
    with pytest.raises(UserError, match="Expected files below the wheel's own folder"):
        site_packages("aarch64", "3.11", wheels=folder, download=False)
    assert kept(cache) == []


def test_an_encrypted_wheel_is_refused(folder, cache):
    path = make_wheel(folder, "numpy")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the list at the end
    path.write_bytes(data)
    make_wheel(folder, "onnxruntime")
    with pytest.raises(UserError, match=r"Expected a whole wheel in .*numpy.*encrypted"):
        site_packages("aarch64", "3.11", wheels=folder, download=False)
    assert kept(cache) == []


def test_a_truncated_wheel_is_refused_and_leaves_nothing(folder, cache):
    make_wheel(folder, "numpy")
    path = make_wheel(folder, "onnxruntime", files={"onnxruntime/__init__.py": "x" * 1000})
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=r"Expected a whole wheel in .*onnxruntime"):
        site_packages("aarch64", "3.11", wheels=folder, download=False)
    assert kept(cache) == []


def test_libraries_beside_the_package_land_where_an_installer_puts_them(folder):
    files = {"numpy/__init__.py": "", "numpy-1.0.data/platlib/numpy/core.so": "binary"}
    files["numpy-1.0.data/scripts/f2py"] = "script"
    make_wheel(folder, "numpy", files=files)
    make_wheel(folder, "onnxruntime")
    site = site_packages("aarch64", "3.11", wheels=folder, download=False)
    assert (site / "numpy" / "core.so").read_text() == "binary"
    assert not list(site.rglob("f2py"))


def test_nothing_is_fetched_unless_asked(monkeypatch):
    monkeypatch.setattr(wheels.subprocess, "run", lambda *a, **k: pytest.fail("pip was started"))
    with pytest.raises(UserError, match=r"nothing is fetched unless asked. Set `download=true`"):
        site_packages("aarch64", "3.11", wheels=None, download=False)


def test_fetching_asks_pip_for_wheels_of_the_machine_and_keeps_them(monkeypatch, folder):
    commands = []

    def fake_pip(command, **_):
        commands.append(command)
        name, _, version = command[-1].partition("==")
        if name == "numpy" and version:  # not there for the other Python
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution")
        make_wheel(wheels.Path(command[command.index("--dest") + 1]), name, version or "1.0")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(wheels.subprocess, "run", fake_pip)
    site = site_packages("aarch64", "3.11", wheels=None, download=True)
    assert (site / "numpy" / "__init__.py").exists()
    assert len(commands) == 3
    for command in commands:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert command[command.index("--only-binary") + 1] == ":all:"
        assert "--no-deps" in command
        assert command[command.index("--python-version") + 1] == "3.11"
        platforms = {b for a, b in itertools.pairwise(command) if a == "--platform"}
        assert {"manylinux_2_28_aarch64", "manylinux_2_27_aarch64"} <= platforms
        assert "manylinux2014_aarch64" in platforms
        assert "manylinux_2_29_aarch64" not in platforms
    assert site_packages("aarch64", "3.11", wheels=None, download=False) == site
    assert len(commands) == 3


def test_what_pip_says_is_passed_on_without_passwords(monkeypatch):
    said = "ERROR: no network to https://me:hunter2@mirror/simple\n"
    failed = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(wheels.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(UserError, match="ERROR: no network to https://<redacted>@mirror"):
        site_packages("aarch64", "3.11", wheels=None, download=True)


@pytest.mark.parametrize("architecture", ["armv7l", "riscv64", "", "../x"])
def test_other_architectures_are_refused(architecture):
    with pytest.raises(UserError, match="Expected the architecture aarch64 or x86_64"):
        site_packages(architecture, "3.11", wheels=None, download=True)


@pytest.mark.parametrize("version", ["3", "2.7", "3.11.2", "3.11/..", ""])
def test_a_python_version_is_two_numbers(version):
    with pytest.raises(UserError, match=r"Expected a Python version such as 3.11"):
        site_packages("aarch64", version, wheels=None, download=True)


@pytest.mark.slow
def test_a_copy_of_this_environment_is_enough_to_import_onnxruntime(tmp_path):
    site = own_packages()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    command = [python, "-s", "-c", "import onnxruntime; print(onnxruntime.__file__)"]
    bare = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert "No module named" in bare.stderr
    there = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(site)}
    )
    assert there.stdout.startswith(str(site))
    assert own_packages() == site
