"""Claims about `feedback collect`: what a dataset version holds, and what is left out."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from feedback_logs import (
    AUDIT,
    CLASSES_SHA256,
    START,
    annotated,
    fill,
    label_all,
    pictures,
)
from feedback_logs import log as log
from feedback_logs import loop as loop
from feedback_logs import model as model
from feedback_logs import taught as taught
from prediction_logs import prediction, queued, write
from served import CITIES

from distill.audit import place_of
from distill.dataset_versions import read_version
from distill.errors import UserError
from distill.files import sha256
from distill.production.logged_inputs import row_bytes
from distill.production.prediction_log.feedback import add_feedback
from distill.production.prediction_log.queue import audit_shares, reviewed
from distill.production.prediction_log.records import Feedback
from distill.production.registry.place import fetch
from distill.runtime import OnnxModel


def test_a_version_is_whole_says_what_came_before_and_is_not_made_twice(
    loop, log, taught, tmp_path
):
    records, _, truth = taught
    loop("select", AUDIT, "limits.budget=10")
    label_all(log, truth, only="audit")
    first = loop("collect", AUDIT)
    assert loop("collect", AUDIT)["is_new"] is False
    free = next(r for r in records if r.id not in queued(log))
    add_feedback(log, Feedback(prediction=free.id, label=truth[free.id], source="shop"))
    second = loop("collect", AUDIT)
    assert second["is_new"]
    one, two = (json.loads(Path(own["manifest"]).read_text()) for own in (first, second))
    assert (one["parent"], two["parent"]) == (None, {"version": 1, "sha256": one["sha256"]})
    assert two["counts"]["active"] == {"delayed_truth": 1}
    for name, expected in two["files"].items():
        assert sha256(tmp_path / "outputs/feedback/dataset_0002" / name) == expected
    rows, _ = read_version(tmp_path / "outputs/feedback/dataset_0002")
    image = np.load(io.BytesIO(free.input))
    np.testing.assert_array_equal(rows.of("active").inputs, image[None])
    assert np.isnan(rows.of("active").inclusion_probabilities).all()
    assert set(rows.of("audit").inclusion_probabilities) == {0.2}


def test_rows_that_nobody_spoke_of_go_along(loop, log, taught, tmp_path):
    records, _, truth = taught
    loop("select", AUDIT, "limits.budget=10")
    label_all(log, truth)
    asked = queued(log)
    done = loop("collect", AUDIT, "max_unlabelled=50")
    whole, _ = read_version(tmp_path / done["dataset"])
    rows = whole.of("unlabelled")
    judged = {image.tobytes() for image in whole.of("audit").inputs}
    free = (record for record in records if record.id not in asked)
    drawn = sorted(free, key=lambda record: place_of(f"unlabelled {record.id}"))[:50]
    expected = {r.id for r in drawn if np.load(io.BytesIO(r.input)).tobytes() not in judged}
    assert set(rows.ids.tolist()) == expected
    assert 0 < len(expected) <= 50
    assert (rows.labels == -1).all()
    assert np.isnan(rows.teacher_logits).all()
    assert not set(rows.ids.tolist()) & asked
    by_id = {record.id: record for record in records}
    for one, image in zip(rows.ids.tolist(), rows.inputs, strict=True):
        np.testing.assert_array_equal(image, np.load(io.BytesIO(by_id[one].input)))
    more = loop("collect", AUDIT, "max_unlabelled=80")  # another draw takes the same, and more
    wider = read_version(tmp_path / more["dataset"])[0].of("unlabelled")
    assert set(rows.ids.tolist()) < set(wider.ids.tolist())
    assert loop("collect", AUDIT, "max_unlabelled=0")["counts"]["unlabelled"] == {}
    assert "max_unlabelled" in loop("collect", AUDIT, "max_unlabelled=-1")


def test_what_one_person_says_against_a_sure_teacher_judges_all_the_same(
    loop, log, model, taught, tmp_path
):
    _, teacher, truth = taught
    named = f"teacher.path={teacher}"
    loop("select", AUDIT, named, "limits.budget=0")
    for who in ("ann", "bob"):  # the teacher is proven by them
        label_all(log, truth, who=who)
    images = pictures(200, seed=5)
    later = fill(log, model, images)
    loop("select", AUDIT, named, "limits.budget=0")
    says = OnnxModel(teacher).predict(images).argmax(axis=1)
    otherwise = {r.id: int(own + 1) % 3 for r, own in zip(later, says, strict=True)}
    label_all(log, otherwise)
    rows = list(reviewed(log, CLASSES_SHA256))
    contested = {row.item.prediction for row in rows if row.item.label is None}
    assert len(contested) > 10
    whole, _ = read_version(tmp_path / loop("collect", AUDIT, named)["dataset"])
    audit = whole.of("audit")
    assert len(audit) == len(rows)
    labels = dict(zip(audit.ids.tolist(), audit.labels.tolist(), strict=True))
    assert {one: labels[one] for one in contested} == {one: otherwise[one] for one in contested}


def test_the_audit_is_of_the_days_that_are_looked_back(loop, log, model, tmp_path, monkeypatch):
    old = fill(log, model, pictures(100, seed=1), time=START)
    new = fill(log, model, pictures(100, seed=2), time=START + 30 * 86_400)
    monkeypatch.setattr("distill.production.feedback.survey.time.time", lambda: START + 31 * 86_400)
    loop("select", AUDIT, "limits.budget=0")
    label_all(log, {record.id: 0 for record in (*old, *new)})
    whole, _ = read_version(tmp_path / loop("collect", AUDIT, "looking.days=7")["dataset"])
    assert set(whole.of("audit").ids) == {r.id for r in new if place_of(r.id) < 0.2}


def test_what_turned_out_of_the_versions_before_is_learnt_from(
    log, cli, home, register, promote, tmp_path
):
    """Of those that take and answer the same alone, and never of a shadow."""
    kinds = ({"classes": ("a", "b", "c")}, {"seed": 1}, {"seed": 2})
    versions = [register(**kind).version for kind in kinds]
    for version in versions:
        assert promote(version=version, force=True, reason="a test").entry is not None
    different = np.unique(pictures(400), axis=0)  # an input of the audit is learnt from by nobody
    strange, old, new, shadow = (
        fill(log, fetch(home, n).artefact_path, different[60 * i :][:60], version=n, role=role)
        for i, (n, role) in enumerate(
            [(1, "champion"), (2, "champion"), (3, "champion"), (2, "shadow")]
        )
    )
    labels = {r.id: i % 3 for i, r in enumerate((*strange, *old, *new, *shadow))}
    for one, label in labels.items():
        add_feedback(log, Feedback(prediction=one, label=label))
    place = (f"registry.folder={home.folder}", f"registry.tracking_uri={home.tracking_uri}")
    ran = cli("feedback", "collect", AUDIT, *place)
    assert ran.code == 0, ran.stderr
    rows, _ = read_version(tmp_path / ran.document["dataset"])
    learnt, audit = rows.of("active"), rows.of("audit")
    assert {*audit.ids} == {r.id for r in new if place_of(r.id) < 0.2}
    assert {*learnt.ids} == {r.id for r in (*old, *new)} - {*audit.ids}
    assert learnt.labels.tolist() == [labels[one] for one in learnt.ids]


def test_a_changed_version_is_refused(loop, log, taught, tmp_path):
    loop("select", AUDIT, "limits.budget=0")
    label_all(log, taught[2])
    path = tmp_path / loop("collect", AUDIT)["dataset"]
    np.save(path / "inputs.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"inputs.npy as the manifest has it"):
        read_version(path)


def test_an_input_of_the_audit_is_not_trained_on(loop, log, model):
    images = np.repeat(pictures(1), 60, axis=0)  # everybody sends the same picture
    records = fill(log, model, images)
    loop("select", AUDIT, "limits.budget=5")
    for record in records:
        add_feedback(log, Feedback(prediction=record.id, label=1))
    found = loop("collect", AUDIT)
    assert found["counts"]["active"] == {}
    assert found["num_leaks"] == 60 - found["counts"]["audit"]["delayed_truth"] > 0


@pytest.mark.parametrize("privacy", ["hash", "drop"])
def test_without_inputs_the_audit_still_judges_and_the_rest_is_said(loop, log, model, privacy):
    records = fill(
        log, model, pictures(80), input=None, input_sha256="b" * 64 if privacy == "hash" else None
    )
    done = loop("select", AUDIT, "limits.budget=5")
    assert done["num_selected"] == 0
    assert "no input in the log" in done["notes"][0]
    for record in records:
        add_feedback(log, Feedback(prediction=record.id, label=record.label))
    assert loop("select", AUDIT, "limits.budget=5")["audit"]["accuracy"]["estimate"] == 1.0
    assert "the log keeps none" in loop("collect", AUDIT)
    assert "inputs are kept with" in loop("export")


def test_rows_of_a_table_go_round_the_loop(loop, log, people_table, tmp_path):
    artefact, count = people_table / "model.onnx", 40
    rng = np.random.default_rng(0)
    feeds = {
        "age": rng.normal(size=(count, 1)) * 40,
        "member": rng.choice([0.0, 1.0, np.nan], (count, 1)),
        "city": rng.choice([*CITIES, ""], (count, 1)).astype(object),
        "since": rng.integers(0, 9, (count, 1)) * 86_400_000,
    }
    own = sha256(artefact)
    write(
        log,
        *(
            prediction(
                artefact_sha256=own,
                input=row_bytes(feeds, i, has_rows=True),
                output=np.array([0.0, feeds["age"][i, 0] / 9], "<f4").tobytes(),
                label=int(feeds["age"][i, 0] > 0),
                confidence=0.7,
                time=START + i,
            )
            for i in range(count)
        ),
    )
    loop("select", AUDIT, "limits.budget=10", "looking.overlap=0", artefact=people_table)
    tasks = json.loads(Path(loop("export", artefact=people_table)["tasks"]).read_text())
    assert {*tasks[0]["data"]["row"]} == {"age", "member", "city", "since"}
    assert Counter(type(v) for t in tasks for v in t["data"]["row"].values()) == {
        str: 4 * len(tasks)
    }
    back = [annotated(task, (1, "yes")) for task in tasks]
    (tmp_path / "back.json").write_text(json.dumps(back))
    loop("import", "files=[back.json]", artefact=people_table)
    found = loop("collect", AUDIT, artefact=people_table)
    rows, _ = read_version(tmp_path / found["dataset"])
    place = {(START + i): i for i in range(count)}
    order = [place[moment] for moment in rows.times]
    for name, values in feeds.items():
        np.testing.assert_array_equal(
            rows.inputs[name], values[order, 0].astype(rows.inputs[name].dtype)
        )
    assert (rows.labels[rows.splits != "unlabelled"] == 1).all()


def test_collecting_goes_by_the_share_that_was_drawn_with_and_says_what_can_judge(
    loop, log, taught
):
    records, _, truth = taught
    chosen = loop("select", AUDIT, "limits.budget=10")
    told = "\n".join(chosen["says"])
    assert f"margin chose 10 of {800 - chosen['num_audit_drawn']} predictions" in told
    assert f"{chosen['num_audit_drawn'] + 10} items wait at /review: `distill serve art" in told
    label_all(log, truth)
    refused = loop("collect", "looking.audit_share=0.02")
    assert "`looking.audit_share=0.2`" in refused
    assert "but got 0.02" in refused
    found = loop("collect")
    assert audit_shares(log) == [(0.0, 0.2)]
    assert found["audit"]["share"] == 0.2
    audited = found["counts"]["audit"]["human"]
    assert found["num_audit_usable"] == audited == chosen["num_audit_drawn"]
    told = "\n".join(found["says"])
    assert f"At most {audited:,} audited rows can judge" in told
    assert "and 30 must" in told
    assert "distill pipeline experiment=feedback data.version=" in told
    for record in records:
        add_feedback(log, Feedback(prediction=record.id, label=truth[record.id]))
    assert "All 800 predictions have a truth already." in loop("select")["says"]
    assert "holds" not in str(loop("select")["notes"])
    assert "of those before it stays 20.0%" in loop("select", "looking.audit_share=0.3")["notes"][0]
