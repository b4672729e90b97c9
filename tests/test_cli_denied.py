"""Claims about files and folders that a command may not use: it says which, and what to do."""

import errno
import os

import pytest
from hydra.errors import InstantiationException

from distill.verbs import doctor


@pytest.fixture
def verb(monkeypatch):
    """Give a verb something else to do."""
    return lambda does: monkeypatch.setattr(doctor, "run", does)


@pytest.mark.parametrize(
    ("folder", "named"),
    [("/sys/distill/run", "/sys/distill"), ("file", "file"), ("file/run", "file"), ("x" * 300, "")],
)
def test_a_run_folder_that_cannot_be_made_is_one_message(cli, tmp_path, folder, named):
    (tmp_path / "file").write_text("")
    ran = cli("baseline", f"run_dir={folder}")
    assert ran.code == 1
    assert f"Expected to read or write {tmp_path / named}" in ran.stderr
    assert "`run_dir=`" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_that_may_not_be_used_is_named(cli, verb, tmp_path, number, wrapped):
    def fail(_):
        error = OSError(number, os.strerror(number), "mine/photos")
        if wrapped:
            raise InstantiationException("Error in call to target") from error
        raise error

    verb(fail)
    ran = cli("doctor")
    assert ran.code == 1
    assert f"{tmp_path / 'mine/photos'} but found: {os.strerror(number)}" in ran.stderr
    assert f"See that {tmp_path} may be used by you" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_what_went_on_without_a_file_and_failed_later_is_a_defect(cli, verb):
    def fail(_):
        try:
            raise PermissionError(errno.EACCES, "Permission denied", "cache")
        except OSError:
            raise KeyError("x")  # noqa: B904

    verb(fail)
    assert "This is a defect in distill" in cli("doctor").stderr
