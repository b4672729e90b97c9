"""The whole loop as people run it: serve, ask, select, label, collect, each in its own process."""

import json
import subprocess
import sys

import pytest
from commands import run_process
from feedback_logs import pictures
from registry_runs import CLASSES
from serving_process import ENTRY, INFER, process

from distill.dataset_versions import read_version


def test_the_loop_closes(pets, tmp_path):
    images = pictures(40)
    given = (f"artefact={pets}", "name=pets", "port=0", "log.flush_ms=1")
    own = ("looking.audit_share=0.5", "looking.overlap=0", f"artefact={pets}")
    with process(*given, cwd=tmp_path) as (_, client):
        for image in images:
            entry = ENTRY | {"data": image.ravel().tolist()}
            assert client.post(INFER, json={"inputs": [entry]}).status_code == 200
        selected = run_process("feedback", "select", *own, "limits.budget=5", cwd=tmp_path)
        assert selected.code == 0, selected.stderr
        count = selected.document["num_audit_drawn"] + 5
        labels = 0
        while item := client.post("/review/next", json={"annotator": "ann"}).json()["item"]:
            facts = {"annotator": "ann", "prediction_id": item["prediction_id"], "label": "owl"}
            assert client.post("/review/answer", json=facts).status_code == 200
            labels += 1
        assert labels == count
        collected = run_process("feedback", "collect", *own, cwd=tmp_path)
    assert collected.code == 0, collected.stderr
    rows, manifest = read_version(tmp_path / collected.document["dataset"])
    assert collected.document["counts"]["active"] == {"human": 5}
    said = rows.sources == "human"
    assert (rows.labels[said] == CLASSES.index("owl")).all()
    assert (rows.labels[~said] == -1).all()
    known = {image.tobytes() for image in images}
    assert {own.tobytes() for own in rows.inputs} <= known
    assert manifest["model"]["sha256"] == collected.document["model_sha256"]
    assert json.loads((tmp_path / collected.document["manifest"]).read_text()) == manifest


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["review=false"], "review=false"),
        (["log.url=null"], "log.url=null"),
        (["host=0.0.0.0"], "review=true"),
        (["host=0.0.0.0", "review=true"], None),
        ([], None),
    ],
)
def test_inputs_are_shown_on_this_machine_alone_unless_told(pets, tmp_path, overrides, says):
    given = (f"artefact={pets}", "name=pets", "port=0", *overrides)
    with process(*given, cwd=tmp_path) as (_, client):
        client.base_url = str(client.base_url).replace("0.0.0.0", "127.0.0.1")
        page = client.get("/review")
        step = client.post("/review/next", json={"annotator": "ann"})
    assert (page.status_code, step.status_code) == ((200, 200) if says is None else (403, 403))
    assert says is None or says in step.json()["error"]


@pytest.mark.slow
def test_the_loop_needs_neither_torch_nor_arrow():
    heavy = "{'torch', 'lightning', 'pyarrow', 'sklearn', 'mlflow', 'matplotlib'}"
    code = f"import sys, distill.verbs.feedback; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
