"""Claims about the README's four jobs: they are done as they are written."""

import json
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from io import BytesIO

import httpx
import numpy as np
import pytest
import torch
from commands import REPOSITORY
from PIL import Image
from recipes import churn, do, jobs, normalised, photos, teacher

pytestmark = pytest.mark.slow
PHOTOS, TABLE, SAVED, PRODUCTION = jobs()
ENDED = (0, 3, 4)  # whatever the verdict, after so little training


def test_ones_own_network_and_photos_become_an_int8_file(tmp_path, rng):
    images, labels = photos(tmp_path / "photos", rng)
    torch.save(teacher(images, labels).state_dict(), tmp_path / "teacher.pt")
    (tmp_path / "photos").rename(tmp_path / "new_photos")
    photos(tmp_path / "photos", np.random.default_rng(0))
    ran = do(PHOTOS[0], tmp_path)
    assert ran.code in ENDED, ran.stderr
    assert ran.document["models"]["teacher"]["accuracy"] > 0.9
    ran = do(PHOTOS[1], tmp_path)
    assert (ran.code, ran.document["num_predictions"]) == (0, 120), ran.stderr


def test_a_forest_becomes_a_network_beside_the_naive_baseline(tmp_path, rng):
    churn(tmp_path, rng)
    ran = do(TABLE[0], tmp_path, "teacher.estimator.n_estimators=20", "teacher.folds=2")
    assert ran.code in ENDED, ran.stderr
    assert "baseline" in ran.document["models"]
    ran = do(TABLE[1], tmp_path)
    assert (ran.code, ran.document["num_predictions"]) == (0, 20), ran.stderr


def test_an_onnx_file_and_saved_answers_teach(tmp_path, rng):
    images, labels = photos(tmp_path / "photos", rng)
    network = teacher(images, labels)
    torch.onnx.export(
        network, (normalised(images[:2]),), tmp_path / "teacher.onnx", dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
    )  # fmt: skip
    with torch.no_grad():
        chances = network(normalised(images)).softmax(1).numpy()
    lines = [f"{i},{a:.6f},{b:.6f}" for i, (a, b) in enumerate(chances)]
    (tmp_path / "answers.csv").write_text("\n".join(["index,green,red", *lines]))
    for command in SAVED:
        ran = do(command, tmp_path)
        assert ran.code in ENDED, ran.stderr
        assert "100.0 %" in next(line for line in ran.stderr.splitlines() if "says of" in line)


@contextmanager
def served(command, cwd):
    """Serve on a free port, in a process of its own."""
    script, *words = shlex.split(command, comments=True)[1:]
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / script, *words, "port=0"],
        cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            address = next(line for line in process.stderr if "http://" in line)
            with httpx.Client(base_url=address[address.index("http://") :].split()[0]) as client:
                while not (client.get("/status").json()["experiment"] or {}).get("is_ready"):
                    assert process.poll() is None
                    time.sleep(0.1)
                yield client
        finally:
            process.terminate()


def ask(client, images):
    """Send pictures, a person each; return the ids of the predictions."""
    ids = []
    for unit, image in enumerate(images):
        content = BytesIO()
        Image.fromarray(image[:, :, 0]).save(content, "PNG")
        headers = {"Content-Type": "image/png", "X-Unit": str(unit)}
        said = client.post("/predict", content=content.getvalue(), headers=headers)
        ids.append(said.raise_for_status().json()["prediction_id"])
    return ids


def label(client, truths):
    """Answer all that waits at /review."""
    for _ in range(len(truths)):
        item = client.post("/review/next", json={"annotator": "ann"}).json()["item"]
        if item is None:
            return
        own = {"annotator": "ann", "prediction_id": item["prediction_id"]}
        answer = client.post("/review/answer", json={**own, "label": truths[own["prediction_id"]]})
        assert answer.status_code == 200, answer.text


def test_two_versions_a_decision_a_rollback_labels_and_training_again(tmp_path, data):
    by_hand = ("force=true", "reason=brief")  # so little training passes no verdict
    serve = next(command for command in PRODUCTION if "serve.py" in command)
    at = PRODUCTION.index(serve)
    for command in PRODUCTION[:at]:
        ran = do(command, tmp_path, *(by_hand if " to=" in command else ()))
        assert ran.code in ((0,) if "promote" in command else ENDED), f"{command}: {ran.stderr}"
    with served(serve, tmp_path) as client:
        ids = ask(client, data.test.inputs[:300])
        truths = dict(zip(ids, map(str, data.test.labels[:300]), strict=True))
        for command in PRODUCTION[at + 1 :]:
            if "collect" in command:
                label(client, truths)
            ran = do(command, tmp_path, *(by_hand if " to=" in command else ()))
            assert ran.code in ENDED, f"{command}: {ran.stderr}"
            if "rollback" in command:
                assert ran.document["version"] == 1
    history = (tmp_path / "registry" / "digits" / "ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["action"] for line in history].count("register") == 3
