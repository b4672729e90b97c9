"""A finished pipeline is not run again, and anything that it depends on makes it run."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import SHORT
from omegaconf import OmegaConf

from distill.budget import Budget
from distill.files import write_json, write_text
from distill.run_folder import Stage
from distill.verbs.exporting.measuring import benchmark_stage, may_tell_more
from distill.verbs.stages.unchanged import RECORD, needs_of, nothing_to_do

VERDICT = {
    "verdict": "pass",
    "metric": "accuracy",
    "models": {},
    "checks": [],
    "chosen": {"artefact": None},
    "did_distillation_help": "No.",
    "report": "report.html",
}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A run folder with one stage, the data it read, the class it used, and its configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as the front door has it
    run_dir, data = tmp_path / "run", tmp_path / "photos"
    write_text(data / "cat" / "1.png", "a cat")
    write_text(tmp_path / "mine.py", "class Net: ...")
    write_text(tmp_path / "house" / "net.py", "class Net: ...")
    student = {"_target_": "mine.Net", "depth": 3}
    teacher = {"_target_": "house.net.Net"}
    values = {"run_dir": str(run_dir), "name": "n", "data": {"root": "photos"}}
    cfg = OmegaConf.create(values | {"student": student, "teacher": teacher})

    def compute():
        write_text(run_dir / "report.html", "report")
        return VERDICT

    Stage(name="verdict", outputs=("report.html",)).run(run_dir, compute)
    files = json.loads((run_dir / "manifests/verdict.json").read_text())["outputs"]
    write_json(run_dir / RECORD, {"needs": needs_of(cfg), "files": files})
    return cfg


DISTURBED = {"incomplete": None, "problems": ["another program ran"]}


def open_check(name, artefact="a", *, measured=1.0, outcome="inconclusive"):
    """A line of a budget as a verdict has it."""
    return {"name": name, "artefact": artefact, "measured": measured, "outcome": outcome}


def _again(cfg):
    return nothing_to_do(cfg, needs_of(cfg))


def test_the_verdict_comes_back(made):
    assert _again(made) == VERDICT


def test_what_a_measurement_left_open_is_measured_again(made):
    report = Path(made.run_dir) / "benchmark.json"
    write_json(report, {"incomplete": None, "problems": ["another program ran"]})
    assert _again(made) == VERDICT  # which stands all the same
    write_json(report, {"incomplete": "the device went away", "problems": []})
    assert _again(made) is None


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive", None])
def test_a_disturbed_machine_is_asked_again_where_it_left_the_verdict_open(tmp_path, verdict):
    if verdict:
        checks = [open_check("p95_latency_ms")]
        write_json(tmp_path / "verdict.json", {"verdict": verdict, "checks": checks})
    assert may_tell_more(tmp_path, DISTURBED) == (verdict == "inconclusive")
    assert not may_tell_more(tmp_path, DISTURBED | {"problems": []})


@pytest.mark.parametrize("measures_again", [True, False])
def test_a_search_that_goes_on_does_not_measure_again(tmp_path, measures_again):
    asked = []
    workspace = SimpleNamespace(
        cfg=OmegaConf.create({part: {} for part in ("target", "scenario", "runtime", "effort")}),
        run_dir=tmp_path,
        budget=Budget(),
        stage=lambda *given, again, **named: asked.append(
            again(DISTURBED | {"incomplete": "gone"})
        ),
    )
    workspace.cfg.seed = 0
    benchmark_stage(workspace, [], np.zeros(1), measures_again=measures_again)
    assert asked == [measures_again]


@pytest.mark.parametrize(
    ("checks", "again"),
    [
        ([open_check("p50_latency_ms"), open_check("accuracy")], True),
        ([open_check("cold_start_ms")], True),
        ([open_check("min_samples_per_second")], True),
        ([open_check("accuracy")], False),
        ([open_check("peak_rss_bytes"), open_check("drop_vs_teacher")], False),
        ([open_check("p95_latency_ms", measured=None)], False),  # of arrivals, say
        ([open_check("p95_latency_ms"), open_check("accuracy", outcome="fail")], False),
        ([open_check("p95_latency_ms"), open_check("accuracy", "b", outcome="fail")], True),
    ],
)
def test_time_is_measured_again_only_where_time_is_what_is_open(tmp_path, checks, again):
    write_json(tmp_path / "verdict.json", {"verdict": "inconclusive", "checks": checks})
    assert may_tell_more(tmp_path, DISTURBED) == again


def test_the_users_own_data_are_read_whatever_they_are(made):
    own = {"_target_": "mine.photos"}
    cfg = OmegaConf.merge(made, {"data": own})
    record = Path(made.run_dir) / RECORD
    write_json(record, json.loads(record.read_text()) | {"needs": needs_of(cfg)})
    assert _again(cfg) is None


def test_links_are_followed_and_one_to_nothing_is_told_from_one_to_something(made, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write_text(elsewhere / "1.png", "a dog")
    (tmp_path / "photos" / "dog").symlink_to(elsewhere)
    (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "gone.png").symlink_to(tmp_path / "nothing")
    needs = needs_of(made)
    write_text(elsewhere / "1.png", "another dog")
    assert needs_of(made) != needs
    needs = needs_of(made)
    write_text(tmp_path / "nothing", "something")
    assert needs_of(made) != needs


@pytest.mark.parametrize(
    "changed",
    ["photos/cat/1.png", "mine.py", "house/net.py", "run/report.html", "run/verdict.json"],
)
def test_a_changed_file_makes_it_run(made, changed):
    path = Path(changed)
    path.write_text(path.read_text() + " ")
    assert _again(made) is None


@pytest.mark.parametrize("missing", ["photos/cat/1.png", "run/report.html", f"run/{RECORD}"])
def test_a_missing_file_makes_it_run(made, missing):
    Path(missing).unlink()
    assert _again(made) is None


def test_a_new_image_makes_it_run(made):
    write_text(Path("photos/cat/2.png"), "another cat")
    assert _again(made) is None


def test_another_setting_makes_it_run(made):
    made.student.depth = 4
    assert _again(made) is None


def test_another_champion_makes_it_run(made, monkeypatch):
    made.against = "champion"
    production = ["a" * 64]
    monkeypatch.setattr(
        "distill.verbs.stages.unchanged.champion_sha256", lambda cfg: production[-1]
    )
    before = needs_of(made)
    assert needs_of(made) == before
    production.append("b" * 64)
    assert needs_of(made) != before


def test_another_version_makes_it_run(made, monkeypatch):
    monkeypatch.setattr("distill.verbs.stages.unchanged.versions", lambda: {"torch": "9.9"})
    assert _again(made) is None


def test_another_processor_makes_it_run(made, monkeypatch):
    monkeypatch.setattr("distill.verbs.stages.unchanged.processor", lambda: "another")
    assert _again(made) is None


@pytest.mark.slow
def test_the_command_says_so_and_loads_no_torch(finished):
    run_dir, first = finished
    program = (
        "import sys; from distill.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'lightning', 'sklearn'} & set(sys.modules), 'loaded'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "pipeline", "run_dir=run", *SHORT],
        cwd=run_dir.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == first.code, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == first.document
    assert "nothing was run" in done.stderr
