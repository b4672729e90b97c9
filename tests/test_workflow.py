"""The example workflow of a model's own continuous integration does what its first lines say."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from commands import REPOSITORY

WORKFLOW = REPOSITORY / ".github" / "workflows" / "model.yml"


@pytest.fixture(scope="module")
def workflow() -> dict:
    return yaml.safe_load(WORKFLOW.read_text())


def _verdict_step(workflow: dict) -> dict:
    steps = workflow["jobs"]["pipeline"]["steps"]
    return next(step for step in steps if step.get("id") == "verdict")


def _run(workflow: dict, folder: Path, code: int) -> tuple[int, str, str]:
    """Run the step as the runner does, with a `distill` that ends with a code."""
    program = folder / "bin" / "distill"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nmkdir -p outputs/model\necho "$@" > outputs/model/report.md\nexit {code}\n'
    )
    program.chmod(0o755)
    output, summary = folder / "output", folder / "summary"
    environment = workflow["env"] | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(output),
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    command = ["bash", "-e", "-o", "pipefail", "-c", _verdict_step(workflow)["run"]]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True)
    return done.returncode, output.read_text(), summary.read_text()


@pytest.mark.parametrize(("code", "ends_with"), [(0, 0), (1, 1), (3, 3), (4, 0)])
def test_the_step_fails_on_all_but_pass_and_inconclusive(workflow, tmp_path, code, ends_with):
    ended, output, summary = _run(workflow, tmp_path, code)
    assert ended == ends_with
    assert output == f"code={code}\n"
    assert summary == "pipeline run_dir=outputs/model experiment=digits\n"


def test_an_inconclusive_verdict_waits_for_a_person(workflow):
    hold = workflow["jobs"]["hold"]
    assert hold["needs"] == "pipeline"
    assert hold["if"] == "needs.pipeline.outputs.code == '4'"
    assert hold["environment"] == "model-review"


def test_it_takes_what_a_pipeline_writes(workflow, finished):
    run_dir, _ = finished
    folder = workflow["env"]["RUN_DIR"]
    steps = workflow["jobs"]["pipeline"]["steps"]
    taken = [
        line.strip()
        for step in steps
        for key in ("report_paths", "path")
        for line in step.get("with", {}).get(key, "").splitlines()
        if "action-junit" in step["uses"] or "upload" in step["uses"]
    ]
    assert len(taken) == 5
    for path in taken:
        assert path.startswith(folder)
        assert list(run_dir.glob(path.removeprefix(f"{folder}/"))), path
