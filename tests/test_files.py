import dataclasses
import fcntl
import json
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

from distill.errors import UsageError, UserError
from distill.files import (
    atomic_path,
    exclusive,
    from_json,
    inside,
    read_json,
    remove_unfinished,
    to_json,
    write_arrays,
    write_json,
)
from distill.run_folder import run_folder_lock


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_half()
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["file.txt"]


def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path):
    code = (
        "import resource, signal, sys; from pathlib import Path; from distill.files import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_bytes(Path(sys.argv[1]), b'x' * 5000)\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    path = tmp_path / "big.bin"  # a limit on file size stands in for a full disk
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("UserError Expected room to write")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_killed_half_way_leaves_no_file_that_looks_whole(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from distill.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1]) / 'model.onnx') as t:\n"
        "    t.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert not (tmp_path / "model.onnx").exists()
    with run_folder_lock(tmp_path):  # the next run clears the leftover away
        assert [item.name for item in tmp_path.iterdir()] == [".lock"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    value: float
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    maybe: int | None = None


def test_dataclasses_survive_json():
    outer = Outer(inner=Inner(value=1.5, names=("a", "b")), maybe=None)
    assert from_json(Outer, json.loads(json.dumps(to_json(outer)))) == outer


def test_an_unknown_field_is_named_with_its_neighbour():
    with pytest.raises(UsageError, match=r"`inner.vaule`. Did you mean `value`"):
        from_json(Outer, {"inner": {"vaule": 1}})


@pytest.mark.parametrize("bad", [{"inner": {"value": "x"}}, {"inner": 3}, {}, {"inner": {}}])
def test_values_of_another_type_are_refused(bad):
    with pytest.raises(UsageError, match="Expected"):
        from_json(Outer, bad)


def test_what_json_cannot_say_becomes_null(tmp_path):
    write_json(
        tmp_path / "x.json", {"nan": float("nan"), "array": np.array([1, 2]), "path": tmp_path}
    )
    assert read_json(tmp_path / "x.json") == {"nan": None, "array": [1, 2], "path": str(tmp_path)}


def test_arrays_are_read_back_without_pickle(tmp_path):
    write_arrays(tmp_path / "a.npz", {"x": np.arange(3)})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["x"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(tmp_path / "b.npz", {"x": np.array([object()])})


def test_a_lock_that_was_taken_this_moment_still_names_its_holder(tmp_path):
    path = tmp_path / "lock"
    with path.open("a+") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        late = threading.Timer(0.03, lambda: (holder.write("process 7 on here\n"), holder.flush()))
        late.start()
        with (
            pytest.raises(UserError, match="Expected to write but it is held by process 7 on here"),
            exclusive(path, wanted="write", otherwise="Wait."),
        ):
            pass
        late.join()


def test_folders_that_were_left_half_made_are_removed_with_what_is_in_them(tmp_path):
    (tmp_path / "a/.tmp-1-site/.tmp-2").mkdir(parents=True)
    (tmp_path / "a/.tmp-1-site/file").write_text("half")
    (tmp_path / "a/.tmp-3-whole.json").write_text("half")
    (tmp_path / "a/whole.json").write_text("whole")
    (tmp_path / "a/.tmp-4").symlink_to(tmp_path / "a")  # what it points to is not removed
    remove_unfinished(tmp_path)
    assert [*tmp_path.rglob("*")] == [tmp_path / "a", tmp_path / "a/whole.json"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "..", "", "."])
def test_a_name_that_leads_out_of_a_folder_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="inside"):
        inside(tmp_path, name)


def test_a_name_inside_a_folder_is_joined(tmp_path):
    assert inside(tmp_path, "a/b..c/.d") == tmp_path / "a" / "b..c" / ".d"


def test_a_file_that_is_written_again_is_kept_as_private_as_it_was(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, 1)
    path.chmod(0o600)
    write_json(path, 2)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
