import json
import shutil

import pytest
from registry_runs import ARTEFACT, Run, make_run, rewrite_json

from distill.errors import UserError
from distill.files import sha256, write_json
from distill.production.registry.package import MANIFEST, VERDICT, collect, read_package


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path / "run")


def test_a_run_without_verdict_is_refused(run_dir, tmp_path):
    with pytest.raises(UserError, match="there is none"):
        collect(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
    (run_dir / "manifests/verdict.json").unlink()  # the pipeline was killed while it judged again
    with pytest.raises(UserError, match="the run has none"):
        collect(run_dir)
    (run_dir / "verdict.json").unlink()
    with pytest.raises(UserError, match="the run has none"):
        collect(run_dir)


def test_an_edited_verdict_is_refused(run_dir):
    rewrite_json(run_dir / "verdict.json", verdict="pass", extra=1)
    with pytest.raises(UserError, match="it was edited"):
        collect(run_dir)


def test_a_verdict_of_another_artefact_is_refused(run_dir, tmp_path):
    other = make_run(tmp_path / "other", Run(seed=1))
    for name in ("verdict.json", "manifests/verdict.json"):
        shutil.copy(other / name, run_dir / name)
    with pytest.raises(UserError, match="judged another artefact"):
        collect(run_dir)


def test_an_artefact_changed_after_its_verdict_is_refused(run_dir):
    path = run_dir / "export" / ARTEFACT
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match="changed after its verdict"):
        collect(run_dir)


@pytest.mark.parametrize(
    "name", ["predictions/test_logits.npz", "export/contract.json", "report.html", "baseline.json"]
)
def test_whatever_was_changed_after_its_stage_is_refused(run_dir, name):
    path = run_dir / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="changed"):
        collect(run_dir)
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        collect(run_dir)


def test_a_verdict_older_than_its_evaluation_is_refused(run_dir):
    manifest = run_dir / "manifests/verdict.json"
    made = json.loads(manifest.read_text())
    made["needs"]["inputs"]["evaluate.json"] = "0" * 64
    manifest.write_text(json.dumps(made))
    with pytest.raises(UserError, match=r"drawn from evaluate\.json"):
        collect(run_dir)


def test_a_verdict_of_an_older_distill_is_refused(run_dir):
    verdict = json.loads((run_dir / "verdict.json").read_text())
    del verdict["artefacts"]
    (run_dir / "verdict.json").write_text(json.dumps(verdict))
    manifest = json.loads((run_dir / "manifests/verdict.json").read_text())
    manifest["outputs"]["verdict.json"] = sha256(run_dir / "verdict.json")
    (run_dir / "manifests/verdict.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="older distill"):
        collect(run_dir)


def test_files_outside_the_folder_are_neither_collected_nor_read(run_dir, tmp_path):
    (tmp_path / "else.onnx").write_bytes(b"secret")
    judged = json.loads((run_dir / "verdict.json").read_text())["artefacts"]
    rewrite_json(run_dir / "verdict.json", artefacts=judged | {"../../else.onnx": "0" * 64})
    rewrite_json(run_dir / "manifests/verdict.json", outputs={VERDICT: sha256(run_dir / VERDICT)})
    with pytest.raises(UserError, match="inside"):
        collect(run_dir)
    write_json(tmp_path / MANIFEST, {"files": {"../else.onnx": "0" * 64}})
    with pytest.raises(UserError, match="inside"):
        read_package(tmp_path)


def test_weights_outside_the_run_folder_are_not_collected(run_dir, tmp_path):
    (tmp_path / "else.pt").write_bytes(b"secret")
    path = run_dir / "export/contract.json"
    provenance = json.loads(path.read_text())["provenance"]
    provenance["quantized_from"] = {"checkpoint": "../else.pt"}
    rewrite_json(path, provenance=provenance)
    with pytest.raises(UserError, match="inside"):
        collect(run_dir)
