"""Claims about `repair_stage` on a finished run of real digits."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from commands import SHORT, run_cli
from common_fixtures import make_file
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from warm import kill_when

from distill.cli import config_dir
from distill.deployment.export import export_onnx
from distill.deployment.quantize.recipes import StaticInt8
from distill.files import read_json, sha256
from distill.runtime import OnnxModel
from distill.verbs.exporting.repair import ROLE, repair_stage
from distill.verbs.learning.networks import load_student, weights_path
from distill.verbs.run.workspace import open_workspace

pytestmark = pytest.mark.slow
NAMES = ("float", "int8")
FAILED = {
    "outcome": "repair needed",
    "candidates": [{"recipe": "static", "precision": "int8", "reason": None}],
}


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of a finished run, to go on with."""
    return shutil.copytree(finished[0], tmp_path / "run")


def workspace(run_dir, *overrides):
    """Open a run as a verb does."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("pipeline", ["name=digits", f"run_dir={run_dir}", *SHORT, *overrides])
    OmegaConf.set_struct(cfg, False)
    return open_workspace(cfg)


def repaired(run_dir, *overrides, quantized=FAILED):
    with workspace(run_dir, *overrides) as opened:
        path = repair_stage(opened, quantized, weights_path(opened.run_dir, "student"))
        load_student(opened, path)
    return path


def test_the_repaired_weights_are_a_plain_students_with_a_temperature_of_their_own(run_dir):
    student, teacher = (weights_path(run_dir, role) for role in ("student", "teacher"))
    before = {path: sha256(path) for path in (student, teacher)}
    path = repaired(run_dir)
    assert path == run_dir / "train/student_qat/best.pt"
    first, second = (torch.load(p, weights_only=True) for p in (student, path))
    assert set(second) == set(first)
    assert set(second["state_dict"]) == set(first["state_dict"])
    assert second["temperature"] != first["temperature"]
    for name, tensor in second["state_dict"].items():
        frozen = "running" in name or "num_batches" in name or name in ("mean", "std")
        assert torch.equal(tensor, first["state_dict"][name]) == frozen, name
    assert {path: sha256(path) for path in before} == before
    history = read_json(path.parent / "history.json")
    assert len(history) == 3
    assert history[0]["train/kd"] > 0


def test_a_repair_runs_once_and_again_where_the_student_or_the_bits_have_changed(run_dir):
    path = repaired(run_dir)
    made = path.stat().st_mtime_ns
    repaired(run_dir)
    assert path.stat().st_mtime_ns == made
    other = {"outcome": "repair needed", "candidates": [], "seconds": 7.5}
    repaired(run_dir, quantized=other)
    assert path.stat().st_mtime_ns == made
    eight = torch.load(path, weights_only=True)["state_dict"]
    repaired(run_dir, "+quantize.reduce_range=true")
    seven = torch.load(path, weights_only=True)["state_dict"]
    assert not torch.equal(eight["network.head.1.weight"], seven["network.head.1.weight"])
    student = weights_path(run_dir, "student")
    shutil.copy(run_dir / "train/student/last.pt", student)
    content = torch.load(student, weights_only=True)
    content["state_dict"]["network.head.1.bias"] += 0.1
    torch.save(content, student)
    made = path.stat().st_mtime_ns
    repaired(run_dir)
    assert path.stat().st_mtime_ns > made


def test_a_repair_killed_by_sigkill_goes_on_and_ends_bit_identical(run_dir, tmp_path):
    whole = shutil.copytree(run_dir, tmp_path / "whole")
    epochs = "repair.trainer.max_epochs=10"
    last = run_dir / "train" / ROLE / "last.ckpt"
    kill_when(last.exists, partial(repaired, run_dir, epochs))
    assert not (run_dir / "train" / ROLE / "best.pt").exists()
    states = [torch.load(repaired(d, epochs), weights_only=True) for d in (run_dir, whole)]
    assert states[0]["temperature"] == states[1]["temperature"]
    for name, tensor in states[0]["state_dict"].items():
        assert torch.equal(tensor, states[1]["state_dict"][name]), name


def uneven(path, factor):
    """Scale a channel up ahead of a ReLU and down again behind it: in float, the same function."""
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    for kind in ("weight", "bias"):
        state[f"network.features.2.1.{kind}"][3] *= factor
    state["network.features.4.0.weight"][:, 3] /= factor
    torch.save(content, path)


def int8_beside_float(run_dir, path, data):
    """Accuracy of a student in float and of its int8 file, on the validation set."""
    with workspace(run_dir) as opened:
        model = load_student(opened, path)
    folder = path.parent / "files"
    folder.mkdir(exist_ok=True)
    export_onnx(model, data.image_shape, folder / "float.onnx")
    make_file(StaticInt8(), folder / "float.onnx", folder / "int8.onnx", data.train.inputs)
    logits = [OnnxModel(folder / f"{n}.onnx").predict(data.validation.inputs) for n in NAMES]
    return [float(np.mean(found.argmax(axis=1) == data.validation.labels)) for found in logits]


def test_a_repair_mends_what_rounding_has_broken(run_dir, data):
    student = weights_path(run_dir, "student")
    sound = int8_beside_float(run_dir, student, data)
    uneven(student, 120)
    broken = int8_beside_float(run_dir, student, data)
    assert broken[0] == pytest.approx(sound[0], abs=0.01)
    assert broken[1] < sound[1] - 0.1
    mended = int8_beside_float(run_dir, repaired(run_dir, "repair.trainer.max_epochs=8"), data)
    assert mended[1] > sound[1] - 0.02


@pytest.mark.parametrize(
    "override",
    ["soft_labels=none", "compile=true", "trainer=ddp", "loss=at"],
    ids=lambda override: override,
)
def test_a_repair_goes_with_what_other_trainings_go_with(run_dir, override, require):
    more = ["repair.trainer.max_epochs=1"]
    if override == "compile=true":
        require("compiler", "g++")
    if override == "loss=at":
        more += ["soft_labels=none", "loss.at.student_tap=features.4"]
        more += ["loss.at.teacher_tap=features.4"]
    path = repaired(run_dir, override, *more)
    assert len(read_json(path.parent / "history.json")) == 1


def test_a_wrong_repair_is_refused_before_the_first_epoch(tmp_path):
    ran = run_cli("train", "run_dir=run", "repair.optimizer.lr=-1", *SHORT, cwd=tmp_path)
    assert ran.code in (1, 2)
    assert "learning rate" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "train/teacher ──" not in ran.stderr
    ran = run_cli("train", "--cfg", "job", "repair=null", cwd=tmp_path)
    assert "repair: null" in ran.stdout
