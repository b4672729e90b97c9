"""What serves and decides is installed by its own lock, without torch, and works there."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from commands import REPOSITORY
from monitored import fill
from served import ROW, make_table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """An environment of `requirements-serve.lock` and the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    uv = Path(sys.executable).parent / "uv"
    python = folder / "venv/bin/python"
    lock = REPOSITORY / "requirements-serve.lock"

    def run(*command: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*map(str, command)], capture_output=True, text=True, check=False, cwd=REPOSITORY
        )

    assert run(uv, "venv", "--python", sys.executable, folder / "venv").returncode == 0
    install = (uv, "pip", "install", "--quiet", "--python", python)
    done = run(*install, "--require-hashes", "-r", lock)
    if done.returncode and "Failed to fetch" in done.stderr:
        pytest.skip(f"needs a package index, which cannot be reached: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    done = run(uv, "build", "--quiet", "--wheel", "--out-dir", folder, REPOSITORY)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    done = run(*install, "--no-deps", wheel)
    assert done.returncode == 0, done.stderr
    return folder / "venv"


def test_there_is_no_torch_and_nothing_is_missing(home):
    python = home / "bin/python"
    names = "'torch', 'lightning', 'mlflow', 'sklearn', 'pandas'"
    code = f"import importlib.util as u; print([n for n in ({names}) if u.find_spec(n)])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_serves_and_decides(home, tmp_path):
    make_table(tmp_path / "export")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    process = subprocess.Popen(
        [home / "bin/distill", "serve", "artefact=export", "name=people", "port=0"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        url = next(line for line in process.stderr if "http://" in line).split()[-1]
        answer = httpx.post(f"{url}/predict", json={"row": ROW}, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["label"] == "yes"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["num_answered"] == 1
    plan = subprocess.run(
        [home / "bin/distill", "experiment", "plan"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert plan.returncode == 0, plan.stderr
    assert len(json.loads(plan.stdout.splitlines()[-1])["needs"]) == 4


def test_it_monitors(home, world, tmp_path):
    fill(f"sqlite:///{tmp_path}/log.db", world)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [
        home / "bin/distill",
        "monitor",
        f"run={world}",
        f"log.url=sqlite:///{tmp_path}/log.db",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["found"]["audited"]["num_labels"] > 100
    assert (tmp_path / "outputs/monitor/monitor.html").is_file()
