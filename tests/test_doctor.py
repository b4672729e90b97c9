"""Claims about `doctor`: it says what is broken and what to do, and leaves nothing behind."""

import sqlite3
from importlib import metadata

import pytest

from distill.verbs import doctor
from distill.verbs.console import installed


def found(document, what):
    return next(one for one in document["findings"] if one["what"] == what)


def test_it_looks_and_makes_nothing(cli, tmp_path):
    ran = cli("doctor")
    assert ran.code == 0, ran.stderr
    assert ran.document["broken"] == []
    assert found(ran.document, "torch")["state"] == "good"
    assert found(ran.document, "registry")["state"] == "absent"
    assert found(ran.document, "prediction log")["state"] == "absent"
    assert not list(tmp_path.iterdir())
    for finding in ran.document["findings"]:
        assert finding["what"] in ran.stderr


@pytest.mark.parametrize(
    ("overrides", "what", "says"),
    [
        (
            ("registry.tracking_uri=http://me:secret@127.0.0.1:9",),
            "registry",
            "Start the server",
        ),
        (("log.url=sqlite:///broken.db",), "prediction log", "not a database"),
        (("log.url=mysql://me:secret@127.0.0.1/log",), "prediction log", "sqlite:///path/log.db"),
        (("target=ssh", "target.host=127.0.0.1", "target.port=9"), "target ssh", "ssh server"),
    ],
)
def test_what_is_broken_is_named_with_what_to_do(cli, tmp_path, overrides, what, says):
    (tmp_path / "broken.db").write_bytes(b"not a database, but long enough for one" * 40)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    ran = cli("doctor", *overrides)
    assert ran.code == 3
    assert ran.document["verdict"] == "fail"
    assert ran.document["broken"] == [what]
    one = found(ran.document, what)
    assert says in f"{one['found']} {one['advice']}"
    assert "secret" not in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_package_of_another_version_is_broken_and_a_missing_extra_is_not(cli, monkeypatch):
    versions = metadata.version

    def version(name):
        if name == "tensorboard":
            raise metadata.PackageNotFoundError
        return "2.1.0" if name == "lightning" else versions(name)

    monkeypatch.setattr(metadata, "version", version)
    ran = cli("doctor")
    assert (ran.code, ran.document["broken"]) == (3, ["packages"])
    assert "lightning 2.1.0, where <3,>=2.6 is asked" in found(ran.document, "packages")["found"]
    extra = found(ran.document, "packages of `tensorboard`")
    assert extra["state"] == "absent"
    assert "pip install 'distill[tensorboard]'" in extra["advice"]


def test_a_size_that_is_none_is_one_message(cli):
    ran = cli("doctor", "free_gb=much")
    assert ran.code == 2
    assert "free_gb" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_distill_that_was_not_installed_says_so(cli, monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", version)
    finding = found(cli("doctor").document, "packages")
    assert finding["state"] == "limited"
    assert "not installed" in finding["found"]


def test_a_package_that_dies_when_imported_is_broken(cli, monkeypatch):
    monkeypatch.setattr(installed, "_TORCH", "import os; os.kill(os.getpid(), 9)")
    ran = cli("doctor")
    assert (ran.code, ran.document["broken"]) == (3, ["torch"])


def test_a_database_that_has_no_log_yet_is_left_as_it_is(cli, tmp_path):
    with sqlite3.connect(tmp_path / "new.db") as connection:
        connection.execute("CREATE TABLE orders (id)")
    before = (tmp_path / "new.db").read_bytes()
    ran = cli("doctor", "log.url=sqlite:///new.db")
    assert "without a log" in found(ran.document, "prediction log")["found"]
    assert (tmp_path / "new.db").read_bytes() == before


@pytest.mark.parametrize(
    ("architecture", "flags", "state", "says"),
    [
        ("x86_64", {"avx2", "avx512_vnni"}, "good", "VNNI"),
        ("x86_64", {"avx2", "avx_vnni"}, "good", "VNNI"),
        ("x86_64", {"avx2"}, "limited", "quantize.reduce_range=true"),
        ("aarch64", {"asimd", "asimddp"}, "good", "dot products"),
        ("aarch64", {"asimd"}, "limited", "gains less"),
    ],
)
def test_what_a_processor_does_with_eight_bits(architecture, flags, state, says):
    finding = doctor._int8(architecture, flags)
    assert finding.state == state
    assert says in f"{finding.found} {finding.advice}"
