"""Claims about completion: by the shell itself, at every place of a line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shells import line_of_zsh


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("distill pi", {"pipeline"}),
        ("distill pipeline exp", {"experiment="}),
        ("distill pipeline student=resnet", {"student=resnet8", "student=resnet20"}),
        ("distill pipeline budget.lat", {"budget.latency."}),
        (
            "distill pipeline budget.latency.p9",
            {"budget.latency.p95_ms=", "budget.latency.p99_ms="},
        ),
        ("distill train tea", {"teacher", "teacher=", "teacher_training."}),
        ("distill train teacher teacher_training.tr", {"teacher_training.trainer."}),
        ("distill nothing exp", set()),
        ("distill predict input=pho", set()),
    ],
)
def test_a_line_becomes_what_the_configuration_has(cli, line, expected):
    ran = cli("--complete", line)
    assert expected <= {*ran.stdout.split()}
    begun = line.split(" ")[-1]
    assert all(one.startswith(begun) for one in ran.stdout.split())
    assert bool(ran.stdout) == bool(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("distill bench", ["benchmark"]),
        ("distill pipeline run_d", ["run_dir="]),
        ("distill pipeline target=raspberry_pi_", ["raspberry_pi_4", "raspberry_pi_5"]),
    ],
)
def test_bash_completes_what_it_is_told(tmp_path, line, expected):
    """bash itself, whose words break at "="."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    (tmp_path / "distill").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m distill "$@"\n')
    (tmp_path / "distill").chmod(0o755)
    program = """
    source <(distill --completion bash)
    COMP_LINE="$1" COMP_POINT=${#1}
    compopt() { :; }
    _distill
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", program, "bash", line],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "autoload -Uz compinit && compinit -u"])
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("distill bench", "distill benchmark |"),
        ("distill pipeline run_d", "distill pipeline run_dir=|"),
        ("distill pipeline budget.lat", "distill pipeline budget.latency.|"),
        ("distill pipeline target=rasp", "distill pipeline target=raspberry_pi_|"),
        ("distill pipeline seed=1 student=resnet20", "distill pipeline seed=1 student=resnet20 |"),
        ("distill predict input=new_ph", "distill predict input=new_photos/|"),
    ],
)
def test_zsh_completes_what_is_typed(require, tmp_path, before, typed, line):
    """zsh itself, on a terminal: with and without a completion that was set up before."""
    (tmp_path / "new_photos").mkdir()
    found, said = line_of_zsh(require("zsh", "zsh"), tmp_path, typed, before)
    assert found == line, said
    assert "command not found" not in said


@pytest.mark.parametrize(("shell", "says"), [(("bosh",), "Did you mean `bash`"), ((), "bash")])
def test_an_unknown_shell_is_one_message(cli, shell, says):
    ran = cli("--completion", *shell)
    assert ran.code == 2
    assert ran.stderr.startswith(f"error: Unknown shell `{' '.join(shell)}`.")
    assert says in ran.stderr
