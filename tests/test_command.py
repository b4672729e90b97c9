"""Claims about a run folder: it says what it was started with, and trains on nothing else."""

import shlex

import numpy as np
import pytest
import yaml
from commands import SHORT
from PIL import Image

from distill.verbs.run.command import header

PHOTOS = ("experiment=image_folder", "data.root=photos", "student=tiny_cnn", "run_dir=run")


@pytest.fixture
def trained(cli, tmp_path):
    """A run folder of pictures, as if its control and student had been trained in it."""
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for own in range(10):
            pixels = np.random.default_rng(own).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{own}.png")
    # With such a loss nothing is trained, and the folder has its configuration.
    ran = cli(
        "pipeline",
        *PHOTOS,
        "registry.tracking_uri=http://me:hunter2@host",
        "loss.kd.temperature=-1",
    )
    assert ran.code != 0
    made = tmp_path / "run/manifests/train"
    made.mkdir(parents=True)
    (made / "student.json").write_text("{}")
    return tmp_path / "run"


def test_a_run_folder_keeps_its_command_without_secrets(trained):
    first = (trained / "config.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# in {trained.parent}: distill pipeline experiment=image_folder ")
    assert "data.root=photos" in first
    assert "hunter2" not in first
    assert yaml.safe_load((trained / "config.yaml").read_text())["data"]["root"] == "photos"


def test_other_data_are_refused_before_anything_is_written_and_the_command_is_said(trained, cli):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    ran = cli("pipeline", "run_dir=run", "budget.latency.p95_ms=2")
    assert ran.code == 2
    assert "`data._target_` distill.training.data.sources.digits (was " in ran.stderr
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before
    said = ran.stderr.partition("`distill ")[2].partition("`")[0]
    verb, *words = shlex.split(said)
    assert verb == "pipeline"
    assert {"experiment=image_folder", "data.root=photos", "run_dir=run"} <= {*words}
    assert "budget.latency.p95_ms=2" in words
    composed = [word for word in words if "<redacted>" not in word]
    assert cli(verb, *composed, "--cfg", "job").code == 0


def test_the_command_leaves_out_what_would_change_the_data_again(trained, cli):
    ran = cli("train", "student", "data=digits", "run_dir=run", "seeds=2")
    said = ran.stderr.partition("`distill ")[2].partition("`")[0]
    assert "data=digits" not in said
    assert said.startswith("train experiment=image_folder data.root=photos ")
    assert {"action=student", "seeds=2", "run_dir=run"} <= {*shlex.split(said)}


def test_another_kind_of_student_is_refused_where_one_was_trained(trained, cli):
    ran = cli("pipeline", *PHOTOS, "student=resnet8")
    assert (ran.code, "`student._target_` distill.training.models.CifarResNet" in ran.stderr) == (
        2,
        True,
    )
    (trained / "manifests/train/student.json").rename(trained / "manifests/train/teacher.json")
    ran = cli("pipeline", *PHOTOS, "student=resnet8", "loss.kd.temperature=-1")
    assert "was trained with" not in ran.stderr


def test_the_same_data_by_another_path_or_moved_are_the_same(trained, cli, tmp_path):
    for name in ("photos", "moved"):
        (tmp_path / "photos").rename(tmp_path / name)
        ran = cli("pipeline", *PHOTOS, f"data.root={tmp_path / name}", "loss.kd.temperature=-1")
        assert "was trained with" not in ran.stderr
        assert "temperature" in ran.stderr


def test_a_verb_without_data_leaves_the_configuration_of_a_training(finished):
    folder, _ = finished
    text = (folder / "config.yaml").read_text()
    assert text.startswith(f"# in {folder.parent}: distill pipeline run_dir=run ")
    assert all(word in text.splitlines()[0] for word in SHORT)


def test_a_folder_that_no_command_names_has_no_header(tmp_path):
    assert header(tmp_path / "attempt") == ""
