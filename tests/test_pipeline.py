import json
import re
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from commands import SHORT, run_cli
from PIL import Image
from warm import command, kill_when

from distill.contract import load_contract, replay_golden
from distill.errors import UserError
from distill.files import read_json, sha256, write_json
from distill.runtime import OnnxModel
from distill.verbs.stages.unchanged import RECORD

pytestmark = pytest.mark.slow

STAGES = {
    "preflight", "baseline", "train/teacher", "teacher", "soft_labels", "train/control",
    "train/student", "export_teacher", "export_control", "quantize", "export", "evaluate",
    "reference", "benchmark", "verdict",
}  # fmt: skip


def test_the_last_line_is_the_verdict_that_stands_in_the_run_folder(finished):
    run_dir, ran = finished
    assert ran.document == read_json(run_dir / "verdict.json")
    assert ran.document["verdict"] in ("pass", "fail", "inconclusive")
    assert {"pass": 0, "fail": 3, "inconclusive": 4}[ran.document["verdict"]] == ran.code
    assert set(ran.document["models"]) == {
        "baseline", "teacher", "control", "student", "student_int8"
    }  # fmt: skip
    names = {(c["artefact"], c["name"]) for c in ran.document["checks"]}
    assert ("model.onnx", "parity_logit_std") in names
    assert ("model.int8.onnx", "parity_logit_std") not in names
    assert ("model.int8.onnx", "p95_latency_ms") in names
    assert ("model.int8.onnx", "drop_vs_float32") in names
    assert ("model.onnx", "drop_vs_float32") not in names


def test_accuracy_in_the_verdict_is_that_of_the_exported_file(finished, data):
    run_dir, ran = finished
    for role, artefact in (("student", "model.onnx"), ("student_int8", "model.int8.onnx")):
        answers = OnnxModel(run_dir / "export" / artefact).predict(data.test.inputs).argmax(1)
        expected = (answers == data.test.labels).mean()
        assert ran.document["models"][role]["accuracy"] == pytest.approx(expected)
        assert artefact in ran.document["models"][role]["measured_through"]


def test_the_drop_of_int8_is_paired_with_the_float32_file_on_the_test_set(finished, data):
    run_dir, ran = finished
    names = ("model.onnx", "model.int8.onnx")
    models = [OnnxModel(run_dir / "export" / name) for name in names]
    right = [model.predict(data.test.inputs).argmax(1) == data.test.labels for model in models]
    check = next(c for c in ran.document["checks"] if c["name"] == "drop_vs_float32")
    assert check["measured"] == pytest.approx(right[0].mean() - right[1].mean())
    assert check["interval"][0] <= check["measured"] <= check["interval"][1]
    assert check["limit"] == 0.02
    assert "drop_vs_float32" in (run_dir / "report.html").read_text()


def test_control_and_student_start_from_the_same_weights_and_see_the_same_batches(finished):
    run_dir, _ = finished
    control, student = (
        read_json(run_dir / f"train/{role}.json") for role in ("control", "student")
    )
    for key in ("num_parameters", "last_epoch"):
        assert control[key] == student[key]
    histories = [read_json(run_dir / f"train/{r}/history.json") for r in ("control", "student")]
    assert [h[0]["learning_rate"] for h in histories] == [histories[0][0]["learning_rate"]] * 2


def test_the_artefacts_carry_their_contract_and_replay_their_golden_samples(finished):
    run_dir, _ = finished
    folder = run_dir / "export"
    contract = load_contract(folder)
    assert contract.classes == tuple("0123456789")
    for name in ("model.onnx", "model.int8.onnx"):
        metadata = {p.key: p.value for p in onnx.load(folder / name).metadata_props}
        assert metadata["distill.contract_sha256"] == contract.sha256
        assert replay_golden(folder, name) < 1e-4
    facts = read_json(run_dir / "train/teacher/teacher.json")
    assert contract.provenance["teacher"]["fingerprint"] == facts["fingerprint"]


def test_golden_samples_tell_a_changed_model(finished, tmp_path):
    run_dir, _ = finished
    folder = shutil.copytree(run_dir / "export", tmp_path / "export")
    shutil.copy(folder / "control.onnx", folder / "model.onnx")
    with pytest.raises(UserError, match="golden samples"):
        replay_golden(folder, "model.onnx")


def test_raw_nanoseconds_are_kept(finished):
    run_dir, _ = finished
    with np.load(run_dir / "benchmark.npz", allow_pickle=False) as raw:
        assert {"model.onnx", "model.onnx#control", "teacher.onnx"} <= set(raw.files)
        p95 = np.percentile(raw["model.onnx"], 95) / 1e6
    rows = {r["artefact"]: r for r in read_json(run_dir / "benchmark.json")["artefacts"]}
    assert rows["model.onnx"]["p95_latency_ms"]["estimate"] == pytest.approx(p95)


def test_the_students_weights_stand_alone_and_load_without_pickle(finished):
    run_dir, _ = finished
    content = torch.load(run_dir / "train/student/best.pt", weights_only=True)
    assert all(name.startswith(("network.", "mean", "std")) for name in content["state_dict"])


def test_a_finished_stage_is_not_run_again(finished, cli, tmp_path):
    run_dir, ran = finished
    copy = shutil.copytree(run_dir, tmp_path / "run")
    (copy / RECORD).unlink()  # with it, the stages would not even be asked
    again = cli("pipeline", "run_dir=run", *SHORT)
    assert again.stderr.count("unchanged, not run again") == len(STAGES)
    assert again.document == ran.document


def test_on_another_processor_it_is_measured_again_and_nothing_is_trained(
    finished, cli, tmp_path, monkeypatch
):
    shutil.copytree(finished[0], tmp_path / "run")
    modules = (
        "deployment.targets.local",
        "verbs.stages.unchanged",
        "verbs.baseline",
        "verbs.evaluate",
    )
    for module in modules:
        monkeypatch.setattr(f"distill.{module}.processor", lambda: "another")
    again = cli("pipeline", "run_dir=run", *SHORT)
    unchanged = set(re.findall(r"(\S+): unchanged, not run again", again.stderr))
    assert unchanged == STAGES - {"preflight", "baseline", "evaluate", "benchmark", "verdict"}
    # What is trained is judged there, and not refused as a student that nobody has trained.
    slow = cli("pipeline", "run_dir=run", "budget.latency.p95_ms=0.0001", *SHORT)
    assert slow.code == 3
    assert slow.document["models"]
    # So is what was trained before its result had a hash of the network.
    result, manifest = (tmp_path / f"run/{own}train/student.json" for own in ("", "manifests/"))
    write_json(result, {k: v for k, v in read_json(result).items() if k != "network_sha256"})
    made = read_json(manifest)
    made["outputs"]["train/student.json"] = sha256(result)
    write_json(manifest, made)
    older = cli("pipeline", "run_dir=run", "budget.latency.p95_ms=0.0001", *SHORT)
    assert older.code == 3
    assert older.document["models"]


def test_a_measurement_that_broke_off_is_not_the_last_word(finished, cli, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    result = tmp_path / "run/benchmark.json"
    write_json(result, read_json(result) | {"incomplete": "the device went away"})
    manifest = tmp_path / "run/manifests/benchmark.json"
    made = read_json(manifest)
    made["outputs"]["benchmark.json"] = sha256(result)
    write_json(manifest, made)
    again = cli("pipeline", "run_dir=run", *SHORT)
    assert "benchmark: unchanged" not in again.stderr
    assert "train/student: unchanged" in again.stderr
    assert read_json(result)["incomplete"] is None


def test_what_judges_a_run_leaves_the_record_of_how_it_was_trained(finished, cli, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    before = (tmp_path / "run/config.yaml").read_text()
    for given in (["evaluate"], ["baseline", "annotate", "n=30"]):
        assert cli(*given, "run_dir=run", "loss=dkd").code == 0
        assert (tmp_path / "run/config.yaml").read_text() == before


def test_the_stages_as_verbs_leave_what_the_pipeline_then_finds(cli):
    for verb in ("baseline", "train", "export", "evaluate"):
        ran = cli(verb, "run_dir=run", *SHORT[:2])
        assert ran.code == 0, ran.stderr
    assert set(ran.document["models"]) == {"teacher", "control", "student", "student_int8"}
    ran = cli("pipeline", "run_dir=run", *SHORT, "preflight=false")
    assert ran.stderr.count("unchanged, not run again") == len(
        STAGES - {"preflight", "reference", "benchmark", "verdict"}
    )


def test_float32_alone_may_be_shipped(finished, cli, tmp_path):
    run_dir, _ = finished
    shutil.copytree(run_dir, tmp_path / "run")
    ran = cli("pipeline", "run_dir=run", "quantize=none", *SHORT)
    assert "student_int8" not in ran.document["models"]
    assert not (tmp_path / "run/export/model.int8.onnx").exists()


def test_another_budget_judges_again_without_training_again(finished, cli, tmp_path):
    run_dir, _ = finished
    copy = shutil.copytree(run_dir, tmp_path / "impossible")
    ran = cli("pipeline", "run_dir=impossible", "budget.latency.p95_ms=0.0001", *SHORT)
    assert ran.code == 3
    assert ran.document["verdict"] == "fail"
    assert ran.document["chosen"] == {"artefact": None, "target": None}
    # Measured again, too: the limit says for how long.
    assert ran.stderr.count("unchanged, not run again") == len(STAGES) - 2
    failed = ElementTree.parse(copy / "junit.xml").findall(".//failure")
    assert any("limit 0.0001" in failure.get("message") for failure in failed)
    assert "fail" in (copy / "report.html").read_text()


def test_a_run_killed_in_training_export_and_benchmark_ends_as_if_it_had_not_been(
    finished, tmp_path
):
    reference, _ = finished
    run_dir = tmp_path / "run"
    for sign in ("train/control/last.ckpt", "export/control.onnx", "evaluate.json"):
        kill_when((run_dir / sign).exists, command("pipeline", "run_dir=run", *SHORT, cwd=tmp_path))
        for path in run_dir.rglob("*.json"):
            json.loads(path.read_text())  # whole or absent
        for path in run_dir.rglob("*.onnx"):
            if not path.name.startswith("."):
                onnx.checker.check_model(onnx.load(path))
    last = run_cli("pipeline", "run_dir=run", *SHORT, cwd=tmp_path)
    assert last.code in (0, 3, 4), last.stderr
    assert "train/teacher: unchanged, not run again" in last.stderr
    assert not list(run_dir.rglob(".tmp-*"))
    for role in ("teacher", "control", "student"):
        states = [
            torch.load(d / f"train/{role}/best.pt", weights_only=True)["state_dict"]
            for d in (reference, run_dir)
        ]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), role


def test_predictions_of_a_folder_a_csv_and_a_parquet_file(finished, cli, tmp_path, data):
    run_dir, _ = finished
    artefact = run_dir / "export" / "model.int8.onnx"
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(6):
        Image.fromarray(data.test.inputs[i, :, :, 0]).save(folder / f"{i}.png")
    (folder / "6.png").write_bytes(b"no image")
    (tmp_path / "list.csv").write_text("file\n" + "\n".join(f"images/{i}.png" for i in range(6)))
    common = [f"artefact={artefact}", "skip_corrupt=true"]
    ran = cli("predict", *common, "input=images", "output=a.parquet")
    assert (ran.document["num_predictions"], ran.document["num_skipped"]) == (6, 1)
    table = pq.read_table(tmp_path / "a.parquet")
    expected = OnnxModel(artefact).predict(data.test.inputs[:6])
    np.testing.assert_allclose(table["logits"].to_pylist(), expected, rtol=1e-5)
    assert table["label"].to_pylist() == [str(label) for label in expected.argmax(1)]
    assert table["name"].to_pylist() == [f"{i}.png" for i in range(6)]
    cli("predict", *common, "input=list.csv", "column=file", "output=b.parquet")
    assert pq.read_table(tmp_path / "b.parquet")["logits"].equals(table["logits"])


def test_a_contract_of_another_model_is_refused(finished, cli, tmp_path):
    run_dir, _ = finished
    folder = shutil.copytree(run_dir / "export", tmp_path / "export")
    contract = json.loads((folder / "contract.json").read_text())
    contract["classes"] = contract["classes"][::-1]
    (folder / "contract.json").write_text(json.dumps(contract))
    ran = cli("predict", f"artefact={folder / 'model.onnx'}", "input=.")
    assert ran.code == 1
    assert "hash of the contract" in ran.stderr


def test_any_onnx_file_can_be_benchmarked(finished, cli, tmp_path):
    run_dir, _ = finished
    shutil.copy(run_dir / "export" / "control.onnx", tmp_path / "mine.onnx")
    options = ["budget=edge", "effort=quick", "effort.max_seconds=120", "run_dir=bench"]
    ran = cli("benchmark", "artefacts=[mine.onnx]", *options)  # ends as soon as it is decided
    assert ran.code == 0, ran.stderr
    assert ran.document["chosen"]["artefact"] == "mine.onnx"
    assert (tmp_path / "bench" / "report.html").exists()


def test_a_teacher_from_a_checkpoint_is_not_trained(finished, cli, tmp_path):
    run_dir, _ = finished
    checkpoint = run_dir / "train/teacher/best.pt"
    ran = cli("train", "teacher", "run_dir=run", f"teacher.checkpoint={checkpoint}")
    assert ran.code == 0, ran.stderr
    taken = torch.load(tmp_path / "run/train/teacher/best.pt", weights_only=True)["state_dict"]
    given = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(taken[name], given[name]) for name in given)


def test_a_checkpoint_with_other_classes_is_refused(finished, cli, tmp_path):
    run_dir, _ = finished
    content = torch.load(run_dir / "train/student/best.pt", weights_only=True)
    content["classes"] = [f"class {i}" for i in range(10)]
    torch.save(content, tmp_path / "other.pt")
    ran = cli("export", "run_dir=run", "checkpoint=other.pt")
    assert ran.code == 1
    assert "Expected the checkpoint other.pt to have the 10 classes 0, 1" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.browser
def test_the_report_opens_offline_in_a_browser(finished, require, tmp_path):
    run_dir, _ = finished
    chromium = require("browser", "chromium")
    html = (run_dir / "report.html").read_text()
    assert "<script" not in html
    assert 'src="http' not in html
    assert "@import" not in html
    picture = tmp_path / "report.png"
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,3000",
            f"--screenshot={picture}", f"file://{run_dir / 'report.html'}",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert picture.exists(), done.stderr
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    green = (np.abs(pixels.astype(int) - [26, 127, 75]) < 8).all(axis=2)
    assert green.sum() > 500  # the badges of checks that pass are drawn
