"""`feedback export` and `import`: tasks and answers of Label Studio, as a user runs them."""

import json
from pathlib import Path

import pytest
from feedback_logs import AUDIT, annotated
from feedback_logs import log as log
from feedback_logs import loop as loop
from feedback_logs import model as model
from feedback_logs import taught as taught
from prediction_logs import queued
from registry_runs import CLASSES

from distill.production.prediction_log.queue import find_item
from distill.production.prediction_log.reader import find


def exported(loop, log, taught, budget=20):
    loop("select", AUDIT, f"limits.budget={budget}", "looking.overlap=0")
    done = loop("export")
    return done, json.loads(Path(done["tasks"]).read_text())


def test_tasks_go_out_with_answers_and_come_back_by_id(loop, log, taught, tmp_path):
    records, _, truth = taught
    done, tasks = exported(loop, log, taught)
    by_id = {record.id: record for record in records}
    assert {task["data"]["pred_id"] for task in tasks} == queued(log)
    for task in tasks:
        (said,), own = task["predictions"], by_id[task["data"]["pred_id"]]
        assert said["score"] == own.confidence
        assert said["result"][0]["value"]["choices"] == [CLASSES[own.label]]
        assert task["data"]["image"].startswith("data:image/png;base64,")
    assert 'Choice value="owl"' in Path(done["config"]).read_text()
    back = [
        annotated(task, (i % 2, CLASSES[truth[task["data"]["pred_id"]]]))
        for i, task in enumerate(tasks)
    ]
    (tmp_path / "back.json").write_text(json.dumps(back))
    found = loop("import", "files=[back.json]")
    assert found["num_new"] == found["settled"] == len(tasks)
    again = loop("import", "files=[back.json]")
    assert (again["num_new"], again["num_annotations"]) == (0, len(tasks))
    for task in tasks:
        one = task["data"]["pred_id"]
        assert [(f.label, f.source) for f in find(log, one).feedback] == [(truth[one], "human")]
    (kept,) = find_item(log, one).annotations
    assert (kept.lead_time_s, kept.time) == (2.5, 1793527200.0)


def test_cancelled_answers_are_left_out_and_two_who_differ_are_adjudicated(
    loop, log, taught, tmp_path
):
    _, tasks = exported(loop, log, taught)
    back = [
        annotated(tasks[0], (1, "cat"), was_cancelled=True),
        annotated(tasks[1], (1, None)),
        annotated(tasks[2], (1, "cat"), (2, "dog")),
        annotated(tasks[3], (1, "cat"), (2, "cat"), (3, "dog")),
        annotated(tasks[4], (1, "dog"), (2, "dog")),
    ]
    (tmp_path / "back.json").write_text(json.dumps(back))
    found = loop("import", "files=[back.json]")
    assert (found["num_cancelled"], found["adjudicate"], found["settled"]) == (2, 1, 2)
    pairs = {(p["first"], p["second"]): p for p in found["agreement"]["pairs"]}
    # ann 1 and 2: cat/dog, cat/cat, dog/dog; p_o = 2/3, p_e = 2/3 * 1/3 + 1/3 * 2/3 = 4/9
    assert (pairs["1", "2"]["num_both"], pairs["1", "2"]["num_same"]) == (3, 2)
    assert pairs["1", "2"]["cohen_kappa"] == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    ids = [task["data"]["pred_id"] for task in tasks]
    labels = [find_item(log, one).item.label for one in ids[:5]]
    assert labels == [None, None, None, CLASSES.index("cat"), CLASSES.index("dog")]


def test_unknown_choices_are_named_and_nothing_is_taken(loop, log, taught, tmp_path):
    _, tasks = exported(loop, log, taught)
    back = [annotated(tasks[0], (1, "cat")), annotated(tasks[1], (1, "Owl"))]
    (tmp_path / "back.json").write_text(json.dumps(back))
    refused = loop("import", "files=[back.json]")
    assert "'Owl'" in refused
    assert "Did you mean `owl`?" in refused
    assert find_item(log, tasks[0]["data"]["pred_id"]).annotations == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[{"data": {"pred_id"', "truncated"),
        ("{}", "list of tasks"),
        ('[{"image": "x", "choice": "cat"}]', "not JSON-MIN"),
        ("[1]", "task 0"),
        ('[{"data": {"pred_id": "x"}, "annotations": ["cat"]}]', "as objects"),
        ("\xff", "truncated"),
    ],
)  # fmt: skip
def test_what_is_no_export_is_one_message(loop, log, taught, tmp_path, content, says):
    (tmp_path / "back.json").write_bytes(content.encode("latin-1"))
    assert says in loop("import", "files=[back.json]")


def test_answers_to_another_log_are_refused(loop, log, taught, tmp_path):
    _, tasks = exported(loop, log, taught)
    tasks[0]["data"]["pred_id"] = "0" * 30
    (tmp_path / "back.json").write_text(json.dumps([annotated(tasks[0], (1, "cat"))]))
    assert "none of 1 is of one with these classes" in loop("import", "files=[back.json]")


def test_two_choices_of_one_person_are_refused(loop, log, taught, tmp_path):
    _, tasks = exported(loop, log, taught)
    task = annotated(tasks[0], (1, "cat"))
    task["annotations"][0]["result"][0]["value"]["choices"] = ["cat", "dog"]
    (tmp_path / "back.json").write_text(json.dumps([task]))
    assert "2: cat, dog" in loop("import", "files=[back.json]")
