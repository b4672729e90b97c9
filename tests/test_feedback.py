"""`feedback`, from a log to a dataset version, as a user runs it."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from feedback_logs import (
    AUDIT,
    CLASSES_SHA256,
    START,
    answered,
    fill,
    label_all,
    make_teacher,
    pictures,
    teacher_weights,
    with_embedding,
)
from feedback_logs import log as log
from feedback_logs import loop as loop
from feedback_logs import model as model
from feedback_logs import taught as taught
from prediction_logs import prediction, queued, write
from scipy import stats
from scipy.spatial.distance import cdist
from served import make_table, table_task

from distill.audit import place_of
from distill.dataset_versions import read_version
from distill.production.feedback import logged as module
from distill.production.prediction_log.annotations import answer
from distill.production.prediction_log.feedback import add_feedback
from distill.production.prediction_log.queue import reviewed
from distill.production.prediction_log.records import Annotation, Feedback
from distill.production.teacher_answers import TeacherAnswers
from distill.runtime import OnnxModel
from distill.tasks import TaskKind


def test_the_audit_is_drawn_by_id_and_the_budget_is_spent_on_the_unsure(loop, log, taught):
    records, _, _ = taught
    done = loop("select", AUDIT, "limits.budget=30")
    drawn = {record.id for record in records if place_of(record.id) < 0.2}
    rows = {row.item.prediction: row for row in reviewed(log, CLASSES_SHA256)}
    audit = {one for one, row in rows.items() if row.item.split == "audit"}
    active = set(rows) - audit
    assert audit == drawn
    assert (done["num_audit_drawn"], done["num_selected"]) == (len(drawn), 30)
    assert {rows[one].item.inclusion_probability for one in audit} == {0.2}
    assert {rows[one].item.inclusion_probability for one in active} == {None}
    # by hand: the smallest margins of all others, equal inputs once
    logits = {r.id: np.frombuffer(r.output, "<f4").astype(float) for r in records}
    gaps = {}
    for record in sorted(records, key=lambda r: (r.time, r.id)):
        if record.id not in drawn:
            p = np.sort(np.exp(logits[record.id]) / np.exp(logits[record.id]).sum())
            gaps.setdefault(record.input, (p[-1] - p[-2], record.id))
    expected = {one for _, one in sorted(gaps.values())[:30]}
    assert active == expected


def test_what_was_selected_is_not_selected_again_and_new_rows_are(loop, log, model, taught):
    first = loop("select", AUDIT, "limits.budget=30")
    before = queued(log)
    again = loop("select", AUDIT, "limits.budget=30")
    assert again["num_audit_drawn"] == 0
    assert again["num_selected"] == 30
    assert len(queued(log) - before) == 30
    fill(log, model, pictures(100, seed=5), time=START + 5000)
    grown = loop("select", AUDIT, "limits.budget=0")
    assert grown["num_predictions"] == first["num_predictions"] + 100
    assert grown["num_selected"] == 0
    assert grown["num_audit_drawn"] > 0


def test_a_proven_teacher_saves_labels_and_teaches_where_it_differs(loop, log, taught):
    _, teacher, truth = taught
    named = f"teacher.path={teacher}"
    first = loop("select", AUDIT, named, "limits.budget=0")
    assert first["teacher"]["threshold"] is None
    assert "labels nothing" in first["notes"][0]
    assert first["tiers"]["unsure"] == first["num_candidates"]
    num = label_all(log, truth)
    label_all(log, truth, who="bob")  # two against a teacher, where it takes two
    done = loop("select", AUDIT, named, "limits.budget=20")
    assert done["audit"]["num_judged"] == done["audit"]["num_judged_of_this_version"] == num
    assert done["teacher"]["threshold"] == 0.5
    assert done["teacher"]["may_teach"]
    assert done["tiers"]["agree"] > 100
    assert done["tiers"]["soft_label"] > 5
    assert done["num_selected"] == 20
    for row in reviewed(log, CLASSES_SHA256):
        assert row.item.split == "audit" or row.item.tier == "unsure"
    found = loop("collect", AUDIT, named, "max_teacher_share=0.9")
    assert found["counts"]["audit"] == {"human": num}
    assert found["counts"]["active"] == {}  # a teacher without any human label beside it
    label_all(log, truth)
    label_all(log, truth, who="bob")
    found = loop("collect", AUDIT, named, "max_teacher_share=0.5")
    assert found["counts"]["active"]["teacher"] <= found["counts"]["active"]["human"]
    rows, manifest = read_version(Path(found["dataset"]))
    by_teacher = rows.sources == "teacher"
    assert by_teacher.sum() == found["counts"]["active"]["teacher"]
    expected = OnnxModel(teacher).predict(rows.inputs)
    np.testing.assert_allclose(rows.teacher_logits[by_teacher], expected[by_teacher], rtol=1e-5)
    assert (rows.labels[by_teacher] == -1).all()
    said = rows.sources == "human"
    assert [truth[one] for one in rows.ids[said]] == rows.labels[said].tolist()
    level = next(own for own in manifest["teacher"]["proof"]["levels"] if own["threshold"] == 0.5)
    assert set(rows.weights[by_teacher]) == {level["differing_lower_bound"]}
    assert not set(rows.of("audit").sources) & {"teacher"}


def test_a_teacher_that_gets_worse_is_stopped(loop, log, taught):
    _, teacher, truth = taught
    loop("select", AUDIT, "limits.budget=10")
    wrong = {one: (label + (i % 4 == 0)) % 3 for i, (one, label) in enumerate(truth.items())}
    label_all(log, wrong)
    done = loop("select", AUDIT, f"teacher.path={teacher}", "limits.budget=0")
    assert done["teacher"]["threshold"] is None
    collected = loop("collect", AUDIT, f"teacher.path={teacher}")
    assert "teacher" not in collected["counts"]["active"]


def test_active_rows_never_judge(loop, log, taught):
    _, teacher, truth = taught
    loop("select", AUDIT, "limits.budget=50")
    label_all(log, truth, only="active")
    done = loop("select", AUDIT, f"teacher.path={teacher}", "limits.budget=0")
    assert done["audit"]["num_judged"] == 0
    assert done["audit"]["accuracy"] is None
    assert done["teacher"]["threshold"] is None


def test_the_audit_tells_the_models_accuracy(loop, log, taught):
    records, _, truth = taught
    loop("select", AUDIT, "limits.budget=100")
    label_all(log, truth)
    found = loop("select", AUDIT, "limits.budget=0")["audit"]
    drawn = [record for record in records if place_of(record.id) < 0.2]
    right = sum(record.label == truth[record.id] for record in drawn)
    low, high = stats.binomtest(right, len(drawn)).proportion_ci(0.95, method="wilson")
    assert found["accuracy"]["estimate"] == pytest.approx(right / len(drawn))
    assert found["accuracy"]["interval"] == pytest.approx([low, high])
    whole = np.mean([record.label == truth[record.id] for record in records])
    assert low < whole < high


def test_a_truth_that_contradicts_people_is_collected_and_told(loop, log, taught):
    loop("select", AUDIT, "limits.budget=10", "looking.overlap=0")
    rows = [row for row in reviewed(log, CLASSES_SHA256) if row.item.split == "active"][:4]
    for row in rows:
        answer(log, Annotation(prediction=row.item.prediction, annotator="ann", label=0))
    one = rows[0].item.prediction
    assert add_feedback(log, Feedback(prediction=one, label=2))
    done = loop("collect", AUDIT)
    assert done["people"] == {"num_judged": 1, "num_upheld": 0, "num_contradicted": 1}
    assert any("Of 1 items something else turned out" in note for note in done["notes"])
    rows, _ = read_version(Path(done["dataset"]))
    place = rows.ids.tolist().index(one)
    assert (rows.labels[place], rows.sources[place]) == (2, "delayed_truth")


def test_a_teacher_that_is_gone_is_said_and_people_go_on(loop, log, taught):
    done = loop("select", AUDIT, "teacher.path=gone.onnx", "limits.budget=5")
    assert done["num_selected"] == 5
    assert "people label alone" in done["notes"][0]
    assert done["teacher"]["problem"] == done["notes"][0]
    refused = loop("select", AUDIT, "teacher.path=gone.onnx", "strategy=disagreement")
    assert "Expected a teacher for `strategy=disagreement`" in refused


def test_a_teacher_is_asked_once_and_its_answers_outlive_it(loop, log, taught, tmp_path):
    _, teacher, truth = taught
    loop("select", AUDIT, f"teacher.path={teacher}", "limits.budget=5", "strategy=disagreement")
    store = next((tmp_path / "outputs/feedback").glob("teacher_answers_*.npz"))
    teacher.unlink()
    label_all(log, truth)
    label_all(log, truth, who="bob")
    done = loop("select", AUDIT, f"teacher.path={store}", "limits.budget=5")
    assert done["teacher"]["threshold"] == 0.5


def test_the_strategy_asks_what_the_teacher_contradicts_the_most(loop, log, taught):
    records, teacher, _ = taught
    loop("select", AUDIT, f"teacher.path={teacher}", "strategy=disagreement", "limits.budget=5")
    said = OnnxModel(teacher).predict(np.stack([np.load(io.BytesIO(r.input)) for r in records]))

    def softmax(x):
        return np.exp(x) / np.exp(x).sum()

    apart = {
        r.id: stats.entropy(softmax(t), softmax(np.frombuffer(r.output, "<f4")))
        for r, t in zip(records, said, strict=True)
        if place_of(r.id) >= 0.2
    }
    for row in reviewed(log, CLASSES_SHA256):
        if row.item.split == "active":
            assert row.item.score == pytest.approx(apart[row.item.prediction], rel=1e-3)
            assert apart[row.item.prediction] >= sorted(apart.values())[-12]


def test_a_teacher_of_other_classes_is_refused(loop, log, taught, tmp_path):
    other = make_teacher(tmp_path / "other.onnx", classes=("cat", "owl", "dog"))
    assert "cat, owl, dog" in loop("select", AUDIT, f"teacher.path={other}")
    narrow = TeacherAnswers(
        ids=np.array([taught[0][0].id]), logits=np.zeros((1, 2), np.float32), model_sha256="a" * 64
    )
    narrow.write(tmp_path / "narrow.npz")
    assert "3 classes" in loop("select", AUDIT, f"teacher.path={tmp_path / 'narrow.npz'}")


def test_members_of_an_ensemble_are_asked_for_bald(loop, log, taught, tmp_path):
    paths = [make_teacher(tmp_path / f"{i}.onnx", teacher_weights(seed=i)) for i in range(2)]
    done = loop(
        "select",
        AUDIT,
        "strategy=bald",
        f"teacher.members=[{paths[0]},{paths[1]}]",
        "limits.budget=5",
    )
    assert (done["strategy"], done["num_selected"]) == ("bald", 5)
    assert "two members" in loop("select", AUDIT, "strategy=bald")
    assert "gone" in loop(
        "select", AUDIT, "strategy=bald", f"teacher.members=[{paths[0]},gone.onnx]"
    )


def test_the_embedding_is_what_distances_are_of_where_there_is_one(loop, log, pets, tmp_path):
    folder = tmp_path / "export"
    shutil.copytree(pets, folder)
    with_embedding(pets / "model.onnx", folder / "model.onnx")
    records = fill(log, folder / "model.onnx", pictures(60))
    done = loop("select", AUDIT, "strategy=core_set", "limits.budget=3", artefact=folder)
    assert done["has_embedding"]
    rows = [r for r in reviewed(log, CLASSES_SHA256) if r.item.split == "active"]
    rows.sort(key=lambda row: -row.item.priority)
    first, second, _ = (np.load(io.BytesIO(r.prediction.input)).ravel() for r in rows)
    gap = np.linalg.norm(first.astype(float) - second)
    assert rows[1].item.score == pytest.approx(gap)
    assert rows[2].item.score <= gap
    # Next time it is far from these three, and from what turned out.
    free = next(one for one in records if one.id not in queued(log))
    add_feedback(log, Feedback(prediction=free.id, label=0))
    learnt = [np.load(io.BytesIO(r.prediction.input)).ravel() for r in rows]
    learnt.append(np.load(io.BytesIO(free.input)).ravel())
    before = queued(log)
    loop("select", AUDIT, "strategy=core_set", "limits.budget=1", artefact=folder)
    (new,) = (r for r in reviewed(log, CLASSES_SHA256) if r.item.prediction not in before)
    others = [np.load(io.BytesIO(r.input)).ravel() for r in records if r.id not in before]
    far = cdist(others, learnt).min(axis=1).max()
    assert new.item.score == pytest.approx(far)


def test_units_and_costs_are_minded(loop, log, model):
    images = pictures(100)
    fill(log, model, images, unit="one")
    done = loop("select", AUDIT, "limits.per_unit=2", "limits.budget=50", "costs={owl: 5}")
    assert done["num_selected"] == 2
    assert done["num_over_unit"] > 0
    wrong = loop("select", AUDIT, "costs={owll: 5}")
    assert "Did you mean `owl`?" in wrong


def test_an_empty_log_and_a_log_of_another_model_are_told_apart(loop, log, cli):
    assert "it is empty" in loop("select")
    write(log, *(prediction(model="digits", artefact_sha256="f" * 64) for _ in range(3)))
    assert "it has 3 of digits (ffffffffffff)" in loop("select")


def test_failures_shadows_and_rows_of_the_future_are_no_answers(loop, log, model):
    images = pictures(30)
    fill(log, model, images, role="shadow")
    write(log, *answered(model, images, outcome="error", output=b"", label=None))
    fill(log, model, images[:4], time=9e9)
    refused = loop("select", AUDIT)
    assert "60 are failures, shadows or of other classes and 4 are of a time to come" in refused
    fill(log, model, images)
    done = loop("select", AUDIT, "limits.budget=3")
    assert done["num_predictions"] == 30
    assert "a clock is wrong" in done["notes"][0]


def test_a_log_that_grows_while_it_is_read_ends(loop, log, model, monkeypatch):
    fill(log, model, pictures(1500))
    real, grown = module.stream, []

    def stream(*arguments, **options):
        for number, row in enumerate(real(*arguments, **options)):
            if number % 500 == 0 and len(grown) < 50:
                grown.extend(fill(log, model, pictures(10, seed=number), time=8e9))
            yield row

    monkeypatch.setattr(module, "stream", stream)
    done = loop("select", AUDIT, "limits.budget=1")
    assert done["num_predictions"] == 1500


def test_what_cannot_be_is_one_message(loop, log, taught, cli, tmp_path):
    assert "audit_share" in loop("select", "looking.audit_share=0")
    assert "budget" in loop("select", "limits.budgets=3")
    assert "there is none" in loop("select", "log.url=sqlite:///other.db")
    assert "Unknown option `strategy=margn`" in loop("select", "strategy=margn")
    assert "nothing is labelled" not in loop("select", AUDIT)
    assert "there is none yet" in loop("collect", AUDIT)
    assert "Name them: `files=[a.json]`" in loop("import")
    assert "max_teacher_share" in loop("collect", AUDIT, "max_teacher_share=1")
    ran = cli("feedback", "selct")
    assert (ran.code, "Did you mean `select`" in ran.stderr) == (2, True)


def test_a_bare_file_and_a_model_of_numbers_are_refused(loop, log, echo, tmp_path):
    assert "carries no contract" in loop("select", artefact=echo)
    numbers = make_table(tmp_path / "numbers", table_task(TaskKind.REGRESSION))
    assert "answers regression" in loop("select", artefact=numbers)
