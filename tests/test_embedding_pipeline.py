"""A student that is trained and exported with its embedding, from the pipeline to what uses it."""

import io
import shutil

import numpy as np
import pytest
import torch
from commands import SHORT, run_cli
from feedback_logs import AUDIT, fill
from feedback_logs import log as log

from distill.contract import load_contract, replay_golden
from distill.files import read_json, sha256_json
from distill.production.prediction_log.queue import reviewed
from distill.production.reference import EMBEDDINGS
from distill.production.registry.package import collect
from distill.runtime import OnnxModel
from distill.training.models import PlainCNN


@pytest.fixture(scope="module")
def embedded(finished, tmp_path_factory):
    """The finished run, exported once more with the embedding and judged again."""
    folder = tmp_path_factory.mktemp("embedded")
    shutil.copytree(finished[0], folder / "run")
    ran = run_cli(
        "pipeline", "run_dir=run", *SHORT, "preflight=false", "embedding=true", cwd=folder
    )
    assert ran.code in (0, 3, 4), ran.stderr
    assert "train/student: unchanged" in ran.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def hidden(embedded):
    """Images to penultimate features, [N, D], by torch and the parts of the student's network."""
    state = torch.load(embedded / "train/student/best.pt", weights_only=True)["state_dict"]
    own = {n.removeprefix("network."): v for n, v in state.items() if n.startswith("network.")}
    network = PlainCNN(10, 1, widths=(16, 24, 28)).eval()
    network.load_state_dict(own)

    def call(images):
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            return network.features((pixels - state["mean"]) / state["std"]).numpy()

    return call


def test_every_file_that_may_ship_keeps_its_promise(embedded, finished, data):
    contract = load_contract(embedded / "export")
    assert (contract.output, contract.further_outputs) == ("logits", ("embedding",))
    for name in ("model.onnx", "model.int8.onnx"):
        model = OnnxModel(embedded / "export" / name)
        assert model.output_names == ["logits", "embedding"]
        replay_golden(embedded / "export", name)
        before = OnnxModel(finished[0] / "export" / name).predict(data.test.served)
        np.testing.assert_allclose(model.predict(data.test.served), before, atol=1e-5)
    for name in ("teacher.onnx", "control.onnx"):
        assert not OnnxModel(embedded / "export" / name).has_embedding
    parities = [
        [
            (check["artefact"], check["name"], check["outcome"], pytest.approx(check["measured"]))
            for check in read_json(run / "verdict.json")["checks"]
            if check["name"].startswith(("parity", "golden"))
        ]
        for run in (embedded, finished[0])
    ]
    assert len(parities[0]) == 5
    assert parities[0] == parities[1]


def test_features_of_reference_rows_are_kept_and_are_part_of_the_version(embedded, hidden, data):
    with np.load(embedded / EMBEDDINGS, allow_pickle=False) as kept:
        assert set(kept.files) == {"model.onnx", "model.int8.onnx"}
        expected = hidden(data.validation.served)  # fewer than there is room for: all, in order
        np.testing.assert_allclose(kept["model.onnx"], expected, rtol=1e-3, atol=1e-4)
        rounded = np.sqrt(np.mean((kept["model.int8.onnx"] - expected) ** 2))
        assert 0 < rounded < 0.1 * expected.std()
    assert EMBEDDINGS in collect(embedded).files


def test_a_run_without_one_has_no_such_file(embedded, finished, cli):
    assert not (finished[0] / EMBEDDINGS).exists()
    assert EMBEDDINGS not in collect(finished[0]).files


def chosen(cli, log, embedded, data, strategy):
    """Fill the log with what the student says of the test images, and have four rows chosen."""
    artefact = embedded / "export/model.onnx"
    records = fill(log, artefact, data.test.served[:120])
    ran = cli(
        "feedback", "select", f"artefact={artefact}", AUDIT, f"strategy={strategy}",
        "limits.budget=4",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert ran.document["has_embedding"]
    classes = sha256_json(list(load_contract(artefact.parent).classes))
    rows = list(reviewed(log, classes))
    audit = {row.prediction.id for row in rows if row.item.split == "audit"}
    picked = sorted(
        (r for r in rows if r.item.split == "active"), key=lambda row: -row.item.priority
    )
    pool = [record for record in records if record.id not in audit]
    return picked, pool


def shown(record):
    return np.load(io.BytesIO(record.input))


def test_core_set_looks_for_what_is_far_in_the_students_own_features(
    cli, log, embedded, hidden, data
):
    picked, pool = chosen(cli, log, embedded, data, "core_set")
    features = hidden(np.stack([shown(row.prediction) for row in picked]))
    others = hidden(np.stack([shown(record) for record in pool]))
    for number in range(1, len(picked)):
        gaps = np.linalg.norm(others[:, None] - features[None, :number], axis=2).min(axis=1)
        assert picked[number].item.score == pytest.approx(gaps.max(), rel=1e-3)


def test_badge_weighs_the_students_own_features_by_its_doubt(cli, log, embedded, hidden, data):
    picked, pool = chosen(cli, log, embedded, data, "badge")
    logits = np.stack([np.frombuffer(record.output, "<f4") for record in pool]).astype(float)
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    doubt = chances - np.eye(10)[chances.argmax(axis=1)]
    features = hidden(np.stack([shown(record) for record in pool]))
    norms = np.linalg.norm(doubt, axis=1) * np.linalg.norm(features, axis=1)
    assert picked[0].item.score == pytest.approx(norms.max(), rel=1e-3)
    assert picked[0].prediction.id == pool[int(norms.argmax())].id


def test_monitor_compares_by_the_int8_files_own_features(cli, log, embedded, data, tmp_path):
    artefact = embedded / "export/model.int8.onnx"
    fill(log, artefact, data.test.served)
    given = (f"run={embedded}", "artefact=model.int8.onnx", f"log.url={log.url}")
    ran = cli("monitor", *given, "until=1790001000", f"out={tmp_path}/out")
    assert ran.code in (0, 4), ran.stderr
    found = ran.document["found"]
    assert {c["name"] for c in found["changes"] if c["group"] == "together"} == {"embedding"}
    num = len(data.validation)
    assert f"of 500 logged inputs beside those of {num} validation rows" in found["together"]
