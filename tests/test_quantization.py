import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from commands import SHORT
from common_fixtures import exact_int8

from distill.contract import load_contract, replay_golden
from distill.files import read_json, sha256
from distill.runtime import OnnxModel

pytestmark = pytest.mark.slow

FIRST, SECOND = "export/model.int8.onnx", "quantize/int8.onnx"


@pytest.fixture
def run_dir(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "run")


def test_the_row_of_a_recipe_is_of_its_file_on_the_validation_set(finished, data):
    run_dir, _ = finished
    result = read_json(run_dir / "quantize.json")
    (row,) = result["candidates"]
    images, labels = data.validation.inputs, data.validation.labels
    float32, int8 = (
        OnnxModel(run_dir / "quantize" / f"{name}.onnx").predict(images).argmax(1)
        for name in ("float32", "int8")
    )
    assert row["agreement"]["estimate"] == pytest.approx((float32 == int8).mean())
    drop = (float32 == labels).mean() - (int8 == labels).mean()
    assert row["accuracy_drop"]["estimate"] == pytest.approx(drop)
    holds = (float32 == int8).mean() >= 0.99 and drop <= 0.02
    assert row["holds"] == result["holds"] == holds
    assert row["accurate"] == (drop <= 0.02)
    assert result["outcome"] == ("int8" if drop <= 0.02 else "repair needed")
    assert result["chosen"] == SECOND  # the only recipe is taken as it is
    assert row["latency_ratio"] is None


def test_what_was_chosen_is_what_is_exported(finished, data):
    run_dir, _ = finished
    answers = [OnnxModel(run_dir / n).predict(data.test.inputs[:64]) for n in (FIRST, SECOND)]
    np.testing.assert_array_equal(*answers)
    came_from = load_contract(run_dir / "export").provenance["quantized_from"]
    student = run_dir / "train/student/best.pt"
    assert came_from["sha256"] == sha256(student)
    assert (came_from["checkpoint"], came_from["candidate"]) == ("train/student/best.pt", SECOND)


def test_float16_is_exported_beside_float32(run_dir, cli):
    ran = cli("export", "run_dir=run", "quantize=float16", *SHORT)
    assert ran.code == 0, ran.stderr
    assert ran.document["artefacts"] == ["model.onnx", "model.fp16.onnx"]
    assert not (run_dir / FIRST).exists()
    assert replay_golden(run_dir / "export", "model.fp16.onnx") < 1e-3
    evaluated = cli("evaluate", "run_dir=run", *SHORT)
    assert "student_fp16" in evaluated.document["models"]
    drop = evaluated.document["margins"]["student_fp16"]["drop_vs_float32"]
    assert abs(drop["estimate"]) < 0.01
    assert evaluated.document["margins"]["student"]["drop_vs_float32"] is None


def test_another_recipe_runs_the_stage_again_and_the_same_one_does_not(run_dir, cli):
    same = cli("export", "run_dir=run", *SHORT)
    assert "quantize: unchanged, not run again" in same.stderr
    assert "export: unchanged, not run again" in same.stderr
    other = cli("export", "run_dir=run", "quantize.calibration=percentile", *SHORT)
    assert other.code == 0, other.stderr
    assert "quantize: unchanged" not in other.stderr


def test_the_search_measures_and_exports_only_what_it_chose(run_dir, cli):
    measured = (*SHORT, "effort.processes=3")  # of one alone there is no interval
    ran = cli("export", "run_dir=run", "quantize=auto", "quantize.max_candidates=2", *measured)
    assert ran.code == 0, ran.stderr
    result = read_json(run_dir / "quantize.json")
    rows = {row["recipe"]: row for row in result["candidates"]}
    assert {"static", "static_percentile", "gemm_only", "dynamic", "float16"} <= set(rows)
    assert rows["static_no_depthwise"]["reason"] == "the same file as static"
    assert all(row["latency_ratio"] or row["reason"] for row in rows.values())
    fit = [
        row
        for row in rows.values()
        if row["holds"] and row["latency_ratio"] and row["latency_ratio"]["interval"][1] < 1
    ]
    assert (result["chosen"] is not None) == bool(fit)
    assert ran.document["artefacts"] == ["model.onnx", *filter(None, [result["artefact"]])]


def test_an_unknown_calibration_is_one_message(run_dir, cli):
    ran = cli("export", "run_dir=run", "quantize.calibration=median", *SHORT)
    assert ran.code == 2
    assert "minmax, percentile, entropy" in ran.stderr
    assert "Traceback" not in ran.stderr


STRICT = ("budget.accuracy.max_drop_vs_float32=-1", *SHORT)


def test_without_a_repair_stderr_says_what_to_do(run_dir, cli):
    ran = cli("export", "run_dir=run", "repair=null", *STRICT)
    assert ran.code == 0, ran.stderr
    assert "`repair` is not configured" in ran.stderr
    assert ran.document["quantized"]["outcome"] == "repair needed"
    assert ran.document["artefacts"] == ["model.onnx", "model.int8.onnx"]  # taken as it is


@exact_int8
def test_repaired_weights_are_quantised_and_the_float32_student_stays(
    run_dir, cli, monkeypatch, data
):
    """A stand-in for training with int8 in the loop: the control's weights."""
    asked = []

    def repair_stage(workspace, quantized, checkpoint):
        asked.append(quantized["outcome"])
        return workspace.run_dir / "train/control/best.pt"

    stand_in = SimpleNamespace(repair_stage=repair_stage)
    monkeypatch.setitem(sys.modules, "distill.verbs.exporting.repair", stand_in)
    before = OnnxModel(run_dir / "export/model.onnx").predict(data.validation.inputs)
    ran = cli("export", "run_dir=run", "+repair.epochs=1", *STRICT)
    assert ran.code == 0, ran.stderr
    assert asked == ["repair needed"]
    images, labels = data.validation.inputs, data.validation.labels
    own, float32, int8 = (
        OnnxModel(run_dir / name).predict(images)
        for name in ("quantize_repaired/float32.onnx", "export/model.onnx", FIRST)
    )
    np.testing.assert_array_equal(float32, before)
    control = OnnxModel(run_dir / "export/control.onnx").predict(images)
    np.testing.assert_array_equal(own, control)
    same = (own.argmax(1) == int8.argmax(1)).mean()
    assert ran.document["parity"]["model.int8.onnx"]["top1_agreement"] == pytest.approx(same)
    (row,) = read_json(run_dir / "quantize_repaired.json")["candidates"]
    drop = (float32.argmax(1) == labels).mean() - (int8.argmax(1) == labels).mean()
    assert row["accuracy_drop"]["estimate"] == pytest.approx(drop)
    came_from = load_contract(run_dir / "export").provenance["quantized_from"]
    assert came_from["checkpoint"] == "train/control/best.pt"
