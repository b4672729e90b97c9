import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.errors import UserError
from distill.files import read_json, write_bytes, write_json, write_text
from distill.run_folder import Stage, adopt_stage, run_folder_lock, versions


def test_the_second_process_on_a_run_folder_is_told_who_holds_it(tmp_path):
    with run_folder_lock(tmp_path):
        code = (
            "import sys; from pathlib import Path; from distill.run_folder import run_folder_lock\n"
            "try:\n    with run_folder_lock(Path(sys.argv[1])): print('got it')\n"
            "except Exception as e: print(e)"
        )
        command = [sys.executable, "-c", code, str(tmp_path)]
        held = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"process {os.getpid()}" in held
    free = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert free == "got it\n"


def test_a_run_folder_that_stays_empty_is_removed(tmp_path):
    folder = tmp_path / "outputs" / "run"
    with pytest.raises(UserError, match="no data"), run_folder_lock(folder):
        raise UserError("no data")
    assert not folder.exists()


class Counter:
    def __init__(self, folder: Path) -> None:
        self.calls, self.folder = 0, folder

    def __call__(self):
        self.calls += 1
        write_bytes(self.folder / "out.bin", b"made")
        return {"calls": self.calls}


@pytest.fixture
def counter(tmp_path):
    (tmp_path / "in.txt").write_text("input")
    return Counter(tmp_path)


def run_stage(folder, compute, **values):
    stage = Stage(name="s", values=values, inputs=(folder / "in.txt",), outputs=("out.bin",))
    found = stage.finished(folder)
    return (stage.run(folder, compute), False) if found is None else (found, True)


def test_a_stage_runs_once(tmp_path, counter):
    assert run_stage(tmp_path, counter, a=1) == ({"calls": 1}, False)
    assert run_stage(tmp_path, counter, a=1) == ({"calls": 1}, True)
    assert counter.calls == 1


def test_a_stage_runs_again_when_anything_it_depends_on_changes(tmp_path, counter):
    run_stage(tmp_path, counter, a=1)
    run_stage(tmp_path, counter, a=2)
    (tmp_path / "in.txt").write_text("other")
    run_stage(tmp_path, counter, a=2)
    (tmp_path / "out.bin").write_bytes(b"tampered")
    run_stage(tmp_path, counter, a=2)
    (tmp_path / "s.json").unlink()
    run_stage(tmp_path, counter, a=2)
    assert counter.calls == 5


def test_a_stage_that_fails_is_not_vouched_for(tmp_path, counter):
    run_stage(tmp_path, counter, a=1)

    def fail():
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run_stage(tmp_path, fail, a=2)
    assert run_stage(tmp_path, counter, a=1) == ({"calls": 2}, False)


def test_versions_name_every_runtime_that_is_installed(monkeypatch):
    monkeypatch.setattr("distill.run_folder.version", lambda name: f"{name} 1")
    assert {"onnxruntime": "onnxruntime 1", "openvino": "openvino 1"}.items() <= versions().items()


def test_a_stage_is_adopted_with_its_files_and_with_none_from_elsewhere(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    stage = Stage(name="s", outputs=("a/out.txt",))
    stage.run(source, lambda: write_text(source / "a/out.txt", "x") or {})
    adopt_stage("s", source, target)
    assert (target / "a/out.txt").read_text() == "x"
    (tmp_path / "secret").write_text("x")
    made = read_json(source / "manifests/s.json")
    write_json(source / "manifests/s.json", made | {"outputs": {"../secret": "0" * 64}})
    with pytest.raises(UserError, match="inside"):
        adopt_stage("s", source, target)
